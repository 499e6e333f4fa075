"""Statements on people's numbers, and on placeholders, which too many people have."""

from collections.abc import Iterable, Sequence

from services.queue.store.database import Transaction, statement, unnested
from services.queue.types import PhoneBlock, UserId

Pairs = Iterable[tuple[UserId, str]]

PAIR_COLUMNS = (("user_id", "bigint"), ("phone_e164", "text"))


async def settle(tx: Transaction, phones: Sequence[str], placeholder_people: int) -> None:
    """Decide anew whether these numbers are placeholders."""
    await tx.execute(_SETTLE, {"phones": list(phones), "limit": placeholder_people})


# Parts of a statement that record which numbers of `counted` are placeholders.
_RECORDED = """began AS (
        INSERT INTO queue.placeholder_phones (phone_e164)
        SELECT phone_e164 FROM counted WHERE is_placeholder ORDER BY phone_e164
        ON CONFLICT DO NOTHING RETURNING phone_e164
    ), ended AS (
        DELETE FROM queue.placeholder_phones AS former USING counted
        WHERE former.phone_e164 = counted.phone_e164 AND NOT counted.is_placeholder
        RETURNING former.phone_e164
    ), unplaced AS (
        INSERT INTO queue.unplaced_phones (phone_e164)
        SELECT phone_e164 FROM began UNION SELECT phone_e164 FROM ended ORDER BY phone_e164
        ON CONFLICT DO NOTHING
    )"""
_SETTLE = statement(
    f"""
    WITH counted AS MATERIALIZED (
        SELECT given.phone_e164, (SELECT count(*) FROM (
            SELECT FROM queue.person_phones AS kept WHERE kept.phone_e164 = given.phone_e164
            LIMIT CAST(:limit AS bigint) + 1) AS few) > CAST(:limit AS bigint) AS is_placeholder
        FROM unnest(CAST(:phones AS text[])) AS given(phone_e164)
    ), {_RECORDED}
    SELECT 1
    """  # noqa: S608 - our own names
)
# Parts of a statement: takes the pairs of `removed_*` away, adds those of `number_*`, and decides
# anew whether `counted_phones` are placeholders. Every part sees the numbers as they were, so those
# that came and went are counted apart.
RENUMBERED = f"""removed AS (
        DELETE FROM queue.person_phones AS kept
        USING {unnested(PAIR_COLUMNS, "given", parameters="removed")}
        WHERE kept.phone_e164 = given.phone_e164 AND kept.user_id = given.user_id
        RETURNING kept.phone_e164
    ), added AS (
        INSERT INTO queue.person_phones (phone_e164, user_id)
        SELECT phone_e164, user_id FROM {unnested(PAIR_COLUMNS, "given", parameters="number")}
        ORDER BY phone_e164, user_id ON CONFLICT DO NOTHING
        RETURNING phone_e164
    ), differences AS (
        SELECT phone_e164, sum(went) AS went, sum(came) AS came FROM (
            SELECT phone_e164, 1 AS went, 0 AS came FROM removed
            UNION ALL
            SELECT phone_e164, 0, 1 FROM added
        ) AS difference GROUP BY phone_e164
    ), counted AS MATERIALIZED (
        SELECT phone_e164, (SELECT count(*) FROM (
            SELECT FROM queue.person_phones AS kept WHERE kept.phone_e164 = given.phone_e164
            LIMIT CAST(:limit AS bigint) + 1 + coalesce(went, 0)) AS few)
            - coalesce(went, 0) + coalesce(came, 0) > CAST(:limit AS bigint) AS is_placeholder
        FROM unnest(CAST(:counted_phones AS text[])) AS given(phone_e164)
        LEFT JOIN differences USING (phone_e164)
    ), {_RECORDED}"""  # noqa: S608 - our own names
IS_COUNTED_PLACEHOLDER = "{phone} IN (SELECT phone_e164 FROM counted WHERE is_placeholder)"


