"""Statements on objections."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, bindparam

from services.queue.store.database import PHONES_GUARD, Transaction, statement
from services.queue.types import ContactBlock, UserId


@dataclass(frozen=True, slots=True)
class Suppression:
    """An objection, active until it is lifted.

    It is a person's, with the numbers that the person had then, or it is against one bare number.
    `kind` is one of `OBJECTIONS`; a person has one active objection of each kind at most.
    """

    suppression_id: UUID
    user_id: UserId | None
    lines: Sequence[str]
    created_by: str
    created_at: datetime
    notes: str
    kind: ContactBlock = ContactBlock.DO_NOT_CONTACT
    lifted_at: datetime | None = None
    lifted_by: str | None = None
    lift_notes: str | None = None
    restated_at: datetime | None = None


async def guard(tx: Transaction) -> None:
    """Keep other transactions from giving people a phone number until the end of this one.

    To be called before any row is locked.
    """
    await tx.execute(_GUARD)


async def guard_shared(tx: Transaction) -> None:
    """Keep the phone status of numbers as it is until the end of the transaction.

    For transactions that copy it into entries; to be called before any row is locked.
    """
    await tx.execute(_GUARD_SHARED)


_PHONES = bindparam("phones", PHONES_GUARD, BigInteger)
_GUARD = statement("SELECT pg_advisory_xact_lock(:phones)").bindparams(_PHONES)
_GUARD_SHARED = statement("SELECT pg_advisory_xact_lock_shared(:phones)").bindparams(_PHONES)


async def insert(tx: Transaction, made: Suppression) -> UUID | None:
    """Keep an objection; returns the id of the one that is active already, None for none.

    One that is active is restated. The caller holds the guard.
    """
    values = {
        "suppression_id": made.suppression_id,
        "user_id": made.user_id,
        "lines": list(made.lines),
        "created_by": made.created_by,
        "created_at": made.created_at,
        "notes": made.notes,
        "kind": int(made.kind),
    }
    before = (await tx.execute(_FIND_ACTIVE, values)).scalar_one_or_none()
    if before is None:
        await tx.execute(_INSERT, values)
    else:
        await tx.execute(_RESTATE, {"suppression_id": before, "at": made.created_at})
    # The present numbers are added to those of an active objection.
    await tx.execute(_INSERT_LINES, values | {"suppression_id": before or made.suppression_id})
    return before


_FIND_ACTIVE = statement(
    """
    SELECT active.suppression_id FROM queue.suppressions AS active
    WHERE active.lifted_at IS NULL AND CASE
        WHEN CAST(:user_id AS bigint) IS NOT NULL
            THEN active.user_id = :user_id AND active.kind = :kind
        ELSE active.user_id IS NULL AND EXISTS (SELECT FROM queue.suppression_lines AS line
            WHERE line.suppression_id = active.suppression_id
                AND line.phone_e164 = ANY(CAST(:lines AS text[])))
    END LIMIT 1
    """
)
_INSERT = statement(
    """
    INSERT INTO queue.suppressions (suppression_id, user_id, created_by, created_at, notes, kind)
    VALUES (:suppression_id, :user_id, :created_by, :created_at, :notes, :kind)
    """
)
_RESTATE = statement(
    "UPDATE queue.suppressions SET restated_at = :at WHERE suppression_id = :suppression_id"
)
_INSERT_LINES = statement(
    """
    INSERT INTO queue.suppression_lines (phone_e164, suppression_id)
    SELECT phone_e164, :suppression_id FROM unnest(CAST(:lines AS text[])) AS given(phone_e164)
    ON CONFLICT DO NOTHING
    """
)


async def cover_numbers(tx: Transaction, user_ids: Sequence[UserId]) -> None:
    """Add their people's numbers to active objections without numbers.

    Such objections were recorded before their people were known. People who share a number are
    placed later.
    """
    await tx.execute(_COVER_NUMBERS, {"user_ids": list(user_ids)})


_COVER_NUMBERS = statement(
    """
    WITH covered AS (
        INSERT INTO queue.suppression_lines (phone_e164, suppression_id)
        SELECT unnest(entry.phones), active.suppression_id FROM queue.entries AS entry
        JOIN queue.suppressions AS active USING (user_id)
        WHERE entry.user_id = ANY(CAST(:user_ids AS bigint[])) AND active.lifted_at IS NULL
            AND NOT EXISTS (SELECT FROM queue.suppression_lines AS line
                WHERE line.suppression_id = active.suppression_id)
        ON CONFLICT DO NOTHING RETURNING phone_e164
    )
    INSERT INTO queue.unplaced_phones (phone_e164)
    SELECT DISTINCT phone_e164 FROM covered ORDER BY phone_e164 ON CONFLICT DO NOTHING
    """
)


async def active_of(tx: Transaction, user_id: UserId) -> dict[ContactBlock, Suppression]:
    """Return the person's active objections by kind."""
    rows = await tx.execute(_ACTIVE_OF, {"user_id": user_id})
    return {it.kind: it for it in map(_suppression_of, rows.all())}


