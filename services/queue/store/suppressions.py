"""Statements on suppressed people and phone numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, bindparam

from services.queue.domain.entries import PhoneStanding
from services.queue.domain.terms import PhoneBlock, UserId
from services.queue.store.database import (
    PHONES_GUARD,
    Transaction,
    arrays,
    statement,
    unnested,
)


@dataclass(frozen=True, slots=True)
class Suppression:
    """A person whom nobody calls, with the number they had then; standing until it is lifted."""

    suppression_id: UUID
    user_id: UserId
    phone_e164: str | None
    created_by: str
    created_at: datetime
    notes: str
    lifted_at: datetime | None = None
    lifted_by: str | None = None
    lift_notes: str | None = None


async def guard(tx: Transaction) -> None:
    """Keep everybody from getting a phone number until the end of the transaction.

    To be called before any row is locked.
    """
    await tx.execute(_GUARD)


_GUARD = statement("SELECT pg_advisory_xact_lock(:phones)").bindparams(
    bindparam("phones", PHONES_GUARD, BigInteger)
)


async def standings(
    tx: Transaction, people: Sequence[tuple[UserId, str]], called_since: datetime
) -> dict[UserId, PhoneStanding]:
    """Return what is known of each person's number, leaving out the person's own calls."""
    if not people:
        return {}
    values = arrays(_STANDING_COLUMNS, people) | {"called_since": called_since}
    rows = await tx.execute(_STANDINGS, values)
    return {
        UserId(row[0]): PhoneStanding(None if row[1] is None else PhoneBlock(row[1]), row[2])
        for row in rows.all()
    }


_STANDING_COLUMNS = (("user_id", "bigint"), ("phone_e164", "text"))
_STANDINGS = statement(
    f"""
    SELECT given.user_id,
        CASE WHEN EXISTS (SELECT FROM queue.suppressions AS standing
                WHERE standing.phone_e164 = given.phone_e164 AND standing.lifted_at IS NULL
                    AND standing.user_id <> given.user_id) THEN {int(PhoneBlock.DO_NOT_CONTACT)}
            WHEN EXISTS (SELECT FROM queue.listed_phones AS listed
                WHERE listed.phone_e164 = given.phone_e164) THEN {int(PhoneBlock.LISTED)} END,
        (SELECT max(call.ended_at) FROM queue.attempts AS call
            WHERE call.phone_e164 = given.phone_e164 AND call.user_id <> given.user_id
                AND call.ended_at > :called_since)
    FROM {unnested(_STANDING_COLUMNS, "given")}
    """  # noqa: S608 - our own names and numbers
)


async def insert(tx: Transaction, suppression: Suppression) -> bool:
    """Keep a suppression; returns False when one stands for that person already."""
    rows = await tx.execute(
        _INSERT,
        {
            "suppression_id": suppression.suppression_id,
            "user_id": suppression.user_id,
            "phone_e164": suppression.phone_e164,
            "created_by": suppression.created_by,
            "created_at": suppression.created_at,
            "notes": suppression.notes,
        },
    )
    return rows.one_or_none() is not None


_INSERT = statement(
    """
    INSERT INTO queue.suppressions
        (suppression_id, user_id, phone_e164, created_by, created_at, notes)
    VALUES (:suppression_id, :user_id, :phone_e164, :created_by, :created_at, :notes)
    ON CONFLICT (user_id) WHERE lifted_at IS NULL DO NOTHING
    RETURNING 1
    """
)


async def lift(
    tx: Transaction, user_id: UserId, actor_id: str, notes: str, now: datetime
) -> str | None:
    """Lift the person's suppression; returns the phone number it stood for, if any."""
    rows = await tx.execute(
        _LIFT, {"user_id": user_id, "actor_id": actor_id, "notes": notes, "now": now}
    )
    row = rows.one_or_none()
    return None if row is None else row[0]


_LIFT = statement(
    """
    UPDATE queue.suppressions SET lifted_at = :now, lifted_by = :actor_id, lift_notes = :notes
    WHERE user_id = :user_id AND lifted_at IS NULL
    RETURNING phone_e164
    """
)


