"""Statements on pauses."""

from datetime import datetime
from typing import Any
from uuid import UUID

from services.queue.domain.pauses import QueuePause
from services.queue.store.database import Transaction, statement
from services.queue.types import Queue

_COLUMNS = "pause_id, queue, begins_at, ends_at, reason, created_by, created_at, ended_by"


def is_paused(queue: str, now: str) -> str:
    """Return the SQL of whether a pause of the queue is in force; read once a statement.

    The values come from subqueries, so that PostgreSQL expects no better plan for known ones: else
    it would plan each execution of the statement anew, which takes longer than the statement.
    """
    moment, number = f"(SELECT CAST({now} AS timestamptz))", f"(SELECT CAST({queue} AS smallint))"
    return (
        "EXISTS (SELECT FROM queue.pauses AS pause"
        f" WHERE pause.ends_at > {moment} AND pause.begins_at <= {moment}"
        f" AND (pause.queue IS NULL OR pause.queue = {number}))"
    )


async def insert(tx: Transaction, pause: QueuePause) -> None:
    """Record a pause."""
    values = {name: getattr(pause, name) for name in _COLUMNS.split(", ")}
    await tx.execute(_INSERT, values)


_INSERT = statement(
    f"INSERT INTO queue.pauses ({_COLUMNS}) VALUES ("  # noqa: S608 - our own column names
    + ", ".join(f":{name}" for name in _COLUMNS.split(", "))
    + ")"
)


async def lock(tx: Transaction, pause_id: UUID) -> QueuePause | None:
    """Return a pause, locked."""
    row = (await tx.execute(_LOCK, {"pause_id": pause_id})).one_or_none()
    return None if row is None else _pause_of(row)


_LOCK = statement(
    f"SELECT {_COLUMNS} FROM queue.pauses"  # noqa: S608 - our own column names
    " WHERE pause_id = :pause_id FOR UPDATE"
)


async def end(tx: Transaction, pause_id: UUID, ends_at: datetime, ended_by: str) -> None:
    """Set when a pause ends, and by which actor."""
    await tx.execute(_END, {"pause_id": pause_id, "ends_at": ends_at, "ended_by": ended_by})


_END = statement(
    "UPDATE queue.pauses SET ends_at = :ends_at, ended_by = :ended_by WHERE pause_id = :pause_id"
)


async def not_over(tx: Transaction, now: datetime) -> list[QueuePause]:
    """Return the pauses in force and those that lie ahead, the earliest first."""
    rows = await tx.execute(_NOT_OVER, {"now": now})
    return [_pause_of(row) for row in rows.all()]


_NOT_OVER = statement(
    f"SELECT {_COLUMNS} FROM queue.pauses"  # noqa: S608 - our own column names
    " WHERE ends_at > :now AND ends_at > begins_at ORDER BY begins_at, pause_id"
)


async def in_force(tx: Transaction, now: datetime) -> list[QueuePause]:
    """Return the pauses in force, the earliest first."""
    return [it for it in await not_over(tx, now) if it.is_in_force(now)]


def _pause_of(row: Any) -> QueuePause:
    pause_id, queue, *others = row
    return QueuePause(pause_id, None if queue is None else Queue(queue), *others)
