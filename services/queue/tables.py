"""The queue's tables. Numbers of states and the like are those of `domain.terms`.

A person's id is a bigint: the main app's ids are unsigned, but one above 2^63 - 1 is refused at
the edge, since a numeric key costs every claim more than such an id will ever be worth.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from services.queue.domain.terms import CallbackState, State

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
    sa.Column("time_zone", sa.Text),
    sa.Column("eligible_queue", sa.SmallInteger),
    sa.Column("eligible_reason", sa.Text, nullable=False),
    sa.Column("owes", sa.SmallInteger),
    sa.Column("stay", sa.Integer, nullable=False),
    sa.Column("queue", sa.SmallInteger),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("hold", sa.SmallInteger),
    sa.Column("rank_key", sa.Double, nullable=False),
    sa.Column("due_at", Moment),
    sa.Column("ready_since", Moment),
    sa.Column("entered_at", Moment),
    sa.Column("outcome_points", sa.Double, nullable=False, server_default=sa.text("0")),
    sa.Column("attempt_points", sa.Double, nullable=False, server_default=sa.text("0")),
    sa.Column("aged_from", Moment, nullable=False, server_default=sa.func.now()),
    sa.Column("lender_points", sa.Double, nullable=False, server_default=sa.text("0")),
    sa.Column("age_points", sa.Double, nullable=False, server_default=sa.text("0")),
    sa.Column("age_points_until", Moment),
    sa.Column("claimed_at", Moment),
    sa.Column("rest_until", Moment),
    sa.Column("capped_until", Moment),
    sa.Column("cap", sa.SmallInteger),
    sa.Column("phone_free_at", Moment),
    sa.Column("phone_block", sa.SmallInteger),
    sa.Column("callback_id", sa.Uuid),
    sa.Column("callback_at", Moment),
    sa.Column("callback_agent_id", sa.Text),
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

sa.Index(
    "entries_phone",
    entries.c.phone_e164,
    postgresql_where=entries.c.phone_e164.is_not(None),
)
sa.Index(
    "entries_time_zone",
    entries.c.time_zone,
    postgresql_where=entries.c.time_zone.is_not(None),
)
sa.Index(
    "entries_age_points_until",
    entries.c.age_points_until,
    postgresql_where=entries.c.age_points_until.is_not(None),
)

# What was last applied of each person's facts, beside `entries` so that those stay narrow: the
# fingerprints of their rows in the main app, NULL when unknown, and a hash over them and what facts
# alone make of an entry, by which changes made by hand are seen. `owes` and `stay` are the entry's
# as applied, known if `stay` is; `absent_since` is since when the main app has not had the person.
applied_facts = sa.Table(
    "applied_facts",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("row_fingerprints", sa.LargeBinary),
    sa.Column("digest", sa.BigInteger, nullable=False),
    sa.Column("owes", sa.SmallInteger),
    sa.Column("stay", sa.Integer),
    sa.Column("absent_since", Moment),
    postgresql_with={"fillfactor": 80},
)
sa.Index(
    "applied_facts_absent",
    applied_facts.c.absent_since,
    postgresql_where=applied_facts.c.absent_since.is_not(None),
)

# The rules in force one after the other; the offset keeps keys of different rates comparable.
rule_editions = sa.Table(
    "rule_editions",
    metadata,
    sa.Column("rule_edition_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("rules_hash", sa.Text, nullable=False),
    sa.Column("points_per_week", sa.Double, nullable=False),
    sa.Column("rank_offset", sa.Double, nullable=False),
    sa.Column("began_at", Moment, nullable=False),
    sa.Column("applied_at", Moment),
)

# Where a rebuild puts what it has read, before it writes what differs: people who are known, and
# those who are new with their whole entry. Emptied at its end, by the next one or by housekeeping.
rebuilt_people = sa.Table(
    "rebuilt_people",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("facts_version", sa.BigInteger, nullable=False),
    sa.Column("phone_e164", sa.Text),
    sa.Column("time_zone", sa.Text),
    sa.Column("eligible_queue", sa.SmallInteger),
    sa.Column("eligible_reason", sa.Text, nullable=False),
    sa.Column("owes", sa.SmallInteger),
    sa.Column("matter", sa.Text, nullable=False),
    sa.Column("has_signature", sa.Boolean, nullable=False),
    sa.Column("lender_points", sa.Double, nullable=False),
    sa.Column("age_points", sa.Double, nullable=False),
    sa.Column("age_points_until", Moment),
    sa.Column("claimed_at", Moment),
    sa.Column("known_since", Moment),
    prefixes=["UNLOGGED"],
)
rebuilt_entries = sa.Table(
    "rebuilt_entries",
    metadata,
    *(
        sa.Column(
            it.name,
            it.type,
            server_default=it.server_default,
            primary_key=it.primary_key,
            autoincrement=False,
            nullable=it.nullable,
        )
        for it in entries.columns
        if it.name != "state_version"
    ),
    prefixes=["UNLOGGED"],
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
    sa.Column("phone_e164", sa.Text),
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

sa.Index(
    "assignments_ended",
    assignments.c.ended_at,
    postgresql_where=assignments.c.ended_at.is_not(None),
)
sa.Index("assignments_user", assignments.c.user_id)

# Two people with one phone number are never on the phone at a time.
sa.Index(
    "assignments_live_phone",
    assignments.c.phone_e164,
    unique=True,
    postgresql_where=sa.and_(
        assignments.c.ended_at.is_(None), assignments.c.phone_e164.is_not(None)
    ),
)

# One call that ended with an outcome. Never changed, but that its notes are blanked in time.
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
    sa.Column("phone_e164", sa.Text),
    sa.Index("attempts_user", "user_id", sa.text("ended_at DESC")),
    sa.Index("attempts_ended", "ended_at"),
    sa.Index("attempts_noted", "ended_at", postgresql_where=sa.text("notes <> ''")),
    sa.Index(
        "attempts_phone",
        "phone_e164",
        sa.text("ended_at DESC"),
        postgresql_where=sa.text("phone_e164 IS NOT NULL"),
    ),
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

# Agreements to call somebody. `callback_id` of the open one is in the person's entry too.
callbacks = sa.Table(
    "callbacks",
    metadata,
    sa.Column("callback_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("scheduled_for", Moment, nullable=False),
    sa.Column("preferred_agent_id", sa.Text),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("misses", sa.SmallInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("closed_at", Moment),
    sa.Column("closed_reason", sa.Text),
    sa.Index("callbacks_listed", "state", "scheduled_for", "callback_id"),
    sa.Index("callbacks_user", "user_id"),
    sa.Index("callbacks_closed", "closed_at", postgresql_where=sa.text("closed_at IS NOT NULL")),
)
sa.Index(
    "callbacks_open_user",
    callbacks.c.user_id,
    unique=True,
    postgresql_where=callbacks.c.state == sa.text(str(int(CallbackState.OPEN))),
)

# What is known of an agent. `presence` is what they said last; whoever has not been heard of for
# too long counts as offline all the same, and `offline_since` says so unless they were seen later.
agents = sa.Table(
    "agents",
    metadata,
    sa.Column("agent_id", sa.Text, primary_key=True),
    sa.Column("presence", sa.SmallInteger, nullable=False),
    sa.Column("presence_since", Moment, nullable=False),
    sa.Column("last_seen_at", Moment, nullable=False),
    sa.Column("allowed_queues", ARRAY(sa.SmallInteger)),
    sa.Column("skipped_user_id", sa.BigInteger),
    sa.Column("offline_since", Moment),
    postgresql_with={"fillfactor": 50},
)

# People whom nobody calls, by whose word, until it is lifted.
suppressions = sa.Table(
    "suppressions",
    metadata,
    sa.Column("suppression_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("phone_e164", sa.Text),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("lifted_at", Moment),
    sa.Column("lifted_by", sa.Text),
    sa.Column("lift_notes", sa.Text),
    sa.Index("suppressions_created", sa.text("created_at DESC"), "suppression_id"),
    sa.Index("suppressions_user", "user_id"),
    sa.Index("suppressions_lifted", "lifted_at", postgresql_where=sa.text("lifted_at IS NOT NULL")),
)
sa.Index(
    "suppressions_standing_user",
    suppressions.c.user_id,
    unique=True,
    postgresql_where=suppressions.c.lifted_at.is_(None),
)
sa.Index(
    "suppressions_standing_phone",
    suppressions.c.phone_e164,
    postgresql_where=sa.and_(
        suppressions.c.lifted_at.is_(None), suppressions.c.phone_e164.is_not(None)
    ),
)

# Phone numbers on lists such as the TPS's.
listed_phones = sa.Table(
    "listed_phones",
    metadata,
    sa.Column("phone_e164", sa.Text, primary_key=True),
    sa.Column("list_name", sa.Text, primary_key=True),
)

# Who saw and changed whom.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("audit_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", Moment, nullable=False),
    sa.Column("actor_id", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("user_id", sa.BigInteger),
    sa.Column("details", JSONB, nullable=False),
    sa.Index("audit_user", "user_id", sa.text("audit_id DESC")),
    sa.Index("audit_actor", "actor_id", sa.text("audit_id DESC")),
    sa.Index("audit_at", "at"),
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
