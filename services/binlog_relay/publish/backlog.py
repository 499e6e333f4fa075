"""Changes between the thread that reads the binlog and the loop that sends them."""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from services.binlog_relay.domain.packing import (
    BulkRows,
    Gap,
    Heartbeat,
    Item,
    PackedMessage,
    PackingLimits,
    RowChange,
    pack,
)
from services.binlog_relay.domain.positions import BinlogPosition
from services.binlog_relay.domain.published_positions import PublishedPositions


class BacklogClosedError(Exception):
    """The backlog has been closed: its changes are not sent any more."""


class SendLane(Enum):
    """The rows of bulk transactions wait apart, so that changes after them need not wait."""

    FRESH = "fresh"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class PackedRequest:
    """The messages of one request; `numbers` are those of its records in the order of reading."""

    lane: SendLane
    messages: Sequence[PackedMessage]
    numbers: Sequence[int]

    @property
    def rows(self) -> int:
        """How many changed rows it carries."""
        return sum(message.rows for message in self.messages)


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been reached since the last time; the gaps were read before `position`.

    Everything before `position` and `heartbeat` is published. A gap counts once it has been read.
    """

    gaps: Sequence[str]
    position: BinlogPosition | None
    heartbeat: Heartbeat | None


@dataclass(slots=True)
class _Waiting:
    """The records of a lane with their numbers, and how many bytes they have together."""

    records: deque[RowChange | BulkRows] = field(default_factory=deque)
    numbers: deque[int] = field(default_factory=deque)
    size_bytes: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, record: RowChange | BulkRows, number: int) -> None:
        self.records.append(record)
        self.numbers.append(number)
        self.size_bytes += record.size_bytes

    def take(self, limit_bytes: int) -> tuple[list[RowChange | BulkRows], list[int]]:
        """Remove the first records of up to so many bytes together; at least one."""
        taken: list[RowChange | BulkRows] = []
        size_bytes = 0
        while self.records:
            size_bytes += self.records[0].size_bytes
            if taken and size_bytes > limit_bytes:
                break
            taken.append(self.records.popleft())
            self.size_bytes -= taken[-1].size_bytes
        return taken, [self.numbers.popleft() for _ in taken]

    def put_back(self, records: Sequence[RowChange], numbers: Sequence[int]) -> None:
        """Put records that were taken back to the front."""
        self.records.extendleft(reversed(records))
        self.numbers.extendleft(reversed(numbers))
        self.size_bytes += sum(record.size_bytes for record in records)


class SendBacklog:
    """Bounded by bytes: `put` blocks the reading thread, `take` waits in the loop.

    The rows of bulk transactions are kept as they came and decoded when they are taken, so that the
    changes behind them are read and sent in the meantime.
    """

    def __init__(self, max_bytes: int, limits: PackingLimits) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        self._lanes = {lane: _Waiting() for lane in SendLane}
        # When the rows of bulk transactions that are not published yet were committed.
        self._bulk_committed: OrderedDict[int, int] = OrderedDict()
        self._positions = PublishedPositions()
        self._gaps: list[str] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    @property
    def waiting_bytes(self) -> int:
        """The size of the changes that have not been taken."""
        return sum(lane.size_bytes for lane in self._lanes.values())

    def is_full(self, lane: SendLane) -> bool:
        """Whether the changes of the lane that have not been taken fill a message."""
        return self._lanes[lane].size_bytes >= self._limits.max_message_bytes

    def put(self, items: Sequence[Item]) -> None:
        """Append, first waiting for room; raises BacklogClosedError when it has been closed.

        The items of one call are taken as a whole, so one row event may exceed the bound.
        """
        with self._changed:
            while self.waiting_bytes >= self._max_bytes and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                raise BacklogClosedError
            empty = [lane for lane in self._lanes.values() if not lane.records]
            for item in items:
                if isinstance(item, RowChange):
                    self._lanes[SendLane.FRESH].append(item, self._positions.add())
                elif isinstance(item, BulkRows):
                    number = self._positions.add()
                    self._bulk_committed[number] = item.committed_at_us
                    self._lanes[SendLane.BULK].append(item, number)
                elif isinstance(item, Gap):
                    self._gaps.append(item.reason)
                else:
                    self._positions.mark(item)
        for lane in empty:
            if lane.records:
                self._loop.call_soon_threadsafe(lane.arrived.set)

    def put_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Append from the loop without waiting: a heartbeat has no size."""
        with self._changed:
            self._positions.mark(heartbeat)

    async def take(self, lane: SendLane) -> PackedRequest:
        """Wait for changes of the lane, and return as many as fit into one request."""
        waiting = self._lanes[lane]
        while True:
            with self._changed:
                records, numbers = waiting.take(self._limits.max_request_bytes)
                if not records:
                    waiting.arrived.clear()
            if records:
                break
            await waiting.arrived.wait()
        if lane is SendLane.BULK:
            # Decoding takes up to a tenth of a second, in which the other lane goes on.
            changes = await asyncio.to_thread(_written, records)
        else:
            changes = deque(record for record in records if isinstance(record, RowChange))
        messages = pack(changes, self._limits)
        count = len(records) - len(changes)
        with self._changed:
            waiting.put_back(changes, numbers[count:])
            unsent_since_us = next(iter(self._bulk_committed.values()), None)
            for message in messages:
                message.is_bulk = lane is SendLane.BULK
                message.unsent_since_us = None if message.is_bulk else unsent_since_us
            self._changed.notify_all()
        return PackedRequest(lane, messages, numbers[:count])

    def published(self, request: PackedRequest) -> None:
        """Count the changes of a request as published."""
        with self._changed:
            self._positions.close(request.numbers)
            if request.lane is SendLane.BULK:
                for number in request.numbers:
                    del self._bulk_committed[number]

    def progress(self) -> Progress:
        """Return what has been reached since the last call."""
        with self._changed:
            gaps, self._gaps = self._gaps, []
            position: BinlogPosition | None = None
            heartbeat: Heartbeat | None = None
            for mark in self._positions.reached():
                if isinstance(mark, Heartbeat):
                    heartbeat = mark
                else:
                    position = mark.position
            return Progress(gaps, position, heartbeat)

    def close(self) -> None:
        """Free a blocked reader; items that have not been taken are dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def _written(records: Sequence[RowChange | BulkRows]) -> deque[RowChange]:
    return deque(record.write() if isinstance(record, BulkRows) else record for record in records)
