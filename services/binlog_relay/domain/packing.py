"""Packs waiting changes into as few messages as the limits allow."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from services.binlog_relay.domain.positions import BinlogPosition

MAX_MESSAGES = 10


class RowChange(NamedTuple):
    """One record ready to be sent; its times are microseconds since 1970.

    The record of a bulk transaction holds several changed rows.
    """

    body: bytes
    captured_at_us: int
    committed_at_us: int
    rows: int = 1

    @property
    def size_bytes(self) -> int:
        """The size of the record."""
        return len(self.body)


class BulkRows(NamedTuple):
    """A row event of a bulk transaction, which `write` decodes when it is about to be sent."""

    size_bytes: int
    committed_at_us: int
    write: Callable[[], RowChange]


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


Item: TypeAlias = RowChange | BulkRows | TransactionEnd | Gap | Heartbeat


@dataclass(frozen=True, slots=True)
class PackingLimits:
    """Sizes in bytes; `attributes_bytes` is the size of each message without its body.

    `max_records_per_message` counts changed rows, but for a record that alone has more.
    """

    max_records_per_message: int
    max_message_bytes: int
    max_request_bytes: int = 1_000_000
    attributes_bytes: int = 400


@dataclass(slots=True)
class PackedMessage:
    """The records of one SQS message, sent as a JSON object when there is one, else as an array.

    `is_bulk` is true for rows of a bulk transaction. `unsent_since_us` is set while changes that
    were committed then, and read before these, are still to be sent.
    """

    changes: list[RowChange] = field(default_factory=list)
    size_bytes: int = 2
    rows: int = 0
    is_bulk: bool = False
    unsent_since_us: int | None = None

    def add(self, change: RowChange) -> None:
        """Append a record."""
        self.size_bytes += len(change.body) + (1 if self.changes else 0)
        self.rows += change.rows
        self.changes.append(change)

    def takes(self, change: RowChange, limits: PackingLimits) -> bool:
        """Return whether the record still fits; an empty message takes every record."""
        if not self.changes:
            return True
        return (
            self.rows + change.rows <= limits.max_records_per_message
            and self.size_bytes + 1 + len(change.body) <= limits.max_message_bytes
        )

    def halves(self) -> "list[PackedMessage]":
        """Return two messages with its records, in order; none for a single record."""
        middle = len(self.changes) // 2
        if not middle:
            return []
        halves = []
        for part in (self.changes[:middle], self.changes[middle:]):
            half = PackedMessage(is_bulk=self.is_bulk, unsent_since_us=self.unsent_since_us)
            for change in part:
                half.add(change)
            halves.append(half)
        return halves

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


def pack(waiting: deque[RowChange], limits: PackingLimits) -> list[PackedMessage]:
    """Take the first records of `waiting` that fit into one request, in order; at least one."""
    messages: list[PackedMessage] = []
    total = 0
    while waiting:
        change = waiting[0]
        needs_message = not messages or not messages[-1].takes(change, limits)
        total += len(change.body) + (limits.attributes_bytes + 2 if needs_message else 1)
        if messages and total > limits.max_request_bytes:
            break
        if needs_message:
            if len(messages) == MAX_MESSAGES:
                break
            messages.append(PackedMessage())
        messages[-1].add(waiting.popleft())
    return messages
