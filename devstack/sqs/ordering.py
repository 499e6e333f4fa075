"""The order in which a queue hands out what is ready: any, or strictly within groups."""

import heapq
from collections import Counter, deque
from collections.abc import Iterable
from typing import Protocol

from devstack.sqs.messages import SqsMessage


class Ordering(Protocol):
    """Holds the ready messages of one queue; may still hold messages deleted meanwhile."""

    def push(self, message: SqsMessage) -> None:
        """Take a message that has become ready."""

    def take(self) -> SqsMessage | None:
        """Remove and return the next ready message, or None."""

    def lock(self, taken: Iterable[SqsMessage]) -> None:
        """Note that these were handed out by one receive."""

    def release(self, message: SqsMessage) -> None:
        """Note that a handed-out message is no longer in flight."""


class AnyOrder:
    """A standard queue: first come, mostly first served."""

    def __init__(self) -> None:
        self._ready: deque[SqsMessage] = deque()

    def push(self, message: SqsMessage) -> None:
        """Append."""
        self._ready.append(message)

    def take(self) -> SqsMessage | None:
        """Return the oldest ready message."""
        return self._ready.popleft() if self._ready else None

    def lock(self, taken: Iterable[SqsMessage]) -> None:
        """Nothing is locked in a standard queue."""

    def release(self, message: SqsMessage) -> None:
        """Nothing is locked in a standard queue."""


class GroupOrder:
    """A FIFO queue: a group with messages in flight gives out nothing more until they end."""

    def __init__(self) -> None:
        self._ready: dict[str, list[tuple[int, SqsMessage]]] = {}
        self._in_flight: Counter[str] = Counter()
        self._open: deque[str] = deque()

    def push(self, message: SqsMessage) -> None:
        """Put the message at its place by sequence number within its group."""
        group = message.group_id or ""
        heap = self._ready.setdefault(group, [])
        heapq.heappush(heap, (message.sequence_number, message))
        if len(heap) == 1 and not self._in_flight[group]:
            self._open.append(group)

    def take(self) -> SqsMessage | None:
        """Return the head of the first open group; the group stays open until locked."""
        if not self._open:
            return None
        group = self._open[0]
        heap = self._ready[group]
        message = heapq.heappop(heap)[1]
        if not heap:
            del self._ready[group]
            self._open.popleft()
        return message

    def lock(self, taken: Iterable[SqsMessage]) -> None:
        """Close the groups of the messages taken."""
        self._in_flight.update(message.group_id or "" for message in taken)
        while self._open and self._in_flight[self._open[0]]:
            self._open.popleft()

    def release(self, message: SqsMessage) -> None:
        """Open the group again once its last message in flight has ended."""
        group = message.group_id or ""
        self._in_flight[group] -= 1
        if self._in_flight[group] <= 0:
            del self._in_flight[group]
            if group in self._ready:
                self._open.append(group)
