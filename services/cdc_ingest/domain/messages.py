"""An SQS message, what was read from it, and when its change passed each stage."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.cdc_ingest.domain.formats.records import ChangeFile, ChangeRecord, Record
from services.cdc_ingest.domain.people import Demand
from services.cdc_ingest.domain.staleness import Observations

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SMALL_BYTES = 16 * 1024
_RELAY = "binlog_relay"
_SENT_WITHIN = timedelta(milliseconds=1)
_SKEW_REMEMBERED = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of one SQS message. `receipt` is valid for this delivery only.

    `unsent_since` is set when the capture had changes that were committed then still to send.
    """

    message_id: str
    receipt: str
    body: str
    receive_count: int
    received_at: datetime
    first_received_at: datetime | None = None
    sent_at: datetime | None = None
    committed_at: datetime | None = None
    captured_at: datetime | None = None
    traceparent: str | None = None
    group_id: str | None = None
    unsent_since: datetime | None = None
    text_attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def came_at(self) -> datetime:
        """When the message was sent, as far as is known: its changes are not later.

        It is the same for every delivery. SQS has milliseconds.
        """
        known = (self.first_received_at, self.sent_at and self.sent_at + _SENT_WITHIN)
        return min((self.received_at, *(moment for moment in known if moment is not None)))

    @property
    def is_bulk(self) -> bool:
        """Whether it holds bulk changes, so that small ones need not wait until it is read.

        binlog_relay says so; of other captures the size tells.
        """
        if self.text_attributes.get("source") == _RELAY:
            return "bulk" in self.text_attributes
        return self.size_bytes > SMALL_BYTES

    @property
    def size_bytes(self) -> int:
        """The approximate size of the body; exact for ASCII."""
        return len(self.body)


@dataclass(frozen=True, slots=True)
class ChangeTimes:
    """When a change passed each stage before the refresh; None where unknown.

    A change is captured before its message is sent, at `came_at`, and before it is received. A
    later time comes from a clock that runs ahead, and is replaced by the latest possible one.
    `ahead` is by how much it was later.
    """

    received_at: datetime
    committed_at: datetime | None = None
    captured_at: datetime | None = None
    came_at: datetime | None = field(default=None, compare=False)
    ahead: timedelta = field(default=timedelta(0), init=False, compare=False)

    def __post_init__(self) -> None:
        """Replace times that are ahead by the latest possible time."""
        latest = self.latest
        for stage in ("committed_at", "captured_at"):
            moment: datetime | None = getattr(self, stage)
            if moment is not None and moment > latest:
                object.__setattr__(self, "ahead", max(self.ahead, moment - latest))
                object.__setattr__(self, stage, latest)

    @property
    def latest(self) -> datetime:
        """The latest possible time of a stage before the receipt."""
        return min(self.received_at, self.came_at or self.received_at)

    @property
    def age_key(self) -> datetime:
        """The time by which the ages of changes are compared."""
        return self.captured_at or self.received_at


@dataclass(frozen=True, slots=True)
class Arrival:
    """A decoded message: its people, its times, and what a reading of the people must show.

    `files` are the change files it points at, which are not read yet.
    """

    message: Message
    demand: Demand
    times: ChangeTimes
    files: tuple[ChangeFile, ...] = ()
    observations: Observations = field(default_factory=dict)

    @property
    def captured_from(self) -> datetime | None:
        """The earliest capture time of its changes; None when unknown."""
        latest = self.times.latest
        written = (min(file.written_at, latest) for file in self.files if file.written_at)
        return self.times.captured_at or self.times.committed_at or min(written, default=None)

    @property
    def committed_from(self) -> datetime | None:
        """The earliest commit time of its changes, and of those sent later; None when unknown."""
        committed = self.times.committed_at or self.captured_from
        unsent = self.message.unsent_since
        return committed if committed is None or unsent is None else min(committed, unsent)


def times_of(message: Message, records: Iterable[Record]) -> ChangeTimes:
    """Return the times in the message's attributes, else those of its oldest record."""
    committed_at, captured_at = message.committed_at, message.captured_at
    records = list(records)
    changes = [record for record in records if isinstance(record, ChangeRecord)]
    if committed_at is None:
        committed_at = min((c.committed_at for c in changes if c.committed_at), default=None)
    if captured_at is None:
        captured_at = min((r.captured_at for r in records if r.captured_at), default=None)
    return ChangeTimes(message.received_at, committed_at, captured_at, message.came_at)


def oldest(times: Iterable[ChangeTimes]) -> ChangeTimes:
    """Return the times of the oldest change of at least one."""
    return min(times, key=lambda each: each.age_key)


def moment(text: str | None, units_per_second: int) -> datetime | None:
    """Return the time that many units after 1970; None when `text` is not such a number."""
    try:
        return _EPOCH + timedelta(microseconds=int(text or "") * (1_000_000 // units_per_second))
    except (ValueError, OverflowError):
        return None


class ClockSkew:
    """The largest time within ten minutes by which a message was captured after its receipt."""

    def __init__(self) -> None:
        self._worst = timedelta(0)
        self._seen_at: datetime | None = None

    def note(self, ahead: timedelta, received_at: datetime) -> None:
        """Record by how much a message was captured later than it was received."""
        if ahead and (ahead >= self._worst or not self.ahead(received_at)):
            self._worst, self._seen_at = ahead, received_at

    def ahead(self, now: datetime) -> timedelta:
        """Return the largest of the last ten minutes; 0 for none."""
        is_recent = self._seen_at is not None and now - self._seen_at <= _SKEW_REMEMBERED
        return self._worst if is_recent else timedelta(0)
