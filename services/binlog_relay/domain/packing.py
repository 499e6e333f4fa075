"""Packs waiting changes into as few messages as the limits allow."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from services.binlog_relay.domain.positions import BinlogPosition

MAX_MESSAGES = 10


class RowChange(NamedTuple):
    """One record ready to be sent; its times are microseconds since 1970."""

    body: bytes
    captured_at_us: int
    committed_at_us: int


class TransactionEnd(NamedTuple):
    """The end of a transaction: every item before it belongs to complete transactions."""

    position: BinlogPosition


class Gap(NamedTuple):
    """A place at which rows may have changed without a readable row event."""

    reason: str


class Heartbeat(NamedTuple):
    """A sign of life, behind all changes read until `heard_at_us`.

    All commits until `committed_at_us` had been read then. Both are microseconds since 1970.
    """

    heard_at_us: int
    committed_at_us: int


Item: TypeAlias = RowChange | TransactionEnd | Gap | Heartbeat


@dataclass(frozen=True, slots=True)
class PackingLimits:
    """Sizes in bytes; `attributes_bytes` is the size of each message without its body."""

    max_records_per_message: int
    max_message_bytes: int
    max_request_bytes: int = 1_000_000
    attributes_bytes: int = 400


@dataclass(slots=True)
class PackedMessage:
    """The records of one SQS message, sent as a JSON object when there is one, else as an array."""

    changes: list[RowChange] = field(default_factory=list)
    size_bytes: int = 2

    def add(self, change: RowChange) -> None:
        """Append a record."""
        self.size_bytes += len(change.body) + (1 if self.changes else 0)
        self.changes.append(change)

    def takes(self, change: RowChange, limits: PackingLimits) -> bool:
        """Return whether the record still fits; an empty message takes every record."""
        if not self.changes:
            return True
        return (
            len(self.changes) < limits.max_records_per_message
            and self.size_bytes + 1 + len(change.body) <= limits.max_message_bytes
        )

    def halves(self) -> "list[PackedMessage]":
        """Return two messages with its records, in order; none for a single record."""
        middle = len(self.changes) // 2
        if not middle:
            return []
        return [_message(self.changes[:middle]), _message(self.changes[middle:])]

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


def _message(changes: list[RowChange]) -> PackedMessage:
    message = PackedMessage()
    for change in changes:
        message.add(change)
    return message


@dataclass(slots=True)
class PackedRequest:
    """The content of one request. `position` is the last transaction end in it, if any.

    `heartbeat` is published after this request and all before it.
    """

    messages: list[PackedMessage] = field(default_factory=list)
    position: BinlogPosition | None = None
    gaps: list[str] = field(default_factory=list)
    heartbeat: Heartbeat | None = None

    @property
    def records(self) -> int:
        """How many changes it carries."""
        return sum(len(message.changes) for message in self.messages)


def pack(waiting: deque[Item], limits: PackingLimits) -> PackedRequest:
    """Take the first items of `waiting` that fit into one request, in order; at least one."""
    packed = PackedRequest()
    total = 0
    message: PackedMessage | None = None
    while waiting:
        item = waiting[0]
        if isinstance(item, TransactionEnd):
            packed.position = item.position
        elif isinstance(item, Gap):
            packed.gaps.append(item.reason)
        elif isinstance(item, Heartbeat):
            packed.heartbeat = item
            waiting.popleft()
            return packed
        else:
            needs_message = message is None or not message.takes(item, limits)
            cost = len(item.body) + (limits.attributes_bytes + 2 if needs_message else 1)
            if packed.messages and total + cost > limits.max_request_bytes:
                return packed
            if message is None or needs_message:
                if len(packed.messages) == MAX_MESSAGES:
                    return packed
                message = PackedMessage()
                packed.messages.append(message)
            message.add(item)
            total += cost
        waiting.popleft()
    return packed
