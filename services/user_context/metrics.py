"""Metrics of the cache and of readings."""

from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram


class Result(StrEnum):
    """The result of a request for one person's context."""

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
    "dialler_user_context_fills_fenced", "Fills refused because a newer one is due or stored.", ()
)
MYSQL_BATCH_PEOPLE = Histogram(
    "dialler_user_context_mysql_batch_people",
    "People in one reading of the main app.",
    ("reading",),
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
REFRESH_SECONDS = Histogram(
    "dialler_user_context_refresh_seconds",
    "Time of a refresh, from drawing the version to the cached context.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
CHUNK_STATEMENTS = Counter(
    "dialler_user_context_walk_statements", "Statements that read whole tables, chunk by chunk."
)
CHUNK_SECONDS = Counter(
    "dialler_user_context_walk_mysql_seconds",
    "How long MySQL took for the statements that read whole tables in chunks.",
)
REPLICA_LAG = Gauge(
    "dialler_user_context_replica_lag_seconds",
    "How far the replica that is read was behind when last asked, where it says so.",
)
REPLICA_STOPPED = Gauge(
    "dialler_user_context_replica_stopped",
    "1 while the replica that is read does not follow its source, where it says so.",
)
_TRUSTED = Gauge(
    "dialler_user_context_cache_trusted",
    "1 while contexts are served from the cache; 0 while Redis is unavailable, refuses writes or "
    "has missed invalidations: each context is then read from the databases.",
)
FENCES_UNRAISED = Counter(
    "dialler_user_context_fences_unraised",
    "Invalidations that had to be kept until the cache could be reached.",
)


@dataclass(slots=True)
class CacheStats:
    """Counts since the process started, here and in the process's metrics."""

    reads: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(Result, 0))
    fenced_fills: int = 0
    distrust_reason: str = ""

    def __post_init__(self) -> None:
        """Show the cache as trusted, which it is until a failure."""
        _TRUSTED.set(1)

    def distrust(self, reason: str) -> None:
        """Store why no cached copy counts as fresh now, such as READONLY; empty when they do."""
        self.distrust_reason = reason
        _TRUSTED.set(not reason)

    def count(self, result: Result, number: int = 1) -> None:
        """Count answered contexts; for ERROR, failed requests to the cache."""
        self.reads[result] += number
        _READS_BY_RESULT[result].inc(number)

    def count_fenced(self, number: int) -> None:
        """Count fills that the fence refused."""
        self.fenced_fills += number
        _FENCED.inc(number)
