"""Notes of people, and what is kept of a person in the order in which it happened."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.queue.store.database import Transaction, statement
from services.queue.types import HistoryKind, UserId


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened; `details` has ids, moments and the numbers of enums by name."""

    at: datetime
    entry_id: UUID
    kind: HistoryKind
    actor_id: str
    notes: str
    details: Mapping[str, Any]


async def add_note(
    tx: Transaction, note_id: UUID, user_id: UserId, actor_id: str, text: str, now: datetime
) -> None:
    """Keep a note."""
    values = {
        "note_id": note_id,
        "user_id": user_id,
        "actor_id": actor_id,
        "text": text,
        "now": now,
    }
    await tx.execute(_ADD_NOTE, values)


_ADD_NOTE = statement(
    "INSERT INTO queue.notes (note_id, user_id, noted_by, noted_at, text)"
    " VALUES (:note_id, :user_id, :actor_id, :now, :text)"
)


async def page(
    tx: Transaction, user_id: UserId, before: tuple[datetime, UUID] | None, limit: int
) -> list[HistoryEntry]:
    """Return up to `limit` entries of a person after a position, the latest first."""
    at, entry_id = before or (None, None)
    values = {"user_id": user_id, "at": at, "entry_id": entry_id, "limit": limit}
    return [
        HistoryEntry(at, entry_id, HistoryKind(kind), actor_id or "", notes or "", details)
        for at, entry_id, kind, actor_id, notes, details in (await tx.execute(_PAGE, values)).all()
    ]


def _kind(
    kind: HistoryKind,
    table: str,
    at: str,
    key: str,
    actor_id: str,
    notes: str,
    details: str,
) -> str:
    """Return the SQL of the entries that are made of a table's rows."""
    return f"""
        SELECT {at} AS at, CAST(md5({int(kind)} || ' ' || {key}) AS uuid) AS entry_id,
            {int(kind)} AS kind, {actor_id} AS actor_id, {notes} AS notes,
            jsonb_strip_nulls(jsonb_build_object({details})) AS details
        FROM queue.{table} WHERE user_id = :user_id AND {at} IS NOT NULL
    """  # noqa: S608 - our own names and numbers


_KINDS = (
    _kind(
        HistoryKind.CALL,
        "attempts",
        "ended_at",
        "assignment_id",
        "agent_id",
        "notes",
        "'assignment_id', assignment_id, 'queue', queue, 'outcome', outcome,"
        " 'disposition', disposition, 'callback_at', callback_at",
    ),
    _kind(
        HistoryKind.NOTE, "notes", "noted_at", "note_id", "noted_by", "text", "'note_id', note_id"
    ),
    _kind(
        HistoryKind.CALLBACK_AGREED,
        "callbacks",
        "created_at",
        "callback_id",
        "created_by",
        "notes",
        "'callback_id', callback_id, 'scheduled_for', scheduled_for,"
        " 'preferred_agent_id', preferred_agent_id",
    ),
    _kind(
        HistoryKind.CALLBACK_ENDED,
        "callbacks",
        "closed_at",
        "callback_id",
        "''",
        "''",
        "'callback_id', callback_id, 'callback_state', state, 'reason', closed_reason",
    ),
    _kind(
        HistoryKind.OBJECTION,
        "suppressions",
        "created_at",
        "suppression_id",
        "created_by",
        "notes",
        "'suppression_id', suppression_id, 'objection', kind, 'restated_at', restated_at",
    ),
    _kind(
        HistoryKind.OBJECTION_LIFTED,
        "suppressions",
        "lifted_at",
        "suppression_id",
        "lifted_by",
        "lift_notes",
        "'suppression_id', suppression_id, 'objection', kind",
    ),
    _kind(
        HistoryKind.COMPLAINT_OPENED,
        "complaints",
        "opened_at",
        "user_id || ' opened'",
        "noted_by",
        "''",
        "",
    ),
    _kind(
        HistoryKind.COMPLAINT_CLOSED,
        "complaints",
        "closed_at",
        "user_id || ' closed'",
        "''",
        "''",
        "",
    ),
    _kind(
        HistoryKind.AMENDMENT,
        "amendments",
        "amended_at",
        "amendment_id",
        "actor_id",
        "reason",
        "'assignment_id', assignment_id, 'former_outcome', outcome, 'former_notes', notes",
    ),
    _kind(
        HistoryKind.CONVERSION,
        "conversions",
        "recorded_at",
        "case_number",
        "agent_id",
        "''",
        "'queue', queue, 'conversion', conversion",
    ),
)
_PAGE = statement(
    f"""
    SELECT at, entry_id, kind, actor_id, notes, details FROM ({" UNION ALL ".join(_KINDS)}) AS found
    WHERE CAST(:at AS timestamptz) IS NULL OR (at, entry_id) < (:at, CAST(:entry_id AS uuid))
    ORDER BY at DESC, entry_id DESC LIMIT :limit
    """  # noqa: S608 - our own names
)
