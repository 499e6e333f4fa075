"""Changes between the thread that reads the binlog and the loop that sends them."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence

from services.binlog_relay.domain.packing import Beat, Change, Item, Limits, Load, Mark, pack


class BacklogClosedError(Exception):
    """Nobody takes from the backlog any more."""


class Backlog:
    """Bounded by bytes: `put` blocks the reading thread, `take` waits in the loop."""

    def __init__(self, max_bytes: int, limits: Limits) -> None:
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

        What is put at once is taken in whole, so the bound may be passed by one row event.
        """
        with self._changed:
            while self._bytes >= self._max_bytes and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                raise BacklogClosedError
            was_empty = not self._waiting
            for item in items:
                self._append(item)
        if was_empty:
            self._loop.call_soon_threadsafe(self._arrived.set)

    def beat(self, beat: Beat) -> None:
        """Append from the loop, without waiting: it weighs nothing."""
        with self._changed:
            self._waiting.append(beat)
        self._arrived.set()

    async def take(self) -> Load:
        """Wait for something, and return what of it fits one request."""
        while True:
            with self._changed:
                if self._waiting:
                    return self._packed()
                self._arrived.clear()
            await self._arrived.wait()

    def close(self) -> None:
        """Free a blocked reader; what is left is forgotten."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _append(self, item: Item) -> None:
        if isinstance(item, Change):
            self._bytes += len(item.body)
        elif isinstance(item, Mark) and self._waiting and isinstance(self._waiting[-1], Mark):
            # Transactions that do not concern us leave only the last of their marks.
            self._waiting.pop()
        self._waiting.append(item)

    def _packed(self) -> Load:
        load = pack(self._waiting, self._limits)
        self._bytes -= sum(len(c.body) for message in load.messages for c in message.changes)
        self._changed.notify_all()
        return load
