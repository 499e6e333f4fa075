"""The queue's own figures for operators."""

from prometheus_client import Counter, Gauge, Histogram

from servicekit import metrics
from servicekit.promises import FAULTS, Promise

CLAIMS = Counter("dialler_queue_claims", "Claims by what they led to.", ("result",))
Promise(
    "dialler_queue_claims_answered",
    metrics.SERVED,
    0.5,
    concerns=lambda labels: labels["method"].endswith("/ClaimNext"),
    fails=lambda labels: labels["code"] in FAULTS,
)
CLAIM_BATCH = Histogram(
    "dialler_queue_claim_batch_size",
    "Claims that were served together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
PREVENTED_CALLS = Counter(
    "dialler_queue_wrong_calls_prevented", "People the live check kept from being phoned."
)
WRONG_CALLS = Counter(
    "dialler_queue_wrong_calls",
    "Hand-outs of people whom the live read of the same request had not found fit. Must stay 0.",
)
SET_ASIDE = Counter(
    "dialler_queue_set_aside", "People kept from the head because their check failed."
)
FACTS = Counter("dialler_queue_facts", "Facts by what became of them.", ("result",))
CONVERSIONS = Counter("dialler_queue_conversions", "Conversions by kind.", ("conversion",))
OUTCOMES = Counter("dialler_queue_outcomes", "Calls by outcome.", ("outcome",))
ENDINGS = Counter("dialler_queue_assignments_ended", "Assignments by how they ended.", ("ending",))
OUTBOX_LENGTH = Gauge("dialler_queue_outbox_length", "What waits to be delivered.", ("outbox",))
RULES = Counter("dialler_queue_rules", "Rules files read, by what became of them.", ("result",))
PEOPLE = Gauge(
    "dialler_queue_people",
    "People by where they stand, by what holds those who wait and what keeps others out.",
    ("queue", "state", "why"),
)
OLDEST_SNAPSHOT_SECONDS = Gauge(
    "dialler_queue_oldest_snapshot_seconds",
    "Age of the oldest transaction that keeps PostgreSQL from cleaning up, of those we may see.",
)
CALLBACKS = Counter("dialler_queue_callbacks", "Callbacks by what became of them.", ("state",))
