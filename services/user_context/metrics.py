"""What the cache and the readings tell an operator."""

from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram


class Result(StrEnum):
    """How one person's context was answered."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    ERROR = "error"


_READS = Counter(
    "dialler_user_context_cache_reads",
    "Contexts by how they were answered: hit, miss (read from the databases), stale, or error "
    "(the cache could not be asked).",
    ("result",),
)
_READS_BY_RESULT = {result: _READS.labels(result.value) for result in Result}
_FENCED = Counter(
    "dialler_user_context_fills_fenced", "Fills turned away, newer ones being due or there.", ()
)
_BATCH = Histogram(
    "dialler_user_context_mysql_batch_people",
    "People in one reading of the main app.",
    ("reading",),
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
_REFRESH = Histogram(
    "dialler_user_context_refresh_seconds",
    "Time of a refresh, from drawing the version to the cached context.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
_WALK_STATEMENTS = Counter(
    "dialler_user_context_walk_statements", "Statements of walks over whole tables, chunk by chunk."
)
_WALK_SECONDS = Counter(
    "dialler_user_context_walk_mysql_seconds", "How long MySQL took for the statements of walks."
)
REPLICA_LAG = Gauge(
    "dialler_user_context_replica_lag_seconds",
    "How far behind the replica that is read was when last asked, where it tells.",
)
_UNRAISED = Counter(
    "dialler_user_context_fences_unraised",
    "Invalidations that had to be kept until the cache could be reached.",
)


@dataclass(slots=True)
class CacheStats:
    """Counts since the process started, here and in the process's metrics."""

    reads: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(Result, 0))
    fenced_fills: int = 0

    def count(self, result: Result, number: int = 1) -> None:
        """Count contexts answered, or for ERROR times the cache could not be asked."""
        self.reads[result] += number
        _READS_BY_RESULT[result].inc(number)

    def count_fenced(self, number: int) -> None:
        """Count fills the fence turned away."""
        self.fenced_fills += number
        _FENCED.inc(number)


def observe_batch(reading: str, people: int) -> None:
    """Record how many people one reading was for; ``reading`` is facts, contexts or refresh."""
    _BATCH.labels(reading).observe(people)


def observe_refresh(seconds: float) -> None:
    """Record how long a refresh took."""
    _REFRESH.observe(seconds)


def count_unraised(number: int) -> None:
    """Count invalidations kept for later."""
    _UNRAISED.inc(number)


def count_walked(statements: int, mysql_seconds: float) -> None:
    """Count what a chunk of a whole table cost MySQL."""
    _WALK_STATEMENTS.inc(statements)
    _WALK_SECONDS.inc(mysql_seconds)
