"""Changes between the thread that reads the binlog and the loop that sends them."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence

from services.binlog_relay.domain.packing import (
    Heartbeat,
    Item,
    PackedRequest,
    PackingLimits,
    RowChange,
    TransactionEnd,
    pack,
)


class BacklogClosedError(Exception):
    """The backlog has been closed: its changes are not sent any more."""


class SendBacklog:
    """Bounded by bytes: `put` blocks the reading thread, `take` waits in the loop."""

    def __init__(self, max_bytes: int, limits: PackingLimits) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        self._bytes = 0
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()

    @property
    def waiting_bytes(self) -> int:
        """The size of the changes that have not been taken."""
        return self._bytes

    def put(self, items: Sequence[Item]) -> None:
        """Append, first waiting for room; raises BacklogClosedError when it has been closed.

        The items of one call are taken as a whole, so one row event may exceed the bound.
        """
        with self._changed:
            while self._bytes >= self._max_bytes and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                raise BacklogClosedError
            was_empty = not self._waiting
            for item in items:
                if isinstance(item, RowChange):
                    self._bytes += len(item.body)
                elif (
                    isinstance(item, TransactionEnd)
                    and self._waiting
                    and isinstance(self._waiting[-1], TransactionEnd)
                ):
                    # Transactions of other tables leave only the last of their ends.
                    self._waiting.pop()
                self._waiting.append(item)
        if was_empty:
            self._loop.call_soon_threadsafe(self._arrived.set)

    def put_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Append from the loop without waiting: a heartbeat has no size."""
        with self._changed:
            self._waiting.append(heartbeat)
        self._arrived.set()

    async def take(self) -> PackedRequest:
        """Wait for items, and return as many as fit into one request."""
        while True:
            with self._changed:
                if self._waiting:
                    packed = pack(self._waiting, self._limits)
                    bodies = (c.body for message in packed.messages for c in message.changes)
                    self._bytes -= sum(map(len, bodies))
                    self._changed.notify_all()
                    return packed
                self._arrived.clear()
            await self._arrived.wait()

    def close(self) -> None:
        """Free a blocked reader; items that have not been taken are dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
