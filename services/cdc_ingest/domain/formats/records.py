"""The records that decoders produce, the same for every format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from services.cdc_ingest.domain.gtids import Gtid
from services.cdc_ingest.domain.ordering import LogPosition

Image: TypeAlias = Mapping[str, object]
"""Columns of one row as in the JSON; an absent column may be NULL."""


class Operation(StrEnum):
    """What was done to a row."""

    LOAD = "load"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    OTHER = "other"


class Kind(StrEnum):
    """The kind of a record, as in the metrics.

    `FOREIGN`: of a table that is not in the description. `OWNERLESS`: of a row whose owner is 0 or
    less. `FILE`: a file without changes. `ENVELOPE`: a document that encloses other records.
    """

    ROW = "row"
    FOREIGN = "foreign"
    OWNERLESS = "ownerless"
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


class ChangeRecord(NamedTuple):
    """One changed row. `images` holds all row images of the record, the oldest first.

    `transaction` identifies the transaction; "" when unknown. `position` and `sequence` order the
    changes, as far as the format has them; `gtid` is that of the transaction. `wraps_unsigned` is
    true when the format writes numbers beyond 2^63 - 1 as negative ones.
    """

    table: str
    operation: Operation
    images: tuple[Image, ...]
    committed_at: datetime | None = None
    captured_at: datetime | None = None
    transaction: str = ""
    format: str = ""
    wraps_unsigned: bool = False
    position: LogPosition | None = None
    sequence: tuple[int, ...] = ()
    gtid: Gtid | None = None


@dataclass(frozen=True, slots=True)
class LostTrack:
    """Rows changed without a record: only a full run of the reconciler finds them.

    `table` is empty when any table may have changed.
    """

    table: str
    cause: str
    format: str = ""
    captured_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record that concerns no person, such as a table definition."""

    kind: Kind
    format: str = ""
    captured_at: datetime | None = field(default=None, compare=False)


Record: TypeAlias = ChangeRecord | LostTrack | Ignored


@dataclass(frozen=True, slots=True)
class ChangeFile:
    """A file in an object store with changes of one table, which is not read yet.

    `size_bytes` is the size in the notification; None when it has none.
    """

    bucket: str
    key: str
    table: str
    size_bytes: int | None = None
    version_id: str | None = None
    written_at: datetime | None = None
    format: str = ""


class UnreadableError(Exception):
    """A message, or a record in it, that no decoder can read; `reason` is UPPER_SNAKE.

    `lost_track` is set where described rows may have changed and a redrive would not help.
    """

    def __init__(self, reason: str, lost_track: LostTrack | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lost_track = lost_track
