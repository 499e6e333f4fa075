"""The relay's metrics: whether it reads, how far it is behind, and what failed."""

from prometheus_client import Counter, Gauge, Histogram

IS_ACTIVE = Gauge(
    "dialler_relay_active", "1 for the replica that reads the binlog, 0 for a standby."
)
RECORDS = Counter("dialler_relay_records", "Row and control records published.")
MESSAGES = Counter("dialler_relay_messages", "SQS messages published.")
HEARTBEATS = Counter(
    "dialler_relay_heartbeats",
    "Heartbeats published: the binlog is read, and everything read before is in SQS.",
)
SEND_FAILURES = Counter(
    "dialler_relay_send_failures", "Failed requests and batch entries, by code.", ("code",)
)
PUBLISH_SECONDS = Histogram(
    "dialler_relay_publish_seconds",
    "From the first row event of a message being read to SQS having it.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
COMMIT_LAG_SECONDS = Gauge(
    "dialler_relay_commit_lag_seconds",
    "Age of the newest published change when SQS had it; whole seconds on MariaDB.",
)
GAPS = Counter(
    "dialler_relay_gaps",
    "Times that changes could not be followed row by row, by reason.",
    ("reason",),
)
STREAM_ENDS = Counter(
    "dialler_relay_stream_ends",
    "Times that reading the binlog ended and began again, by cause.",
    ("cause",),
)
REPAIR_IS_WANTED = Gauge(
    "dialler_relay_repair_wanted", "1 while the reconciler has not yet accepted a full run."
)
SOURCE_IS_UNFIT = Gauge(
    "dialler_relay_source_unfit",
    "1 while the source's settings lose changes, or no change can come into its binlog.",
)
