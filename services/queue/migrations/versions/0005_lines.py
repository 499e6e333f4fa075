"""Several numbers a person, calls by line and without a report, objections to bare numbers.

The columns `phone_e164` stay for the code before, which went on while this was rolled out; since
0009 that code does not run. The rebuild that the new rules bring reads all numbers anew. `entries`
is locked from its ALTER on, some ten seconds for half a million people: to be done outside calling
hours.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

_BEFORE = """entry.user_id, entry.facts_version, entry.fingerprint, entry.phone_e164,
    entry.time_zone, entry.eligible_queue, entry.eligible_reason, entry.owes, entry.stay,
    entry.lender_points, entry.age_points, entry.age_points_until, entry.claimed_at"""
_AFTER = _BEFORE.replace("phone_e164", "phones")
# no_answer, missed_call, bad_number: the agent spoke with no person.
_NOT_SPOKEN = "(5, 6, 8)"

_STATEMENTS = (
    """
    ALTER TABLE queue.entries
        ADD COLUMN phones TEXT[] DEFAULT '{}' NOT NULL,
        ADD COLUMN lines TEXT[] DEFAULT '{}' NOT NULL,
        ADD COLUMN kept_until TIMESTAMP WITH TIME ZONE,
        ADD COLUMN last_spoken_at TIMESTAMP WITH TIME ZONE
    """,
    "DROP INDEX queue.entries_phone",
    f"""
    CREATE TEMPORARY TABLE sound ON COMMIT DROP AS
    SELECT entry.user_id FROM queue.entries AS entry
    JOIN queue.applied_facts AS applied ON applied.user_id = entry.user_id
    WHERE applied.digest = hash_record_extended(ROW({_BEFORE}, applied.row_fingerprints), 0)
    """,  # noqa: S608 - our own column names
    f"""
    UPDATE queue.entries AS entry
    SET phones = CASE WHEN entry.phone_e164 IS NULL THEN '{{}}' ELSE ARRAY[entry.phone_e164] END,
        lines = CASE WHEN entry.phone_e164 IS NULL THEN '{{}}' ELSE ARRAY[entry.phone_e164] END,
        last_agent_id = spoken.agent_id,
        last_spoken_at = spoken.ended_at
    FROM queue.entries AS same
    LEFT JOIN (
        SELECT DISTINCT ON (user_id) user_id, agent_id, ended_at FROM queue.attempts
        WHERE outcome NOT IN {_NOT_SPOKEN} ORDER BY user_id, ended_at DESC
    ) AS spoken ON spoken.user_id = same.user_id
    WHERE entry.user_id = same.user_id
    """,  # noqa: S608 - our own numbers
    """
    ALTER TABLE queue.applied_facts ADD COLUMN ended_since TIMESTAMP WITH TIME ZONE
    """,
    f"""
    UPDATE queue.applied_facts AS applied
    SET digest = hash_record_extended(ROW({_AFTER}, applied.row_fingerprints), 0),
        ended_since = CASE
            WHEN entry.eligible_reason IN ('CLAIMS_ENDED', 'NO_CLAIMS', 'USER_NOT_FOUND') THEN now()
        END
    FROM queue.entries AS entry JOIN sound ON sound.user_id = entry.user_id
    WHERE entry.user_id = applied.user_id
    """,  # noqa: S608 - our own column names
    """
    CREATE TABLE queue.person_phones (
        phone_e164 TEXT NOT NULL,
        user_id BIGINT NOT NULL,
        PRIMARY KEY (phone_e164, user_id)
    )
    """,
    """
    INSERT INTO queue.person_phones (phone_e164, user_id)
    SELECT phone_e164, user_id FROM queue.entries WHERE phone_e164 IS NOT NULL
    """,
    "CREATE TABLE queue.placeholder_phones (phone_e164 TEXT NOT NULL PRIMARY KEY)",
    "CREATE TABLE queue.unplaced_phones (phone_e164 TEXT NOT NULL PRIMARY KEY)",
    # By the limit that the rules have when they do not name another.
    """
    INSERT INTO queue.placeholder_phones (phone_e164)
    SELECT phone_e164 FROM queue.person_phones GROUP BY phone_e164 HAVING count(*) > 20
    """,
    """
    INSERT INTO queue.unplaced_phones (phone_e164)
    SELECT phone_e164 FROM queue.placeholder_phones
    """,
    "TRUNCATE queue.rebuilt_people, queue.rebuilt_entries",
    """
    ALTER TABLE queue.rebuilt_people
        ADD COLUMN phones TEXT[] DEFAULT '{}' NOT NULL
    """,
    """
    ALTER TABLE queue.rebuilt_entries
        ADD COLUMN phones TEXT[] DEFAULT '{}' NOT NULL,
        ADD COLUMN lines TEXT[] DEFAULT '{}' NOT NULL,
        ADD COLUMN kept_until TIMESTAMP WITH TIME ZONE,
        ADD COLUMN last_spoken_at TIMESTAMP WITH TIME ZONE
    """,
    """
    ALTER TABLE queue.assignments
        ADD COLUMN lines TEXT[] DEFAULT '{}' NOT NULL,
        ADD COLUMN heartbeat_at TIMESTAMP WITH TIME ZONE,
        ADD COLUMN end_notes TEXT
    """,
    """
    UPDATE queue.assignments SET lines = ARRAY[phone_e164]
    WHERE phone_e164 IS NOT NULL
    """,
    "DROP INDEX queue.assignments_live_phone",
    """
    CREATE TABLE queue.live_lines (
        phone_e164 TEXT NOT NULL PRIMARY KEY,
        assignment_id UUID NOT NULL
            REFERENCES queue.assignments (assignment_id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX live_lines_assignment ON queue.live_lines (assignment_id)",
    """
    INSERT INTO queue.live_lines (phone_e164, assignment_id)
    SELECT phone_e164, assignment_id FROM queue.assignments
    WHERE ended_at IS NULL AND phone_e164 IS NOT NULL
    """,
    "ALTER TABLE queue.attempts ALTER COLUMN outcome DROP NOT NULL",
    "DROP INDEX queue.attempts_phone",
    """
    CREATE TABLE queue.attempt_lines (
        assignment_id UUID NOT NULL
            REFERENCES queue.attempts (assignment_id) ON DELETE CASCADE,
        phone_e164 TEXT NOT NULL,
        user_id BIGINT NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (assignment_id, phone_e164)
    )
    """,
    "CREATE INDEX attempt_lines_phone ON queue.attempt_lines (phone_e164, ended_at DESC)",
    """
    INSERT INTO queue.attempt_lines (assignment_id, phone_e164, user_id, ended_at)
    SELECT assignment_id, phone_e164, user_id, ended_at FROM queue.attempts
    WHERE phone_e164 IS NOT NULL
    """,
    "ALTER TABLE queue.suppressions ALTER COLUMN user_id DROP NOT NULL",
    "DROP INDEX queue.suppressions_standing_phone",
    """
    CREATE TABLE queue.suppression_lines (
        phone_e164 TEXT NOT NULL,
        suppression_id UUID NOT NULL
            REFERENCES queue.suppressions (suppression_id) ON DELETE CASCADE,
        PRIMARY KEY (phone_e164, suppression_id)
    )
    """,
    "CREATE INDEX suppression_lines_suppression ON queue.suppression_lines (suppression_id)",
    """
    INSERT INTO queue.suppression_lines (phone_e164, suppression_id)
    SELECT phone_e164, suppression_id FROM queue.suppressions WHERE phone_e164 IS NOT NULL
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
