"""What the decoders make of a message, whatever its format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

Image: TypeAlias = Mapping[str, object]
"""Columns of one row as JSON gave them; a column that is absent may well be NULL."""


class Operation(StrEnum):
    """What was done to a row."""

    LOAD = "load"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    OTHER = "other"


class Kind(StrEnum):
    """What a record turned out to be, as metrics call it.

    A `FOREIGN` one tells of a table that is not in the description, `FILE` is a file that holds no
    changes. `ENVELOPE` is what other records came in.
    """

    ROW = "row"
    FOREIGN = "foreign"
    LOST_TRACK = "lost_track"
    CONTROL = "control"
    SCHEMA = "schema"
    TRANSACTION = "transaction"
    TOMBSTONE = "tombstone"
    HEARTBEAT = "heartbeat"
    TEST = "test"
    FILE = "file"
    ENVELOPE = "envelope"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row that changed. `images` holds every image the record carries, the oldest first.

    `transaction` tells the changes of one transaction from those of others; "" when not told.
    `wraps_unsigned` says that numbers beyond 2^63 - 1 are written as negative ones.
    """

    table: str
    operation: Operation
    images: tuple[Image, ...]
    committed_at: datetime | None = None
    captured_at: datetime | None = None
    transaction: str = ""
    format: str = ""
    wraps_unsigned: bool = False


@dataclass(frozen=True, slots=True)
class LostTrack:
    """Rows changed that no record tells of: only a full run of the reconciler finds them.

    `table` is empty when any table may be concerned.
    """

    table: str
    cause: str
    format: str = ""
    captured_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record that concerns nobody, such as the announcement of a table."""

    kind: Kind
    format: str = ""
    captured_at: datetime | None = field(default=None, compare=False)


Record: TypeAlias = RowChange | LostTrack | Ignored


@dataclass(frozen=True, slots=True)
class ChangeFile:
    """A file of changes of one table, which lies in an object store and is yet to be read.

    `size_bytes` is what the notification tells; None when it does not.
    """

    bucket: str
    key: str
    table: str
    size_bytes: int | None = None
    version_id: str | None = None
    written_at: datetime | None = None
    format: str = ""


class UnreadableError(Exception):
    """A message, or one record in it, that no decoder understands; `reason` is UPPER_SNAKE."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
