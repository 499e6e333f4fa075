"""Statements on people's numbers, and on placeholders, which too many people have."""

from collections.abc import Iterable, Sequence

from services.queue.store.database import Transaction, arrays, statement, unnested
from services.queue.types import PhoneBlock, UserId

Pairs = Iterable[tuple[UserId, str]]

_PAIR_COLUMNS = (("user_id", "bigint"), ("phone_e164", "text"))


async def change(tx: Transaction, removed: Pairs, added: Pairs, placeholder_people: int) -> None:
    """Note the numbers that locked people no longer have, and those that they have now.

    A number becomes a placeholder with more than `placeholder_people` people, and is none any
    more with fewer; in both cases its people are still to be placed.
    """
    pairs = {"removed": sorted(removed), "added": sorted(added)}
    phones = sorted({phone for it in pairs.values() for _, phone in it})
    if not phones:
        return
    if pairs["removed"]:
        await tx.execute(_REMOVE, arrays(_PAIR_COLUMNS, pairs["removed"]))
    if pairs["added"]:
        await tx.execute(_ADD, arrays(_PAIR_COLUMNS, pairs["added"]))
    await settle(tx, phones, placeholder_people)


_REMOVE = statement(
    f"""
    DELETE FROM queue.person_phones AS kept USING {unnested(_PAIR_COLUMNS, "given")}
    WHERE kept.phone_e164 = given.phone_e164 AND kept.user_id = given.user_id
    """  # noqa: S608 - our own column names
)
_ADD = statement(
    f"""
    INSERT INTO queue.person_phones (phone_e164, user_id)
    SELECT phone_e164, user_id FROM {unnested(_PAIR_COLUMNS, "given")}
    ORDER BY phone_e164, user_id ON CONFLICT DO NOTHING
    """  # noqa: S608 - our own column names
)


async def settle(tx: Transaction, phones: Sequence[str], placeholder_people: int) -> None:
    """Decide anew whether these numbers are placeholders."""
    await tx.execute(_SETTLE, {"phones": list(phones), "limit": placeholder_people})


_SETTLE = statement(
    """
    WITH counted AS MATERIALIZED (
        SELECT given.phone_e164, (SELECT count(*) FROM (
            SELECT FROM queue.person_phones AS kept WHERE kept.phone_e164 = given.phone_e164
            LIMIT CAST(:limit AS bigint) + 1) AS few) > CAST(:limit AS bigint) AS is_placeholder
        FROM unnest(CAST(:phones AS text[])) AS given(phone_e164)
    ), began AS (
        INSERT INTO queue.placeholder_phones (phone_e164)
        SELECT phone_e164 FROM counted WHERE is_placeholder ORDER BY phone_e164
        ON CONFLICT DO NOTHING RETURNING phone_e164
    ), ended AS (
        DELETE FROM queue.placeholder_phones AS former USING counted
        WHERE former.phone_e164 = counted.phone_e164 AND NOT counted.is_placeholder
        RETURNING former.phone_e164
    )
    INSERT INTO queue.unplaced_phones (phone_e164)
    SELECT phone_e164 FROM began UNION SELECT phone_e164 FROM ended ORDER BY phone_e164
    ON CONFLICT DO NOTHING
    """
)


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
