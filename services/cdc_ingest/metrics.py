"""The counts of the ingest, for Prometheus and for GetStatus."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

from servicekit.clock import Clock
from services.cdc_ingest.domain.formats.records import Kind
from services.cdc_ingest.domain.messages import Arrival, ChangeTimes, ClockSkew
from services.cdc_ingest.domain.people import Demand
from services.cdc_ingest.domain.staleness import ReadingVerdict
from services.cdc_ingest.domain.watermark import Watermark

_MESSAGES = Counter(
    "dialler_cdc_ingest_messages",
    "SQS messages by what became of them: received, done, retried, dead, undeleted.",
    ("result",),
)
_RECORDS = Counter(
    "dialler_cdc_ingest_records",
    "What was found in messages, by format and kind: row, foreign (of a table not followed), "
    "ownerless (whose owner is 0 or less), lost_track, unreadable, envelope (what others came in), "
    "and kinds that concern no person.",
    ("format", "kind"),
)
# An alert uses the increase of these series: each must exist before its first count.
for _form in ("dms", "debezium", "maxwell", "dms_csv", "dms_parquet"):
    for _kind in (Kind.ROW, Kind.FOREIGN, Kind.OWNERLESS):
        _RECORDS.labels(_form, _kind.value)
# Looking up a child by its label costs more than the count.
_RECEIVED, _DONE = _MESSAGES.labels("received"), _MESSAGES.labels("done")
_USERS = Counter("dialler_cdc_ingest_users_refreshed", "People refreshed and applied.")
_BATCH = Histogram(
    "dialler_cdc_ingest_batch_keys",
    "People and rows in one batch, by lane.",
    ("lane",),
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
_LEG = Histogram(
    "dialler_cdc_ingest_change_latency_seconds",
    "Latency of a change by leg: capture (from the commit), transport, refresh, apply; total is "
    "from capture to applied.",
    ("leg",),
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
_CAPTURE, _TRANSPORT, _REFRESH, _APPLY, _TOTAL = (
    _LEG.labels(leg) for leg in ("capture", "transport", "refresh", "apply", "total")
)
_READINGS = Counter(
    "dialler_cdc_ingest_readings",
    "Readings judged against their message: shown, untold (facts do not show what changed), "
    "doubtful (neither the change nor what was before), stale (what was before).",
    ("verdict",),
)
_VERDICTS = {verdict: _READINGS.labels(verdict.name.lower()) for verdict in ReadingVerdict}
_HELD = Gauge("dialler_cdc_ingest_messages_in_flight", "Messages held, reserved places included.")
_WAITING = Gauge(
    "dialler_cdc_ingest_waiting", "People and rows waiting to be refreshed, by lane.", ("lane",)
)
_UNAVAILABLE = Gauge(
    "dialler_cdc_ingest_downstream_away", "1 while user_context or queue cannot be used."
)
_ALARM = Gauge(
    "dialler_cdc_ingest_dead_letter_alarm",
    "1 after too many dead letters within a minute: nothing is received until an operator says so.",
)
_FULL_RUNS = Counter(
    "dialler_cdc_ingest_full_runs_wanted", "Times changes could not be followed one by one."
)
_ALIVE = Gauge(
    "dialler_cdc_ingest_capture_alive_timestamp_seconds",
    "Capture time of the newest message received, heartbeats included; 0 before the first.",
)
_APPLIED = Gauge(
    "dialler_cdc_ingest_applied_through_timestamp_seconds",
    "All that was committed before this moment and received has been applied; 0 when not known.",
)
_AHEAD = Gauge(
    "dialler_cdc_ingest_capture_ahead_seconds",
    "By how much the worst message of the last ten minutes was captured after its receipt.",
)
_BACKLOG = Gauge(
    "dialler_cdc_ingest_backlog_messages",
    "Messages waiting in the change queue, by SQS's estimate.",
)
_DEAD_LETTERS = Gauge(
    "dialler_cdc_ingest_dead_letter_messages", "Messages in the dead-letter queue."
)
_RECEIVE_ERRORS = Counter("dialler_cdc_ingest_receive_errors", "Polls that SQS did not answer.")


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Over `count` measurements; zeros when there are none."""

    count: int
    p50_seconds: float
    p99_seconds: float


