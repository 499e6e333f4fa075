"""The reconciler's metrics."""

from prometheus_client import Counter, Gauge

from services.reconciler.domain.drift import Difference, DriftKind
from services.reconciler.domain.fingerprints import ComparedTable

USERS = Counter(
    "dialler_reconciler_users", "Users, by result: refreshed, moved, failed.", ("result",)
)
DRIFT = Counter(
    "dialler_reconciler_drift",
    "Users found drifted, by kind and, where rows are outdated, by table. Should stay 0.",
    ("kind", "table"),
)
RUNS = Counter("dialler_reconciler_runs", "Runs ended, by kind and state.", ("kind", "state"))
LAST_SUCCESS = Gauge(
    "dialler_reconciler_last_success_timestamp_seconds",
    "When the latest successful run of a kind began, seconds since 1970.",
    ("kind",),
)
BATCH_FRESHNESS = Gauge(
    "dialler_reconciler_batch_freshness",
    "1 while full runs replace change capture; from the leading replica.",
)
WITHHELD = Gauge(
    "dialler_reconciler_people_withheld",
    "Users gone from the main app whom the latest run of a kind left as they are, because they are"
    " implausibly many. Should stay 0.",
    ("kind",),
)
MYSQL_SECONDS = Counter(
    "dialler_reconciler_mysql_seconds", "Seconds that MySQL worked on comparisons."
)
LEADING = Gauge("dialler_reconciler_leading", "1 for the replica that holds the lock.")
RETRIES = Counter("dialler_reconciler_retries", "Calls tried again after a failure.")


def drifted(difference: Difference) -> Counter:
    """Return the counter of users with this difference."""
    return DRIFT.labels(difference.kind.value.lower(), difference.table)


# Every series exists from the start: a rise from nothing to 1 would not raise the alert.
for _kind in DriftKind:
    for _table in ComparedTable if _kind is DriftKind.OUTDATED else ("",):
        drifted(Difference(_kind, str(_table)))
