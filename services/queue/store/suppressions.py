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
_BLOCK_OF_PHONE = f"""CASE
            WHEN EXISTS (SELECT FROM queue.suppressions AS standing
                WHERE standing.phone_e164 = given.phone_e164 AND standing.lifted_at IS NULL
                    AND standing.user_id <> given.user_id) THEN {int(PhoneBlock.DO_NOT_CONTACT)}
            WHEN EXISTS (SELECT FROM queue.listed_phones AS listed
                WHERE listed.phone_e164 = given.phone_e164) THEN {int(PhoneBlock.LISTED)} END"""
_STANDINGS = statement(
    f"""
    SELECT given.user_id, {_BLOCK_OF_PHONE},
        (SELECT max(call.ended_at) FROM queue.attempts AS call
            WHERE call.phone_e164 = given.phone_e164 AND call.user_id <> given.user_id
                AND call.ended_at > :called_since)
    FROM {unnested(_STANDING_COLUMNS, "given")}
    """  # noqa: S608 - our own names and numbers
)


async def mismatched(
    tx: Transaction, after: UserId | None, limit: int
) -> list[tuple[UserId, PhoneBlock | None]]:
    """Return people, by id, whose entry does not say what their number's standing is."""
    rows = await tx.execute(_MISMATCHED, {"after": after or 0, "limit": limit})
    return [(UserId(row[0]), None if row[1] is None else PhoneBlock(row[1])) for row in rows.all()]


_MISMATCHED = statement(
    f"""
    SELECT user_id, block FROM (
        SELECT given.user_id, given.phone_block, {_BLOCK_OF_PHONE} AS block
        FROM queue.entries AS given
        WHERE given.phone_e164 IS NOT NULL AND given.user_id > :after
    ) AS compared
    WHERE phone_block IS DISTINCT FROM block ORDER BY user_id LIMIT :limit
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
