"""Statements on callbacks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.queue.domain.callbacks import Callback
from services.queue.store.database import Transaction, statement
from services.queue.types import AgentId, CallbackState, Reason, State, UserId

_COLUMNS = (
    "callback_id, user_id, scheduled_for, preferred_agent_id, state, misses, created_by,"
    " created_at, notes, closed_at, closed_reason"
)


def _callback_of(row: Sequence[Any]) -> Callback:
    return Callback(row[0], UserId(row[1]), row[2], row[3], CallbackState(row[4]), *row[5:11])


async def insert(tx: Transaction, callback: Callback) -> None:
    """Keep a new callback; its person's entry is locked and has no open one."""
    await tx.execute(_INSERT, _values(callback))


_INSERT = statement(
    f"""
    INSERT INTO queue.callbacks ({_COLUMNS}) VALUES (:callback_id, :user_id, :scheduled_for,
        :preferred_agent_id, :state, :misses, :created_by, :created_at, :notes, :closed_at,
        :closed_reason)
    """  # noqa: S608 - our own column names
)


async def update(tx: Transaction, callback: Callback) -> None:
    """Write a callback whose person's entry is locked."""
    await tx.execute(_UPDATE, _values(callback))


_UPDATE = statement(
    """
    UPDATE queue.callbacks SET scheduled_for = :scheduled_for, state = :state, misses = :misses,
        preferred_agent_id = :preferred_agent_id, closed_at = :closed_at,
        closed_reason = :closed_reason
    WHERE callback_id = :callback_id
    """
)


async def find(tx: Transaction, callback_id: UUID) -> Callback | None:
    """Return a callback."""
    row = (await tx.execute(_FIND, {"callback_id": callback_id})).one_or_none()
    return None if row is None else _callback_of(row)


_FIND = statement(
    f"SELECT {_COLUMNS} FROM queue.callbacks"  # noqa: S608 - our own column names
    " WHERE callback_id = :callback_id"
)


async def open_of(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Callback]:
    """Return the open callbacks of these people."""
    rows = await tx.execute(_OPEN_OF, {"user_ids": list(user_ids)})
    return {it.user_id: it for it in map(_callback_of, rows.all())}


_OPEN_OF = statement(
    f"SELECT {_COLUMNS} FROM queue.callbacks"  # noqa: S608 - our own column names
    f" WHERE user_id = ANY(CAST(:user_ids AS bigint[])) AND state = {int(CallbackState.OPEN)}"
)


async def due_and_invalid(tx: Transaction, now: datetime, limit: int) -> list[UserId]:
    """Return people whose callback is due and who are not to be called; nothing is locked.

    A number that is missing may come back: such a callback stays open and due.
    """
    rows = await tx.execute(_DUE_AND_INVALID, {"now": now, "limit": limit})
    return [UserId(row[0]) for row in rows.all()]


_DUE_AND_INVALID = statement(
    f"""
    SELECT callback.user_id FROM queue.callbacks AS callback
    JOIN queue.entries AS entry USING (user_id)
    WHERE callback.state = {int(CallbackState.OPEN)} AND callback.scheduled_for <= :now
        AND entry.state IN ({int(State.SUPPRESSED)}, {int(State.OUT)})
        AND entry.reason <> '{Reason.NO_CALLABLE_NUMBER}'
    ORDER BY callback.user_id LIMIT :limit
    """  # noqa: S608 - our own numbers
)


async def overdue(
    tx: Transaction, due_before: datetime, *, is_usual_zone_open: bool, open_zones: Sequence[str]
) -> int:
    """Return how many open callbacks were due by then, of people who could be handed out now.

    Left out are people in a call, people who may not be phoned, and people whom caps or shared
    numbers held back by then. People of the usual zone count if `is_usual_zone_open`, others
    if their zone is in `open_zones`. Reads the index of open callbacks up to that moment.
    """
    values = {"due_before": due_before, "usual": is_usual_zone_open, "zones": list(open_zones)}
    return int((await tx.execute(OVERDUE, values)).scalar_one())


# WAITING ones that are due too: no replica promotes them then, which is what is to be found out.
OVERDUE = statement(
    f"""
    SELECT count(*) FROM queue.callbacks AS callback
    JOIN queue.entries AS entry USING (user_id)
    WHERE callback.state = {int(CallbackState.OPEN)} AND callback.scheduled_for <= :due_before
        AND entry.state IN ({int(State.READY)}, {int(State.WAITING)}, {int(State.RESERVED)})
        AND (entry.due_at IS NULL OR entry.due_at <= :due_before)
        AND CASE WHEN entry.time_zone IS NULL THEN CAST(:usual AS boolean)
            ELSE entry.time_zone = ANY(CAST(:zones AS text[])) END
    """  # noqa: S608 - our own numbers
)


async def page(
    tx: Transaction,
    state: CallbackState,
    preferred_agent_id: AgentId | None,
    user_id: UserId | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Callback]:
    """Return up to `limit` callbacks in a state after a position, the earliest first."""
    at, callback_id = after or (None, None)
    rows = await tx.execute(
        _PAGE,
        {
            "state": state,
            "preferred_agent_id": preferred_agent_id,
            "user_id": user_id,
            "at": at,
            "callback_id": callback_id,
            "limit": limit,
        },
    )
    return [_callback_of(row) for row in rows.all()]


_PAGE = statement(
    f"""
    SELECT {_COLUMNS} FROM queue.callbacks
    WHERE state = :state
        AND (CAST(:preferred_agent_id AS text) IS NULL OR preferred_agent_id = :preferred_agent_id)
        AND (CAST(:user_id AS bigint) IS NULL OR user_id = :user_id)
        AND (CAST(:at AS timestamptz) IS NULL
            OR (scheduled_for, callback_id) > (:at, CAST(:callback_id AS uuid)))
    ORDER BY scheduled_for, callback_id LIMIT :limit
    """  # noqa: S608 - our own column names
)


def _values(callback: Callback) -> dict[str, Any]:
    return {name.strip(): getattr(callback, name.strip()) for name in _COLUMNS.split(",")}
