"""The queue's metrics."""

from prometheus_client import Counter, Gauge, Histogram

from servicekit import metrics
from servicekit.slo import FAULTS, Slo

CLAIMS = Counter("dialler_queue_claims", "Requests for the next user, by result.", ("result",))
Slo(
    "dialler_queue_claims_answered",
    metrics.SERVED,
    0.5,
    concerns=lambda labels: labels["method"].endswith("/ClaimNext"),
    fails=lambda labels: labels["code"] in FAULTS,
)
CLAIM_BATCH = Histogram(
    "dialler_queue_claim_batch_size",
    "Agents that were served in one batch.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
PREVENTED_CALLS = Counter(
    "dialler_queue_wrong_calls_prevented", "Users whom the live check turned down before a call."
)
WRONG_CALLS = Counter(
    "dialler_queue_wrong_calls",
    "Hand-outs of users whom the live check of the same request did not find fit. Must stay 0.",
)
QUARANTINED = Counter(
    "dialler_queue_set_aside",
    "Users quarantined for a while, since they could not be handed out, by reason.",
    ("why",),
)
FACTS = Counter("dialler_queue_facts", "Facts by result.", ("result",))
CONVERSIONS = Counter("dialler_queue_conversions", "Conversions by kind.", ("conversion",))
UNREPORTED_CALLS = Counter(
    "dialler_queue_unreported_calls", "Calls whose assignment ended without a report."
)
OUTCOMES = Counter("dialler_queue_outcomes", "Calls by outcome.", ("outcome",))
ENDINGS = Counter("dialler_queue_assignments_ended", "Assignments by how they ended.", ("ending",))
OUTBOX_LENGTH = Gauge("dialler_queue_outbox_length", "Rows that wait to be delivered.", ("outbox",))
RULES = Counter("dialler_queue_rules", "Rules files read, by result.", ("result",))
PEOPLE = Gauge(
    "dialler_queue_people",
    "Users by queue and state; `why` is the hold of waiting users, else the reason.",
    ("queue", "state", "why"),
)
OLDEST_SNAPSHOT_SECONDS = Gauge(
    "dialler_queue_oldest_snapshot_seconds",
    "Age of the oldest visible transaction that keeps PostgreSQL from vacuuming.",
)
AGE_BOUNDARIES = Counter(
    "dialler_queue_age_boundaries",
    "Users who reached an age at which their points change, by result.",
    ("result",),
)
MISSING_ZONES = Counter(
    "dialler_queue_missing_time_zones",
    "Uses of the usual zone in place of one that the time zone database lacks.",
    ("time_zone",),
)
CALLBACKS = Counter("dialler_queue_callbacks", "Callbacks by state or change.", ("state",))
LONGEST_WAITING = Counter(
    "dialler_queue_longest_waiting_handed_out",
    "Users handed out because no other of the queue had been ready for longer.",
    ("queue",),
)
PAUSED = Gauge(
    "dialler_queue_paused", "Whether hand-outs of the queue are paused: 1, else 0.", ("queue",)
)
PHONE_LISTS_OLD = Gauge(
    "dialler_queue_phone_lists_old",
    "Lists of phone numbers in force that are older than the rules have it.",
)
CALLBACKS_OVERDUE = Gauge(
    "dialler_queue_callbacks_overdue",
    "Open callbacks due for over half an hour of people who may be phoned now.",
)