async def find(tx: Transaction, suppression_id: UUID) -> Suppression | None:
    """Return an objection, lifted or not."""
    row = (await tx.execute(_FIND, {"suppression_id": suppression_id})).one_or_none()
    return None if row is None else _suppression_of(row)


async def lift(
    tx: Transaction, suppression_id: UUID, actor_id: str, notes: str, now: datetime
) -> None:
    """Lift an objection; one that is lifted already stays as it is."""
    values = {
        "suppression_id": suppression_id, "actor_id": actor_id, "notes": notes, "now": now,
    }  # fmt: skip
    await tx.execute(_LIFT, values)


_LIFT = statement(
    """
    UPDATE queue.suppressions SET lifted_at = :now, lifted_by = :actor_id, lift_notes = :notes
    WHERE suppression_id = :suppression_id AND lifted_at IS NULL
    """
)


async def page(
    tx: Transaction,
    user_id: UserId | None,
    phone: str | None,
    include_lifted: bool,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Suppression]:
    """Return up to `limit` objections after a position, the latest first."""
    at, suppression_id = before or (None, None)
    rows = await tx.execute(
        _PAGE,
        {
            "user_id": user_id,
            "phone": phone,
            "include_lifted": include_lifted,
            "at": at,
            "suppression_id": suppression_id,
            "limit": limit,
        },
    )
    return [_suppression_of(row) for row in rows.all()]


def _suppression_of(row: Sequence[Any]) -> Suppression:
    return Suppression(
        suppression_id=row[0],
        user_id=None if row[1] is None else UserId(row[1]),
        lines=tuple(row[2]),
        created_by=row[3],
        created_at=row[4],
        notes=row[5],
        kind=ContactBlock(row[6]),
        lifted_at=row[7],
        lifted_by=row[8],
        lift_notes=row[9],
        restated_at=row[10],
    )


_SELECT = """
    SELECT made.suppression_id, made.user_id, ARRAY(SELECT line.phone_e164
            FROM queue.suppression_lines AS line
            WHERE line.suppression_id = made.suppression_id ORDER BY line.phone_e164),
        made.created_by, made.created_at, made.notes, made.kind, made.lifted_at, made.lifted_by,
        made.lift_notes, made.restated_at
    FROM queue.suppressions AS made
"""
_ACTIVE_OF = statement(f"{_SELECT} WHERE made.user_id = :user_id AND made.lifted_at IS NULL")
_FIND = statement(f"{_SELECT} WHERE made.suppression_id = :suppression_id")
_PAGE = statement(
    f"""
    {_SELECT}
    WHERE (CAST(:user_id AS bigint) IS NULL OR made.user_id = :user_id)
        AND (CAST(:phone AS text) IS NULL OR made.suppression_id IN (
            SELECT suppression_id FROM queue.suppression_lines WHERE phone_e164 = :phone))
        AND (CAST(:include_lifted AS boolean) OR made.lifted_at IS NULL)
        AND (CAST(:at AS timestamptz) IS NULL OR made.created_at < :at
            OR (made.created_at = :at AND made.suppression_id > CAST(:suppression_id AS uuid)))
    ORDER BY made.created_at DESC, made.suppression_id LIMIT :limit
    """  # noqa: S608 - our own column names
)
