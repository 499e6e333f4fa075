"""Entries, assignments, attempts, conversions, answers to request ids and both outboxes."""

from alembic import op

revision = "0001"
down_revision = None

_STATEMENTS = (
    "CREATE SEQUENCE queue.state_version",
    """
    CREATE TABLE queue.entries (
        user_id BIGINT NOT NULL,
        facts_version BIGINT NOT NULL,
        fingerprint BIGINT NOT NULL,
        phone_e164 TEXT,
        eligible_queue SMALLINT,
        eligible_reason TEXT NOT NULL,
        owes SMALLINT,
        stay INTEGER NOT NULL,
        queue SMALLINT,
        state SMALLINT NOT NULL,
        reason TEXT NOT NULL,
        rank_key DOUBLE PRECISION NOT NULL,
        entered_at TIMESTAMP WITH TIME ZONE,
        ready_since TIMESTAMP WITH TIME ZONE,
        due_at TIMESTAMP WITH TIME ZONE,
        block SMALLINT,
        attempts INTEGER NOT NULL,
        attempts_in_stay INTEGER NOT NULL,
        last_outcome SMALLINT,
        last_contact_at TIMESTAMP WITH TIME ZONE,
        last_agent_id TEXT,
        fence BIGINT NOT NULL,
        agent_id TEXT,
        assignment_id UUID,
        reserved_by UUID,
        reserved_until TIMESTAMP WITH TIME ZONE,
        state_version BIGINT NOT NULL,
        PRIMARY KEY (user_id)
    )
     WITH (
        fillfactor = 70,
        autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0
    )
    """,
    "CREATE INDEX entries_assigned ON queue.entries (queue, user_id DESC) WHERE state = 3",
    """
    CREATE INDEX entries_ready ON queue.entries (queue, rank_key, user_id DESC)
        WHERE state = 1
    """,
    "CREATE INDEX entries_reserved ON queue.entries (reserved_until) WHERE state = 6",
    "CREATE INDEX entries_waiting ON queue.entries (due_at, user_id DESC) WHERE state = 2",
    """
    CREATE INDEX entries_withheld ON queue.entries (owes, user_id DESC)
        WHERE owes IS NOT NULL AND state >= 4 AND state <= 5
    """,
    """
    CREATE TABLE queue.assignments (
        assignment_id UUID NOT NULL,
        agent_id TEXT NOT NULL,
        user_id BIGINT NOT NULL,
        queue SMALLINT NOT NULL,
        reason TEXT NOT NULL,
        score DOUBLE PRECISION NOT NULL,
        fence BIGINT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        lease_expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE,
        ending SMALLINT,
        PRIMARY KEY (assignment_id),
        CONSTRAINT assignments_ended_somehow CHECK ((ended_at IS NULL) = (ending IS NULL))
    )
     WITH (
        fillfactor = 80,
        autovacuum_vacuum_scale_factor = 0.05
    )
    """,
    """
    CREATE UNIQUE INDEX assignments_live_agent ON queue.assignments (agent_id)
        WHERE ended_at IS NULL
    """,
    """
    CREATE UNIQUE INDEX assignments_live_user ON queue.assignments (user_id)
        WHERE ended_at IS NULL
    """,
    """
    CREATE TABLE queue.attempts (
        assignment_id UUID NOT NULL,
        user_id BIGINT NOT NULL,
        agent_id TEXT NOT NULL,
        queue SMALLINT NOT NULL,
        outcome SMALLINT NOT NULL,
        notes TEXT NOT NULL,
        callback_at TIMESTAMP WITH TIME ZONE,
        ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (assignment_id)
    )
    """,
    "CREATE INDEX attempts_ended ON queue.attempts (ended_at)",
    "CREATE INDEX attempts_user ON queue.attempts (user_id, ended_at DESC)",
    """
    CREATE TABLE queue.conversions (
        user_id BIGINT NOT NULL,
        stay INTEGER NOT NULL,
        queue SMALLINT NOT NULL,
        conversion SMALLINT NOT NULL,
        agent_id TEXT,
        recorded_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (user_id, stay)
    )
    """,
    "CREATE INDEX conversions_recorded ON queue.conversions (recorded_at)",
    """
    CREATE TABLE queue.requests (
        agent_id TEXT NOT NULL,
        request_id UUID NOT NULL,
        method TEXT NOT NULL,
        payload_hash BYTEA NOT NULL,
        response BYTEA,
        made_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (agent_id, request_id)
    )
     WITH (
        autovacuum_vacuum_scale_factor = 0.05
    )
    """,
    "CREATE INDEX requests_made ON queue.requests (made_at)",
    """
    CREATE TABLE queue.prevented_calls (
        prevented_call_id BIGINT GENERATED ALWAYS AS IDENTITY,
        user_id BIGINT NOT NULL,
        queue SMALLINT NOT NULL,
        prevented_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (prevented_call_id)
    )
    """,
    "CREATE INDEX prevented_calls_at ON queue.prevented_calls (prevented_at)",
    """
    CREATE TABLE queue.outbox (
        outbox_id BIGINT GENERATED ALWAYS AS IDENTITY,
        event BYTEA NOT NULL,
        PRIMARY KEY (outbox_id)
    )
     WITH (
        autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0
    )
    """,
    """
    CREATE TABLE queue.stale_call_states (
        stale_call_state_id BIGINT GENERATED ALWAYS AS IDENTITY,
        user_id BIGINT NOT NULL,
        state_version BIGINT NOT NULL,
        PRIMARY KEY (stale_call_state_id)
    )
     WITH (
        autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0
    )
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
