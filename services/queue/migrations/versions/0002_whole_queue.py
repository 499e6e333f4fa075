"""Callbacks, agents, suppressions, caps, shared phone numbers, parts of a score, audit."""

from alembic import op

revision = "0002"
down_revision = "0001"

_ENTRY_COLUMNS = """
    ALTER TABLE queue.entries
        ADD COLUMN time_zone TEXT,
        ADD COLUMN hold SMALLINT,
        ADD COLUMN outcome_points DOUBLE PRECISION NOT NULL DEFAULT 0,
        ADD COLUMN attempt_points DOUBLE PRECISION NOT NULL DEFAULT 0,
        ADD COLUMN aged_from TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        ADD COLUMN lender_points DOUBLE PRECISION NOT NULL DEFAULT 0,
        ADD COLUMN age_points DOUBLE PRECISION NOT NULL DEFAULT 0,
        ADD COLUMN age_points_until TIMESTAMP WITH TIME ZONE,
        ADD COLUMN claimed_at TIMESTAMP WITH TIME ZONE,
        ADD COLUMN rest_until TIMESTAMP WITH TIME ZONE,
        ADD COLUMN capped_until TIMESTAMP WITH TIME ZONE,
        ADD COLUMN cap SMALLINT,
        ADD COLUMN phone_free_at TIMESTAMP WITH TIME ZONE,
        ADD COLUMN phone_block SMALLINT,
        ADD COLUMN callback_id UUID,
        ADD COLUMN callback_at TIMESTAMP WITH TIME ZONE,
        ADD COLUMN callback_agent_id TEXT
"""

# A key of before is the score somebody would have had at the origin of ranking.
_ENTRY_VALUES = """
    UPDATE queue.entries
    SET outcome_points = rank_key, aged_from = '2020-01-01 00:00:00+00', rest_until = due_at,
        hold = CASE WHEN state = 2 THEN CASE WHEN last_outcome IS NULL THEN 1 ELSE 2 END END
"""

