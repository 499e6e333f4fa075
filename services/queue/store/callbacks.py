"""Statements on callbacks."""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from services.queue.domain.callbacks import Callback
from services.queue.store.database import Transaction, names, statement
from services.queue.store.writing import Write, write
from services.queue.types import AgentId, CallbackState, Reason, State, UserId

_TYPED_COLUMNS = (
    ("callback_id", "uuid"),
    ("user_id", "bigint"),
    ("scheduled_for", "timestamptz"),
    ("preferred_agent_id", "text"),
    ("state", "smallint"),
    ("misses", "smallint"),
    ("created_by", "text"),
    ("created_at", "timestamptz"),
    ("notes", "text"),
    ("closed_at", "timestamptz"),
    ("closed_reason", "text"),
)
_COLUMNS = names(_TYPED_COLUMNS)
# Whether the callback called `name` is the open one of the person `:user_id`.
IS_OPEN_OF = f"{{name}}.user_id = :user_id AND {{name}}.state = {int(CallbackState.OPEN)}"


def columns_of(alias: str) -> str:
    """Return the columns that `callback_of` reads."""
    return ", ".join(f"{alias}.{name}" for name, _ in _TYPED_COLUMNS)


_values = attrgetter(*(name for name, _ in _TYPED_COLUMNS))


def callback_of(row: Sequence[Any]) -> Callback:
    """Return the callback in a row that begins with `columns_of`."""
    return Callback(row[0], UserId(row[1]), row[2], row[3], CallbackState(row[4]), *row[5:11])


async def update(tx: Transaction, callback: Callback) -> None:
    """Write a callback whose person's entry is locked."""
    await write(tx, _UPDATE, [_values(callback)])


_UPDATE = Write(
    "callbacks_changed",
    _TYPED_COLUMNS,
    """
    UPDATE queue.callbacks AS callback
    SET scheduled_for = given.scheduled_for, state = given.state, misses = given.misses,
        preferred_agent_id = given.preferred_agent_id, closed_at = given.closed_at,
        closed_reason = given.closed_reason
    FROM {given} WHERE callback.callback_id = given.callback_id
    RETURNING callback.callback_id
    """,
)


async def insert(tx: Transaction, callback: Callback) -> None:
    """Keep a new callback; its person's entry is locked and has no open one.

    One that is written together with it may be the one that was open.
    """
    await write(tx, _INSERT, [_values(callback)])


# Counts the others, so that these have ended before the index of open ones is asked.
_INSERT = Write(
    "callbacks_made",
    _TYPED_COLUMNS,
    f"""
    INSERT INTO queue.callbacks ({_COLUMNS}) SELECT {_COLUMNS} FROM {{given}}
    WHERE (SELECT count(*) FROM {_UPDATE.name}) >= 0
    """,  # noqa: S608 - our own column names
    after=(_UPDATE,),
)


async def find(tx: Transaction, callback_id: UUID) -> Callback | None:
    """Return a callback."""
    row = (await tx.execute(_FIND, {"callback_id": callback_id})).one_or_none()
    return None if row is None else callback_of(row)


_FIND = statement(
    f"SELECT {_COLUMNS} FROM queue.callbacks"  # noqa: S608 - our own column names
    " WHERE callback_id = :callback_id"
)


async def open_of(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Callback]:
    """Return the open callbacks of these people."""
    rows = await tx.execute(_OPEN_OF, {"user_ids": list(user_ids)})
    return {it.user_id: it for it in map(callback_of, rows.all())}


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


async def open_by_agent(
    tx: Transaction, agent_id: AgentId | None = None, *, without: UserId | None = None
) -> dict[AgentId, int]:
    """Return how many open callbacks prefer each agent, without that of one person."""
    values = {"agent_id": agent_id, "without": without}
    return {AgentId(row[0]): row[1] for row in (await tx.execute(_OPEN_BY_AGENT, values)).all()}


_OPEN_BY_AGENT = statement(
    f"""
    SELECT preferred_agent_id, count(*) FROM queue.callbacks
    WHERE state = {CallbackState.OPEN:d} AND preferred_agent_id IS NOT NULL
        AND (CAST(:agent_id AS text) IS NULL OR preferred_agent_id = :agent_id)
        AND (CAST(:without AS bigint) IS NULL OR user_id <> :without)
    GROUP BY preferred_agent_id
    """  # noqa: S608 - our own number
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
    return [callback_of(row) for row in rows.all()]


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
