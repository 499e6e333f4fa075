"""Packing waiting changes into as few messages as the limits allow."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from services.binlog_relay.domain.positions import Position

MAX_MESSAGES = 10


class Change(NamedTuple):
    """One record ready to be sent; times are microseconds since the epoch."""

    body: bytes
    captured_at_us: int
    committed_at_us: int


class Mark(NamedTuple):
    """Everything before it belongs to transactions that are complete."""

    position: Position


class BlindSpot(NamedTuple):
    """Something changed here that cannot be followed row by row."""

    reason: str


class Beat(NamedTuple):
    """Everything read until `heard_at_us` stands before it; what was committed until
    `committed_at_us` had been read. Microseconds of the epoch.
    """

    heard_at_us: int
    committed_at_us: int


Item: TypeAlias = Change | Mark | BlindSpot | Beat


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes; `attributes_bytes` is what each message carries beside its body."""

    max_records_per_message: int
    max_message_bytes: int
    max_request_bytes: int = 1_000_000
    attributes_bytes: int = 400


@dataclass(slots=True)
class Message:
    """A body for one SQS message: an object when it holds one record, else an array."""

    changes: list[Change] = field(default_factory=list)
    size_bytes: int = 2

    def add(self, change: Change) -> None:
        """Append a record."""
        self.size_bytes += len(change.body) + (1 if self.changes else 0)
        self.changes.append(change)

    def takes(self, change: Change, limits: Limits) -> bool:
        """Return whether the record still fits; an empty message takes any."""
        if not self.changes:
            return True
        return (
            len(self.changes) < limits.max_records_per_message
            and self.size_bytes + 1 + len(change.body) <= limits.max_message_bytes
        )

    def body(self) -> str:
        """Return the JSON text."""
        if len(self.changes) == 1:
            return self.changes[0].body.decode()
        return "[" + b",".join(change.body for change in self.changes).decode() + "]"

    @property
    def captured_at_us(self) -> int:
        """When its first record was read."""
        return self.changes[0].captured_at_us

    @property
    def committed_at_us(self) -> int:
        """When its oldest record was committed."""
        return min(change.committed_at_us for change in self.changes)


@dataclass(slots=True)
class Load:
    """What one request carries. `position` is the last transaction's end it reaches, if any.

    `beat` is to be published after it, and after all before it.
    """

    messages: list[Message] = field(default_factory=list)
    position: Position | None = None
    blind_spots: list[str] = field(default_factory=list)
    beat: Beat | None = None

    @property
    def records(self) -> int:
        """How many changes it carries."""
        return sum(len(message.changes) for message in self.messages)


def pack(waiting: deque[Item], limits: Limits) -> Load:
    """Take from the front of `waiting` what fits one request, in order; at least one item."""
    load = Load()
    total = 0
    message: Message | None = None
    while waiting:
        item = waiting[0]
        if isinstance(item, Mark):
            load.position = item.position
        elif isinstance(item, BlindSpot):
            load.blind_spots.append(item.reason)
        elif isinstance(item, Beat):
            load.beat = item
            waiting.popleft()
            return load
        else:
            needs_message = message is None or not message.takes(item, limits)
            cost = len(item.body) + (limits.attributes_bytes + 2 if needs_message else 1)
            if load.messages and total + cost > limits.max_request_bytes:
                return load
            if message is None or needs_message:
                if len(load.messages) == MAX_MESSAGES:
                    return load
                message = Message()
                load.messages.append(message)
            message.add(item)
            total += cost
        waiting.popleft()
    return load
