"""What the reconciler counts."""

from prometheus_client import Counter, Gauge

from services.reconciler.domain.drift import Difference, DriftKind
from services.reconciler.domain.fingerprints import Table

USERS = Counter(
    "dialler_reconciler_users", "People, by result: refreshed, moved, failed.", ("result",)
)
DRIFT = Counter(
    "dialler_reconciler_drift",
    "People found drifted, by kind and, where rows are outdated, by table. Should stay 0.",
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
    "1 while runs stand in for change capture; from the copy that works.",
)
MYSQL_SECONDS = Counter(
    "dialler_reconciler_mysql_seconds", "How long MySQL was at work on comparisons."
)
LEADING = Gauge("dialler_reconciler_leading", "1 for the copy that works.")
RETRIES = Counter("dialler_reconciler_retries", "Calls tried again after a failure.")


def drifted(difference: Difference) -> Counter:
    """Return the counter of people who had drifted in that way."""
    return DRIFT.labels(difference.kind.value.lower(), difference.table)


# A series whose first value is 1 has never risen: the alert would not see a process's first drift.
for _kind in DriftKind:
    for _table in Table if _kind is DriftKind.OUTDATED else ("",):
        drifted(Difference(_kind, str(_table)))