_STATEMENTS = (
    _ENTRY_COLUMNS,
    _ENTRY_VALUES,
    "CREATE INDEX entries_phone ON queue.entries (phone_e164) WHERE phone_e164 IS NOT NULL",
    "CREATE INDEX entries_time_zone ON queue.entries (time_zone) WHERE time_zone IS NOT NULL",
    """
    CREATE INDEX entries_age_points_until ON queue.entries (age_points_until)
        WHERE age_points_until IS NOT NULL
    """,
    """
    CREATE TABLE queue.rule_editions (
        rule_edition_id BIGINT GENERATED ALWAYS AS IDENTITY,
        rules_hash TEXT NOT NULL,
        points_per_week DOUBLE PRECISION NOT NULL,
        rank_offset DOUBLE PRECISION NOT NULL,
        began_at TIMESTAMP WITH TIME ZONE NOT NULL,
        applied_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (rule_edition_id)
    )
    """,
    # Those who are there were ranked at the one rate there was.
    """
    INSERT INTO queue.rule_editions
        (rules_hash, points_per_week, rank_offset, began_at, applied_at)
    SELECT 'before editions', 5, 0, now(), now() WHERE EXISTS (SELECT FROM queue.entries)
    """,
    """
    CREATE UNLOGGED TABLE queue.rebuilt_people (
        user_id BIGINT NOT NULL,
        facts_version BIGINT NOT NULL,
        phone_e164 TEXT,
        time_zone TEXT,
        eligible_queue SMALLINT,
        eligible_reason TEXT NOT NULL,
        owes SMALLINT,
        matter TEXT NOT NULL,
        has_signature BOOLEAN NOT NULL,
        lender_points DOUBLE PRECISION NOT NULL,
        age_points DOUBLE PRECISION NOT NULL,
        age_points_until TIMESTAMP WITH TIME ZONE,
        claimed_at TIMESTAMP WITH TIME ZONE,
        known_since TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (user_id)
    )
    """,
    "CREATE UNLOGGED TABLE queue.rebuilt_entries (LIKE queue.entries INCLUDING DEFAULTS)",
    "ALTER TABLE queue.rebuilt_entries DROP COLUMN state_version",
    "ALTER TABLE queue.rebuilt_entries ADD PRIMARY KEY (user_id)",
    "ALTER TABLE queue.assignments ADD COLUMN phone_e164 TEXT",
    """
    CREATE UNIQUE INDEX assignments_live_phone ON queue.assignments (phone_e164)
        WHERE ended_at IS NULL AND phone_e164 IS NOT NULL
    """,
    "ALTER TABLE queue.attempts ADD COLUMN phone_e164 TEXT",
    """
    CREATE INDEX attempts_phone ON queue.attempts (phone_e164, ended_at DESC)
        WHERE phone_e164 IS NOT NULL
    """,
    """
    CREATE TABLE queue.callbacks (
        callback_id UUID NOT NULL,
        user_id BIGINT NOT NULL,
        scheduled_for TIMESTAMP WITH TIME ZONE NOT NULL,
        preferred_agent_id TEXT,
        state SMALLINT NOT NULL,
        misses SMALLINT NOT NULL,
        created_by TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL,
        notes TEXT NOT NULL,
        closed_at TIMESTAMP WITH TIME ZONE,
        closed_reason TEXT,
        PRIMARY KEY (callback_id)
    )
    """,
    "CREATE INDEX callbacks_listed ON queue.callbacks (state, scheduled_for, callback_id)",
    "CREATE INDEX callbacks_user ON queue.callbacks (user_id)",
    "CREATE UNIQUE INDEX callbacks_open_user ON queue.callbacks (user_id) WHERE state = 1",
    """
    CREATE TABLE queue.agents (
        agent_id TEXT NOT NULL,
        presence SMALLINT NOT NULL,
        presence_since TIMESTAMP WITH TIME ZONE NOT NULL,
        last_seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
        allowed_queues SMALLINT[],
        skipped_user_id BIGINT,
        PRIMARY KEY (agent_id)
    )
     WITH (
        fillfactor = 50
    )
    """,
    """
    CREATE TABLE queue.suppressions (
        suppression_id UUID NOT NULL,
        user_id BIGINT NOT NULL,
        phone_e164 TEXT,
        created_by TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL,
        notes TEXT NOT NULL,
        lifted_at TIMESTAMP WITH TIME ZONE,
        lifted_by TEXT,
        lift_notes TEXT,
        PRIMARY KEY (suppression_id)
    )
    """,
    """
    CREATE INDEX suppressions_created
        ON queue.suppressions (created_at DESC, suppression_id)
    """,
    """
    CREATE UNIQUE INDEX suppressions_standing_user ON queue.suppressions (user_id)
        WHERE lifted_at IS NULL
    """,
    """
    CREATE INDEX suppressions_standing_phone ON queue.suppressions (phone_e164)
        WHERE lifted_at IS NULL AND phone_e164 IS NOT NULL
    """,
    """
    INSERT INTO queue.suppressions
        (suppression_id, user_id, phone_e164, created_by, created_at, notes)
    SELECT DISTINCT ON (entry.user_id) attempt.assignment_id, entry.user_id, entry.phone_e164,
        attempt.agent_id, attempt.ended_at, attempt.notes
    FROM queue.entries AS entry JOIN queue.attempts AS attempt USING (user_id)
    WHERE entry.block = 2 AND attempt.outcome = 11
    ORDER BY entry.user_id, attempt.ended_at DESC
    """,
    """
    CREATE TABLE queue.listed_phones (
        phone_e164 TEXT NOT NULL,
        list_name TEXT NOT NULL,
        PRIMARY KEY (phone_e164, list_name)
    )
    """,
    """
    CREATE TABLE queue.audit (
        audit_id BIGINT GENERATED ALWAYS AS IDENTITY,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        actor_id TEXT NOT NULL,
        action TEXT NOT NULL,
        user_id BIGINT,
        details JSONB NOT NULL,
        PRIMARY KEY (audit_id)
    )
    """,
    "CREATE INDEX audit_user ON queue.audit (user_id, audit_id DESC)",
    "CREATE INDEX audit_actor ON queue.audit (actor_id, audit_id DESC)",
    "CREATE INDEX audit_at ON queue.audit (at)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