async def unsettled(tx: Transaction, placeholder_people: int, limit: int) -> list[str]:
    """Return numbers that are wrongly recorded as placeholders, or wrongly not.

    Two transactions that each add a person to one number do not see each other's row.
    """
    rows = await tx.execute(_UNSETTLED, {"people": placeholder_people, "limit": limit})
    return [row[0] for row in rows.all()]


_UNSETTLED = statement(
    """
    SELECT coalesce(shared.phone_e164, placeholder.phone_e164)
    FROM (SELECT phone_e164 FROM queue.person_phones GROUP BY phone_e164
        HAVING count(*) > :people) AS shared
    FULL JOIN queue.placeholder_phones AS placeholder
        ON placeholder.phone_e164 = shared.phone_e164
    WHERE shared.phone_e164 IS NULL OR placeholder.phone_e164 IS NULL
    ORDER BY 1 LIMIT :limit
    """
)


async def has_unplaced(tx: Transaction) -> bool:
    """Return whether there is a number whose people are still to be placed."""
    return bool((await tx.execute(_HAS_UNPLACED)).scalar_one())


_HAS_UNPLACED = statement("SELECT EXISTS (SELECT FROM queue.unplaced_phones)")


async def lock_unplaced(tx: Transaction) -> str | None:
    """Lock and return a number whose people are still to be placed; None when there is none."""
    row = (await tx.execute(_LOCK_UNPLACED)).one_or_none()
    return None if row is None else str(row[0])


_LOCK_UNPLACED = statement(
    "SELECT phone_e164 FROM queue.unplaced_phones LIMIT 1 FOR UPDATE SKIP LOCKED"
)


async def misplaced(tx: Transaction, phone: str, limit: int) -> list[UserId]:
    """Return people whose entries disagree with the phone status of the number.

    Their lines do not agree with whether it is a placeholder, or an objection of another person to
    it is missing.
    """
    rows = await tx.execute(_MISPLACED, {"phone": phone, "limit": limit})
    return [UserId(row[0]) for row in rows.all()]


_OBJECTED = int(PhoneBlock.DO_NOT_CONTACT)
_MISPLACED = statement(
    f"""
    SELECT entry.user_id FROM queue.person_phones AS kept
    JOIN queue.entries AS entry USING (user_id)
    CROSS JOIN (SELECT EXISTS (SELECT FROM queue.placeholder_phones AS placeholder
        WHERE placeholder.phone_e164 = :phone) AS is_placeholder) AS phone
    WHERE kept.phone_e164 = :phone AND (
        (kept.phone_e164 = ANY(entry.lines)) = phone.is_placeholder
        OR NOT phone.is_placeholder AND coalesce(entry.phone_block, 0) & {_OBJECTED} = 0
        AND EXISTS (SELECT FROM queue.suppression_lines AS line
            JOIN queue.suppressions AS active USING (suppression_id)
            WHERE line.phone_e164 = :phone AND active.lifted_at IS NULL
                AND active.user_id IS DISTINCT FROM entry.user_id))
    ORDER BY entry.user_id LIMIT :limit
    """  # noqa: S608 - our own number
)


async def delete_unplaced(tx: Transaction, phone: str) -> None:
    """Note that the people of a number are placed."""
    await tx.execute(_DELETE_UNPLACED, {"phone": phone})


_DELETE_UNPLACED = statement("DELETE FROM queue.unplaced_phones WHERE phone_e164 = :phone")


async def people_with(tx: Transaction, phone: str, limit: int) -> list[UserId]:
    """Return people who have the number in their phone field, the newest first."""
    rows = await tx.execute(_WITH, {"phone": phone, "limit": limit})
    return [UserId(row[0]) for row in rows.all()]


_WITH = statement(
    "SELECT user_id FROM queue.person_phones WHERE phone_e164 = :phone"
    " ORDER BY user_id DESC LIMIT :limit"
)
