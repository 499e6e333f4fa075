"""A message as it lies in the queue, and when the change in it passed each stage."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.cdc_ingest.domain.people import Demand
from services.cdc_ingest.domain.records import ChangeFile, Record, RowChange
from services.cdc_ingest.domain.staleness import Sightings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of one SQS message. `receipt` is good for this delivery only."""

    message_id: str
    receipt: str
    body: str
    receive_count: int
    received_at: datetime
    first_received_at: datetime | None = None
    committed_at: datetime | None = None
    captured_at: datetime | None = None
    traceparent: str | None = None
    group_id: str | None = None
    text_attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Roughly what it occupies; exact for ASCII."""
        return len(self.body)


@dataclass(frozen=True, slots=True)
class ChangeTimes:
    """When a change passed each stage before the refresh; None where nobody told."""

    received_at: datetime
    committed_at: datetime | None = None
    captured_at: datetime | None = None

    @property
    def age_key(self) -> datetime:
        """What the age of a change is judged by."""
        return self.captured_at or self.received_at


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that has been read: whom it concerns, since when, what a reading of them must show.

    `files` are those it points at; what is in them is yet to be read.
    """

    message: Message
    demand: Demand
    times: ChangeTimes
    files: tuple[ChangeFile, ...] = ()
    sightings: Sightings = field(default_factory=dict)

    @property
    def captured_from(self) -> datetime | None:
        """No change in it was captured before this moment; None when nothing tells."""
        written = (file.written_at for file in self.files if file.written_at is not None)
        return self.times.captured_at or self.times.committed_at or min(written, default=None)

    @property
    def committed_from(self) -> datetime | None:
        """No change in it was committed before this moment; None when nothing tells."""
        return self.times.committed_at or self.captured_from


def times_of(message: Message, records: Iterable[Record]) -> ChangeTimes:
    """Return the times the message's attributes tell, else those of its oldest record."""
    committed_at, captured_at = message.committed_at, message.captured_at
    records = list(records)
    changes = [record for record in records if isinstance(record, RowChange)]
    if committed_at is None:
        committed_at = min((c.committed_at for c in changes if c.committed_at), default=None)
    if captured_at is None:
        captured_at = min((r.captured_at for r in records if r.captured_at), default=None)
    return ChangeTimes(message.received_at, committed_at, captured_at)


def oldest(times: Iterable[ChangeTimes]) -> ChangeTimes:
    """Return the times of the oldest change; there must be one."""
    return min(times, key=lambda each: each.age_key)


def moment(text: str | None, units_per_second: int) -> datetime | None:
    """Return the time that many units after 1970; None for what is no such number."""
    try:
        return _EPOCH + timedelta(microseconds=int(text or "") * (1_000_000 // units_per_second))
    except (ValueError, OverflowError):
        return None
