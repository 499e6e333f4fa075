"""What the reconciler counts."""

from prometheus_client import Counter, Gauge

USERS = Counter(
    "dialler_reconciler_users", "People looked at, by result: checked, moved, failed.", ("result",)
)
RUNS = Counter("dialler_reconciler_runs", "Runs ended, by state.", ("state",))
LEADING = Gauge("dialler_reconciler_leading", "1 for the copy that works.")
RETRIES = Counter("dialler_reconciler_retries", "Calls tried again after a failure.")
