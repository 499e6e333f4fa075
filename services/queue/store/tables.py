"""The queue's tables. The numbers of states and other enums are those of `services.queue.types`.

A person's id is a bigint: the main app's ids are unsigned, but an id above 2^63 - 1 is refused at
the edge, since a numeric key would make every hand-out slower.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from services.queue.types import CallbackState, EditionState, State

SCHEMA = "queue"

metadata = sa.MetaData(schema=SCHEMA)

Moment = TIMESTAMP(timezone=True)


def _index(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    """Return a partial index."""
    keys = [sa.text(it) if " " in it else it for it in columns]
    return sa.Index(name, *keys, unique=unique, postgresql_where=sa.text(where))


# `phone_e164` of six tables was for the code before 0005; this code does not write it.

# Orders the states of each person. Not cached by sessions: of two values for one person, drawn
# under that person's row lock, the later must be the higher.
state_version = sa.Sequence("state_version", metadata=metadata)

# One narrow row for each person. Every column that a hand-out changes is here or in `assignments`:
# pages keep room for the next version of a row, and dead versions are removed early.
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("facts_version", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.BigInteger, nullable=False),
    sa.Column("phone_e164", sa.Text),
    sa.Column("phones", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("time_zone", sa.Text),
    sa.Column("eligible_queue", sa.SmallInteger),
    sa.Column("eligible_reason", sa.Text, nullable=False),
    sa.Column("open_case_queue", sa.SmallInteger),
    sa.Column("case_number", sa.Integer, nullable=False),
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
    sa.Column("lines", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("rest_until", Moment),
    sa.Column("capped_until", Moment),
    sa.Column("cap", sa.SmallInteger),
    sa.Column("phone_free_at", Moment),
    sa.Column("phone_block", sa.SmallInteger),
    sa.Column("callback_id", sa.Uuid),
    sa.Column("callback_at", Moment),
    sa.Column("callback_agent_id", sa.Text),
    sa.Column("kept_until", Moment),
    sa.Column("block", sa.SmallInteger),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("attempts_in_case", sa.Integer, nullable=False),
    sa.Column("last_outcome", sa.SmallInteger),
    sa.Column("last_contact_at", Moment),
    sa.Column("last_agent_id", sa.Text),
    sa.Column("last_spoken_at", Moment),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("agent_id", sa.Text),
    sa.Column("assignment_id", sa.Uuid),
    sa.Column("reserved_by", sa.Uuid),
    sa.Column("reserved_until", Moment),
    sa.Column("state_version", sa.BigInteger, nullable=False),
    _index("entries_ready", "queue", "rank_key", "user_id DESC", where=f"state = {State.READY:d}"),
    _index(
        "entries_ready_since", "queue", "ready_since", "user_id", where=f"state = {State.READY:d}"
    ),
    _index("entries_waiting", "due_at", "user_id DESC", where=f"state = {State.WAITING:d}"),
    _index("entries_reserved", "reserved_until", where=f"state = {State.RESERVED:d}"),
    _index("entries_assigned", "queue", "user_id DESC", where=f"state = {State.ASSIGNED:d}"),
    _index(
        "entries_withheld",
        "open_case_queue",
        "user_id DESC",
        where="open_case_queue IS NOT NULL"
        f" AND state >= {State.SUPPRESSED:d} AND state <= {State.OUT:d}",
    ),
    _index("entries_time_zone", "time_zone", where="time_zone IS NOT NULL"),
    _index("entries_age_points_until", "age_points_until", where="age_points_until IS NOT NULL"),
    postgresql_with={
        "fillfactor": 70,
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_cost_delay": 0,
    },
)


# `entries.phones` by number: the people with a number in the phone field, whether or not it counts.
# Apart from `entries`, whose every change would have to be written to such an index.
person_phones = sa.Table(
    "person_phones",
    metadata,
    sa.Column("phone_e164", sa.Text, primary_key=True),
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
)

# Numbers that too many people have in the phone field: they count as no number.
placeholder_phones = sa.Table(
    "placeholder_phones",
    metadata,
    sa.Column("phone_e164", sa.Text, primary_key=True),
)

# Numbers whose people have yet to be placed by their present phone status.
unplaced_phones = sa.Table(
    "unplaced_phones",
    metadata,
    sa.Column("phone_e164", sa.Text, primary_key=True),
)

# What was last applied of each person's facts, beside `entries` so that those rows stay narrow: the
# fingerprints of the person's rows in the main app, NULL when unknown, and a digest of them and of
# the entry's columns that derive from facts alone, which shows changes made by hand.
# `open_case_queue` and `case_number` are the entry's as applied, known if `case_number` is;
# `absent_since` is since when the main app has not had the person, `ended_since` since when no
# claim of the person has been open.
applied_facts = sa.Table(
    "applied_facts",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("row_fingerprints", sa.LargeBinary),
    sa.Column("digest", sa.BigInteger, nullable=False),
    sa.Column("open_case_queue", sa.SmallInteger),
    sa.Column("case_number", sa.Integer),
    sa.Column("absent_since", Moment),
    sa.Column("ended_since", Moment),
    _index("applied_facts_absent", "absent_since", where="absent_since IS NOT NULL"),
    postgresql_with={"fillfactor": 80},
)

# The editions of the rules in order; the offset keeps rank keys of different rates comparable.
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

# The rebuild under way. While its row exists, all rows that it has staged exist too: the row is
# deleted before staged rows are, and a crash that empties unlogged tables empties both.
# `guard_pid` is the PostgreSQL process whose advisory lock makes it the only one.
rebuild_runs = sa.Table(
    "rebuild_runs",
    metadata,
    sa.Column("run_id", sa.Uuid, primary_key=True),
    sa.Column("actor_id", sa.Text, nullable=False),
    sa.Column("began_at", Moment, nullable=False),
    sa.Column("guard_pid", sa.Integer, nullable=False),
    sa.Column("phase", sa.SmallInteger, nullable=False),
    sa.Column("people_read", sa.BigInteger, nullable=False),
    sa.Column("people_new", sa.BigInteger, nullable=False),
    sa.Column("people_different", sa.BigInteger, nullable=False),
    sa.Column("people_written", sa.BigInteger, nullable=False),
    sa.Column("conversions", sa.BigInteger, nullable=False),
    sa.Column("through_user_id", sa.BigInteger, nullable=False),
    sa.Column("last_user_id", sa.BigInteger, nullable=False),
    prefixes=["UNLOGGED"],
)

# The staging of a rebuild: known people, and new people with their whole entry. Emptied at its end,
# by the next rebuild or by housekeeping. The default is for code that does not know of runs yet.
_RUN_ID = sa.text("'00000000-0000-0000-0000-000000000000'::uuid")
rebuilt_people = sa.Table(
    "rebuilt_people",
    metadata,
    sa.Column("run_id", sa.Uuid, primary_key=True, server_default=_RUN_ID),
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("facts_version", sa.BigInteger, nullable=False),
    sa.Column("phone_e164", sa.Text),
    sa.Column("phones", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("time_zone", sa.Text),
    sa.Column("eligible_queue", sa.SmallInteger),
    sa.Column("eligible_reason", sa.Text, nullable=False),
    sa.Column("open_case_queue", sa.SmallInteger),
    sa.Column("case_reason", sa.Text, nullable=False),
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
    sa.Column("run_id", sa.Uuid, primary_key=True, server_default=_RUN_ID),
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
    # As `entries_ready`, so that the head of each queue is right from the first batch on.
    _index(
        "rebuilt_entries_ready",
        *("run_id", "queue", "rank_key", "user_id DESC"),
        where=f"state = {State.READY:d}",
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
    sa.Column("lines", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("heartbeat_at", Moment),
    sa.Column("end_notes", sa.Text),
    sa.Column("direction", sa.SmallInteger, nullable=False, server_default=sa.text("1")),
    # What the report of the call has changed, from which an amendment goes out.
    sa.Column("report_effects", JSONB),
    sa.CheckConstraint("(ended_at IS NULL) = (ending IS NULL)", name="assignments_ended_somehow"),
    # Invariant 2: the database itself allows one live assignment for each person and each agent.
    _index("assignments_live_user", "user_id", where="ended_at IS NULL", unique=True),
    _index("assignments_live_agent", "agent_id", where="ended_at IS NULL", unique=True),
    _index("assignments_ended", "ended_at", where="ended_at IS NOT NULL"),
    sa.Index("assignments_user", "user_id"),
    postgresql_with={"fillfactor": 80, "autovacuum_vacuum_scale_factor": 0.05},
)


# Lines of live assignments: two people with one number are never on the phone at a time.
live_lines = sa.Table(
    "live_lines",
    metadata,
    sa.Column("phone_e164", sa.Text, primary_key=True),
    sa.Column(
        "assignment_id",
        sa.Uuid,
        sa.ForeignKey("queue.assignments.assignment_id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Index("live_lines_assignment", "assignment_id"),
)

# One call, `outcome` NULL while the agent has not reported it; `disposition` is the code of the
# rules that it was reported by, if any. Changed by a late report, and when its notes are blanked.
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("assignment_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("queue", sa.SmallInteger, nullable=False),
    sa.Column("outcome", sa.SmallInteger),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("callback_at", Moment),
    sa.Column("ended_at", Moment, nullable=False),
    sa.Column("phone_e164", sa.Text),
    sa.Column("disposition", sa.Text),
    sa.Column("direction", sa.SmallInteger, nullable=False, server_default=sa.text("1")),
    sa.Index("attempts_user", "user_id", sa.text("ended_at DESC")),
    sa.Index("attempts_ended", "ended_at"),
    sa.Index("attempts_noted", "ended_at", postgresql_where=sa.text("notes <> ''")),
)

# Calls by line: a call counts for each number that the person had then.
attempt_lines = sa.Table(
    "attempt_lines",
    metadata,
    sa.Column(
        "assignment_id",
        sa.Uuid,
        sa.ForeignKey("queue.attempts.assignment_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("phone_e164", sa.Text, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("ended_at", Moment, nullable=False),
    sa.Index("attempt_lines_phone", "phone_e164", sa.text("ended_at DESC")),
)

# What happened to the call of an assignment, kept for as long as the assignment or its call is. The
# key makes noting an event twice impossible.
call_events = sa.Table(
    "call_events",
    metadata,
    sa.Column("assignment_id", sa.Uuid, primary_key=True),
    sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Moment, primary_key=True),
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("provider_call_id", sa.Text, primary_key=True),
    sa.Column("duration_seconds", sa.Double),
    sa.Column("recording_reference", sa.Text, nullable=False),
    sa.Column("actor_id", sa.Text, nullable=False),
)

# Versions of reports that were replaced; `outcome` NULL for a call that had no report then.
amendments = sa.Table(
    "amendments",
    metadata,
    sa.Column("amendment_id", sa.Uuid, primary_key=True),
    sa.Column(
        "assignment_id",
        sa.Uuid,
        sa.ForeignKey("queue.attempts.assignment_id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("actor_id", sa.Text, nullable=False),
    sa.Column("amended_at", Moment, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("outcome", sa.SmallInteger),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("callback_at", Moment),
    sa.Column("disposition", sa.Text),
    sa.Index("amendments_assignment", "assignment_id"),
    sa.Index("amendments_user", "user_id", sa.text("amended_at DESC")),
    _index("amendments_noted", "amended_at", where="notes <> '' OR reason <> ''"),
)

# What actors have noted of a person outside a call.
notes = sa.Table(
    "notes",
    metadata,
    sa.Column("note_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("noted_by", sa.Text, nullable=False),
    sa.Column("noted_at", Moment, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Index("notes_user", "user_id", sa.text("noted_at DESC")),
    sa.Index("notes_noted", "noted_at"),
)

# A person's latest complaints together: open while `closed_at` is NULL.
complaints = sa.Table(
    "complaints",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("opened_at", Moment, nullable=False),
    sa.Column("closed_at", Moment),
    sa.Column("noted_by", sa.Text, nullable=False),
    _index("complaints_closed", "closed_at", where="closed_at IS NOT NULL"),
)

# A case that has ended with a conversion. The key makes recording it twice impossible.
conversions = sa.Table(
    "conversions",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("case_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("queue", sa.SmallInteger, nullable=False),
    sa.Column("conversion", sa.SmallInteger, nullable=False),
    sa.Column("agent_id", sa.Text),
    sa.Column("recorded_at", Moment, nullable=False),
    # When the oldest claim of the case was made.
    sa.Column("wanted_since", Moment),
    sa.Index("conversions_recorded", "recorded_at"),
)

# The days that have been counted for reports, in the company's time zone.
report_days = sa.Table(
    "report_days",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("counted_at", Moment, nullable=False),
)

# Counts of one day, once for each dimension: `part` is an agent, an hour or the number of a call.
# `result` is an outcome (0: unreported), a conversion, or the state of a callback or an entry.
# Of `timed` conversions it is known how long what they brought had been wanted: `seconds` together.
# Entries are counted once an hour, so that `timed` is how often.
report_figures = sa.Table(
    "report_figures",
    metadata,
    sa.Column("report", sa.SmallInteger, primary_key=True),
    sa.Column("dimension", sa.SmallInteger, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("queue", sa.SmallInteger, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("result", sa.SmallInteger, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("timed", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.BigInteger, nullable=False),
    sa.Index("report_figures_day", "day"),
)

# Agreements to call a person. `callback_id` of the open one is in the person's entry, too.
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
    _index("callbacks_closed", "closed_at", where="closed_at IS NOT NULL"),
    _index("callbacks_open_user", "user_id", where=f"state = {CallbackState.OPEN:d}", unique=True),
)

# Times in which no person is handed out from `queue`, NULL for all; one that an actor ended early,
# `ended_by`, has that moment as its end, or its begin if that was later.
pauses = sa.Table(
    "pauses",
    metadata,
    sa.Column("pause_id", sa.Uuid, primary_key=True),
    sa.Column("queue", sa.SmallInteger),
    sa.Column("begins_at", Moment, nullable=False),
    sa.Column("ends_at", Moment, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("ended_by", sa.Text),
    sa.Index("pauses_end", "ends_at"),
)

# Agents. `presence` is what the agent set last; an agent who has not been seen for too long counts
# as offline all the same, and then `offline_since` is set, unless the agent was seen later.
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

# Objections of people, or to calls of a bare number (`user_id` NULL), until they are lifted.
suppressions = sa.Table(
    "suppressions",
    metadata,
    sa.Column("suppression_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger),
    sa.Column("phone_e164", sa.Text),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("notes", sa.Text, nullable=False),
    # A `ContactBlock`: what the person is taken to have asked, or that the person has died.
    sa.Column("kind", sa.SmallInteger, nullable=False, server_default=sa.text("2")),
    sa.Column("lifted_at", Moment),
    sa.Column("lifted_by", sa.Text),
    sa.Column("lift_notes", sa.Text),
    # When the same objection was last made once more while this one was active.
    sa.Column("restated_at", Moment),
    sa.Index("suppressions_created", sa.text("created_at DESC"), "suppression_id"),
    sa.Index("suppressions_user", "user_id"),
    _index("suppressions_lifted", "lifted_at", where="lifted_at IS NOT NULL"),
    _index("suppressions_standing_kind", "user_id", "kind", where="lifted_at IS NULL", unique=True),
)
# The numbers that an objection stops: those the person had when it was made, or the bare one.
suppression_lines = sa.Table(
    "suppression_lines",
    metadata,
    sa.Column("phone_e164", sa.Text, primary_key=True),
    sa.Column(
        "suppression_id",
        sa.Uuid,
        sa.ForeignKey("queue.suppressions.suppression_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Index("suppression_lines_suppression", "suppression_id"),
)

# Lists of phone numbers such as the TPS's, in editions, one for each import. `numbers` grows while
# it loads; `is_placed` tells that all people have been placed by it.
phone_list_editions = sa.Table(
    "phone_list_editions",
    metadata,
    sa.Column("edition_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("list_name", sa.Text, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("actor_id", sa.Text, nullable=False),
    sa.Column("began_at", Moment, nullable=False),
    sa.Column("loaded_through_at", Moment, nullable=False),
    sa.Column("became_current_at", Moment),
    sa.Column("numbers", sa.BigInteger, nullable=False),
    sa.Column("is_complete", sa.Boolean, nullable=False),
    sa.Column("is_placed", sa.Boolean, nullable=False),
    # The day that the list is of, and its origin, as the import says.
    sa.Column("dated_on", sa.Date),
    sa.Column("source", sa.Text),
    # One import of a list at a time.
    _index(
        "phone_list_editions_loading",
        "list_name",
        where=f"state = {EditionState.LOADING:d}",
        unique=True,
    ),
)

# The editions' numbers; only those of a current edition count.
list_numbers = sa.Table(
    "list_numbers",
    metadata,
    sa.Column("phone_e164", sa.Text, primary_key=True),
    sa.Column("edition_id", sa.BigInteger, primary_key=True, autoincrement=False),
)

# The lists before there were editions: for code of that time alone; this code neither reads nor
# writes it.
listed_phones = sa.Table(
    "listed_phones",
    metadata,
    sa.Column("phone_e164", sa.Text, primary_key=True),
    sa.Column("list_name", sa.Text, primary_key=True),
)

# Which actor saw and changed which person.
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

# Idempotency records: requests that change state, with the answers to repeat.
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

# People whom the live check found not to qualify any more.
prevented_calls = sa.Table(
    "prevented_calls",
    metadata,
    sa.Column("prevented_call_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("queue", sa.SmallInteger, nullable=False),
    sa.Column("prevented_at", Moment, nullable=False),
    sa.Index("prevented_calls_at", "prevented_at"),
)

# Both outboxes are filled within the transaction that changes a person and emptied on delivery:
# insert and delete only, so that only a few dead pages remain.
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

# People whose call state has a version of which `user_context` must be notified.
stale_call_states = sa.Table(
    "stale_call_states",
    metadata,
    sa.Column("stale_call_state_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("state_version", sa.BigInteger, nullable=False),
    postgresql_with=_OUTBOX_STORAGE,
)