class LatestLatencies:
    """The latest `size` measurements."""

    def __init__(self, size: int = 1000) -> None:
        self._seconds: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Add a measurement; a negative one, of clocks that disagree, counts as 0."""
        self._seconds.append(max(0.0, seconds))

    def summary(self) -> LatencySummary:
        """Return the nearest-rank percentiles."""
        ranked = sorted(self._seconds)
        if not ranked:
            return LatencySummary(0, 0.0, 0.0)
        p50, p99 = (ranked[max(0, math.ceil(share * len(ranked)) - 1)] for share in (0.5, 0.99))
        return LatencySummary(len(ranked), p50, p99)


class PipelineMetrics:
    """Counts since the process started. Used from the event loop only."""

    def __init__(self) -> None:
        self.received = 0
        self.done = 0
        self.retried = 0
        self.dead = 0
        self.records = 0
        self.records_ignored = 0
        self.users_refreshed = 0
        self.readings_stale = 0
        self.last_captured_at: datetime | None = None
        self.skew = ClockSkew()
        self.latencies = LatestLatencies()
        self._kinds: dict[tuple[str, Kind], Counter] = {}

    def arrived(self, arrivals: Sequence[Arrival]) -> None:
        """Count messages received and the records in them."""
        total = Demand()
        for arrival in arrivals:
            self.skew.note(arrival.times.ahead, arrival.times.received_at)
            for which, count in arrival.demand.counts.items():
                total.counts[which] += count
        self.received += len(arrivals)
        self.records += total.records
        self.records_ignored += total.ignored
        _RECEIVED.inc(len(arrivals))
        for which, count in total.counts.items():
            counter = self._kinds.get(which)
            if counter is None:
                counter = self._kinds[which] = _RECORDS.labels(which[0], which[1].value)
            counter.inc(count)

    def deleted(self, messages: int) -> None:
        """Count messages that were deleted after their work."""
        self.done += messages
        _DONE.inc(messages)

    def not_deleted(self) -> None:
        """Count a message whose work is done and which could not be deleted."""
        _MESSAGES.labels("undeleted").inc()

    def put_back(self) -> None:
        """Count a message put back for a later try."""
        self.retried += 1
        _MESSAGES.labels("retried").inc()

    def dead_lettered(self) -> None:
        """Count a message sent to the dead-letter queue."""
        self.dead += 1
        _MESSAGES.labels("dead").inc()

    def batch_started(self, lane: str, keys: int) -> None:
        """Count a batch."""
        _BATCH.labels(lane).observe(keys)

    def applied(self, times: ChangeTimes, refreshed_at: datetime, applied_at: datetime) -> None:
        """Count one person refreshed and applied on behalf of a change."""
        self.users_refreshed += 1
        _USERS.inc()
        _REFRESH.observe(_seconds(times.received_at, refreshed_at))
        _APPLY.observe(_seconds(refreshed_at, applied_at))
        captured_at = times.captured_at
        if captured_at is None:
            return
        if times.committed_at is not None:
            _CAPTURE.observe(_seconds(times.committed_at, captured_at))
        _TRANSPORT.observe(_seconds(captured_at, times.received_at))
        _TOTAL.observe(_seconds(captured_at, applied_at))
        self.latencies.add(_seconds(captured_at, applied_at))
        self.last_captured_at = max(captured_at, self.last_captured_at or captured_at)

    def judged(self, verdicts: Mapping[ReadingVerdict, int]) -> None:
        """Count the verdicts on readings."""
        for verdict, count in verdicts.items():
            _VERDICTS[verdict].inc(count)
        self.readings_stale += verdicts.get(ReadingVerdict.STALE, 0)

    def full_run_wanted(self) -> None:
        """Count a loss of track."""
        _FULL_RUNS.inc()

    def downstream(self, *, is_unavailable: bool) -> None:
        """Show whether user_context or queue is unavailable."""
        _UNAVAILABLE.set(is_unavailable)

    def dead_letter_alarm(self, *, is_on: bool) -> None:
        """Show whether the dead-letter alarm is on."""
        _ALARM.set(is_on)


def waiting(lane: str, keys: int) -> None:
    """Show how many people and rows wait in a lane."""
    _WAITING.labels(lane).set(keys)


def depths(backlog: int, dead_letters: int) -> None:
    """Show how many messages wait in both queues."""
    _BACKLOG.set(backlog)
    _DEAD_LETTERS.set(dead_letters)


def receive_failed() -> None:
    """Count a poll that failed; may be called from any thread."""
    _RECEIVE_ERRORS.inc()


def held(messages: int) -> None:
    """Show how many messages are in flight; may be called from any thread."""
    _HELD.set(messages)


def show_watermark(watermark: Watermark) -> None:
    """Show the watermark, computed at each scrape."""
    _ALIVE.set_function(lambda: _timestamp(watermark.alive_at))
    _APPLIED.set_function(lambda: _timestamp(watermark.applied_through))


def show_skew(skew: ClockSkew, clock: Clock) -> None:
    """Show how far capture clocks run ahead, computed at each scrape."""
    _AHEAD.set_function(lambda: skew.ahead(clock.now()).total_seconds())


def _timestamp(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())
