"""Takes over what the code before 0005 writes while a release is rolled out.

That code writes one number, `phone_e164`; this code reads lines. To be deleted with those columns.
"""

from datetime import datetime

from services.queue.store.database import Transaction, statement


async def take_over(tx: Transaction, since: datetime) -> None:
    """Give objections and calls made since then their lines; their people are placed later."""
    await tx.execute(_OBJECTIONS, {"since": since})
    await tx.execute(_CALLS, {"since": since})


_OBJECTIONS = statement(
    """
    WITH taken AS (
        INSERT INTO queue.suppression_lines (phone_e164, suppression_id)
        SELECT phone_e164, suppression_id FROM queue.suppressions
        WHERE phone_e164 IS NOT NULL AND created_at > :since
        ON CONFLICT DO NOTHING RETURNING phone_e164
    )
    INSERT INTO queue.unplaced_phones (phone_e164)
    SELECT DISTINCT phone_e164 FROM taken ORDER BY phone_e164 ON CONFLICT DO NOTHING
    """
)
_CALLS = statement(
    """
    INSERT INTO queue.attempt_lines (assignment_id, phone_e164, user_id, ended_at)
    SELECT assignment_id, phone_e164, user_id, ended_at FROM queue.attempts
    WHERE phone_e164 IS NOT NULL AND ended_at > :since
    ON CONFLICT DO NOTHING
    """
)