async def page(
    tx: Transaction,
    user_id: UserId | None,
    include_lifted: bool,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Suppression]:
    """Return up to `limit` suppressions after a position, the latest first."""
    at, suppression_id = before or (None, None)
    rows = await tx.execute(
        _PAGE,
        {
            "user_id": user_id,
            "include_lifted": include_lifted,
            "at": at,
            "suppression_id": suppression_id,
            "limit": limit,
        },
    )
    return [_suppression_of(row) for row in rows.all()]


def _suppression_of(row: Sequence[Any]) -> Suppression:
    return Suppression(row[0], UserId(row[1]), *row[2:9])


_PAGE = statement(
    """
    SELECT suppression_id, user_id, phone_e164, created_by, created_at, notes, lifted_at,
        lifted_by, lift_notes
    FROM queue.suppressions
    WHERE (CAST(:user_id AS bigint) IS NULL OR user_id = :user_id)
        AND (CAST(:include_lifted AS boolean) OR lifted_at IS NULL)
        AND (CAST(:at AS timestamptz) IS NULL OR created_at < :at
            OR (created_at = :at AND suppression_id > CAST(:suppression_id AS uuid)))
    ORDER BY created_at DESC, suppression_id LIMIT :limit
    """
)


async def begin_list(tx: Transaction) -> None:
    """Make room for the numbers of a list, for as long as the transaction lasts."""
    await tx.execute(_BEGIN_LIST)


_BEGIN_LIST = statement(
    "CREATE TEMPORARY TABLE incoming_phones (phone_e164 text PRIMARY KEY) ON COMMIT DROP"
)


async def add_to_list(tx: Transaction, phones: Sequence[str]) -> None:
    """Take numbers in; repeats count once."""
    await tx.execute(_ADD_TO_LIST, {"phones": list(phones)})


_ADD_TO_LIST = statement(
    "INSERT INTO incoming_phones SELECT unnest(CAST(:phones AS text[])) ON CONFLICT DO NOTHING"
)


async def take_over_list(tx: Transaction, list_name: str, *, is_complete: bool) -> tuple[int, int]:
    """Make what has come in part of the list, or all of it; returns how many came and went.

    The numbers concerned are then those of `people_of_list`.
    """
    await tx.execute(_BEGIN_CHANGED)
    values = {"list_name": list_name}
    added = (await tx.execute(_ADDED, values)).scalar_one()
    removed = (await tx.execute(_REMOVED, values)).scalar_one() if is_complete else 0
    return added, removed


_BEGIN_CHANGED = statement("CREATE TEMPORARY TABLE changed_phones (phone_e164 text) ON COMMIT DROP")
_ADDED = statement(
    """
    WITH added AS (
        INSERT INTO queue.listed_phones (phone_e164, list_name)
        SELECT phone_e164, :list_name FROM incoming_phones
        ON CONFLICT DO NOTHING RETURNING phone_e164
    ), noted AS (
        INSERT INTO changed_phones SELECT phone_e164 FROM added
    )
    SELECT count(*) FROM added
    """
)
_REMOVED = statement(
    """
    WITH removed AS (
        DELETE FROM queue.listed_phones AS listed WHERE list_name = :list_name
            AND NOT EXISTS (SELECT FROM incoming_phones
                WHERE incoming_phones.phone_e164 = listed.phone_e164)
        RETURNING phone_e164
    ), noted AS (
        INSERT INTO changed_phones SELECT phone_e164 FROM removed
    )
    SELECT count(*) FROM removed
    """
)


async def people_of_list(tx: Transaction) -> list[UserId]:
    """Return the people whose number came on the list or went from it, by id."""
    return [UserId(row[0]) for row in (await tx.execute(_PEOPLE_OF_LIST)).all()]


_PEOPLE_OF_LIST = statement(
    "SELECT DISTINCT entry.user_id FROM queue.entries AS entry"
    " JOIN changed_phones USING (phone_e164) ORDER BY entry.user_id"
)
