"""The queue's tables. Numbers of states and the like are those of `domain.terms`.

A person's id is a bigint: the main app's ids are unsigned, but one above 2^63 - 1 is refused at
the edge, since a numeric key costs every claim more than such an id will ever be worth.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP

from services.queue.domain.terms import State

SCHEMA = "queue"

metadata = sa.MetaData(schema=SCHEMA)

Moment = TIMESTAMP(timezone=True)

# Orders the states of each person. Not cached by sessions: of two values for one person, drawn
# under that person's row lock, the later must be the higher.
state_version = sa.Sequence("state_version", metadata=metadata)

# One narrow row for each person. Every column that a claim changes is here or in `assignments`, so
# pages keep room for the next version of a row and dead ones are cleared early.
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("facts_version", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.BigInteger, nullable=False),
    sa.Column("phone_e164", sa.Text),
    sa.Column("eligible_queue", sa.SmallInteger),
    sa.Column("eligible_reason", sa.Text, nullable=False),
    sa.Column("owes", sa.SmallInteger),
    sa.Column("stay", sa.Integer, nullable=False),
    sa.Column("queue", sa.SmallInteger),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("rank_key", sa.Double, nullable=False),
    sa.Column("entered_at", Moment),
    sa.Column("ready_since", Moment),
    sa.Column("due_at", Moment),
    sa.Column("block", sa.SmallInteger),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("attempts_in_stay", sa.Integer, nullable=False),
    sa.Column("last_outcome", sa.SmallInteger),
    sa.Column("last_contact_at", Moment),
    sa.Column("last_agent_id", sa.Text),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("agent_id", sa.Text),
    sa.Column("assignment_id", sa.Uuid),
    sa.Column("reserved_by", sa.Uuid),
    sa.Column("reserved_until", Moment),
    sa.Column("state_version", sa.BigInteger, nullable=False),
    postgresql_with={
        "fillfactor": 70,
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_cost_delay": 0,
    },
)

sa.Index(
    "entries_ready",
    entries.c.queue,
    entries.c.rank_key,
    entries.c.user_id.desc(),
    postgresql_where=entries.c.state == sa.text(str(int(State.READY))),
)
sa.Index(
    "entries_waiting",
    entries.c.due_at,
    entries.c.user_id.desc(),
    postgresql_where=entries.c.state == sa.text(str(int(State.WAITING))),
)
sa.Index(
    "entries_reserved",
    entries.c.reserved_until,
    postgresql_where=entries.c.state == sa.text(str(int(State.RESERVED))),
)
sa.Index(
    "entries_assigned",
    entries.c.queue,
    entries.c.user_id.desc(),
    postgresql_where=entries.c.state == sa.text(str(int(State.ASSIGNED))),
)
sa.Index(
    "entries_withheld",
    entries.c.owes,
    entries.c.user_id.desc(),
    postgresql_where=sa.and_(
        entries.c.owes.is_not(None),
        entries.c.state >= sa.text(str(int(State.SUPPRESSED))),
        entries.c.state <= sa.text(str(int(State.OUT))),
    ),
)

assignments = sa.Table(
    "assignments",
    metadata,
    sa.Column("assignment_id", sa.Uuid, primary_key=True),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("queue", sa.SmallInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("lease_expires_at", Moment, nullable=False),
    sa.Column("ended_at", Moment),
    sa.Column("ending", sa.SmallInteger),
    sa.CheckConstraint("(ended_at IS NULL) = (ending IS NULL)", name="assignments_ended_somehow"),
    postgresql_with={"fillfactor": 80, "autovacuum_vacuum_scale_factor": 0.05},
)

# Invariant 2: the database itself holds one live assignment for each person and each agent.
sa.Index(
    "assignments_live_user",
    assignments.c.user_id,
    unique=True,
    postgresql_where=assignments.c.ended_at.is_(None),
)
sa.Index(
    "assignments_live_agent",
    assignments.c.agent_id,
    unique=True,
    postgresql_where=assignments.c.ended_at.is_(None),
)

# One call that ended with an outcome. Never changed.
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("assignment_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("queue", sa.SmallInteger, nullable=False),
    sa.Column("outcome", sa.SmallInteger, nullable=False),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("callback_at", Moment),
    sa.Column("ended_at", Moment, nullable=False),
    sa.Index("attempts_user", "user_id", sa.text("ended_at DESC")),
    sa.Index("attempts_ended", "ended_at"),
)

# One matter that came to its end. The key makes recording it twice impossible.
conversions = sa.Table(
    "conversions",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("stay", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("queue", sa.SmallInteger, nullable=False),
    sa.Column("conversion", sa.SmallInteger, nullable=False),
    sa.Column("agent_id", sa.Text),
    sa.Column("recorded_at", Moment, nullable=False),
    sa.Index("conversions_recorded", "recorded_at"),
)

# Answers to repeat to those who ask again.
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("agent_id", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Uuid, primary_key=True),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("payload_hash", sa.LargeBinary, nullable=False),
    sa.Column("response", sa.LargeBinary),
    sa.Column("made_at", Moment, nullable=False),
    sa.Index("requests_made", "made_at"),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.05},
)

# People whom the live check kept from being phoned for nothing.
prevented_calls = sa.Table(
    "prevented_calls",
    metadata,
    sa.Column("prevented_call_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("queue", sa.SmallInteger, nullable=False),
    sa.Column("prevented_at", Moment, nullable=False),
    sa.Index("prevented_calls_at", "prevented_at"),
)

# Both outboxes are filled within the transaction that changes a person and emptied by whoever
# delivers: insert and delete only, so a few dead pages are all that ever remains.
_OUTBOX_STORAGE = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_vacuum_cost_delay": 0,
}

# Serialised events for the stream.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("outbox_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("event", sa.LargeBinary, nullable=False),
    postgresql_with=_OUTBOX_STORAGE,
)

# People whose call state has reached a version that `user_context` must be told of.
stale_call_states = sa.Table(
    "stale_call_states",
    metadata,
    sa.Column("stale_call_state_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("state_version", sa.BigInteger, nullable=False),
    postgresql_with=_OUTBOX_STORAGE,
)
