"""How long what is kept, and fingerprints under the digest; all of it is short work.

Indexes are made in the transaction of the upgrade: the tables they are on hold what agents did in a
year or so, hundreds of thousands of rows at most, and each takes less than a second. Whoever had
been altered by hand stays altered. Facts that the code before applies later, while both run, are
taken for altered until the reconciler has sent them again.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

_DIGESTED = """entry.user_id, entry.facts_version, entry.fingerprint, entry.phone_e164,
    entry.time_zone, entry.eligible_queue, entry.eligible_reason, entry.owes, entry.stay,
    entry.lender_points, entry.age_points, entry.age_points_until, entry.claimed_at"""

_STATEMENTS = (
    """
    ALTER TABLE queue.applied_facts
        ADD COLUMN owes SMALLINT,
        ADD COLUMN stay INTEGER,
        ADD COLUMN absent_since TIMESTAMP WITH TIME ZONE,
        SET (fillfactor = 80)
    """,
    f"""
    UPDATE queue.applied_facts AS applied
    SET owes = entry.owes, stay = entry.stay,
        absent_since = CASE WHEN entry.eligible_reason = 'USER_NOT_FOUND' THEN now() END,
        digest = hash_record_extended(ROW({_DIGESTED}, applied.row_fingerprints), 0)
    FROM queue.entries AS entry
    WHERE entry.user_id = applied.user_id
        AND applied.digest = hash_record_extended(ROW({_DIGESTED}), 0)
    """,  # noqa: S608 - our own column names
    """
    CREATE INDEX applied_facts_absent ON queue.applied_facts (absent_since)
        WHERE absent_since IS NOT NULL
    """,
    """
    CREATE INDEX assignments_ended ON queue.assignments (ended_at)
        WHERE ended_at IS NOT NULL
    """,
    "CREATE INDEX assignments_user ON queue.assignments (user_id)",
    "CREATE INDEX attempts_noted ON queue.attempts (ended_at) WHERE notes <> ''",
    """
    CREATE INDEX callbacks_closed ON queue.callbacks (closed_at)
        WHERE closed_at IS NOT NULL
    """,
    "CREATE INDEX suppressions_user ON queue.suppressions (user_id)",
    """
    CREATE INDEX suppressions_lifted ON queue.suppressions (lifted_at)
        WHERE lifted_at IS NOT NULL
    """,
    "ALTER TABLE queue.agents ADD COLUMN offline_since TIMESTAMP WITH TIME ZONE",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
