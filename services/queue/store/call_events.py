"""Statements on what happened to calls."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services.queue.domain.call_events import CallEvent
from services.queue.store.database import Transaction, statement
from services.queue.types import AgentId, CallEventKind


async def note(tx: Transaction, assignment_id: UUID, event: CallEvent, actor_id: AgentId) -> None:
    """Keep an event; one that is known takes the duration and the recording that it lacked."""
    await tx.execute(
        _NOTE,
        {
            "assignment_id": assignment_id,
            "kind": event.kind,
            "at": event.at,
            "provider": event.provider,
            "provider_call_id": event.provider_call_id,
            "duration_seconds": event.duration_seconds,
            "recording_reference": event.recording_reference,
            "actor_id": actor_id,
        },
    )


_NOTE = statement(
    """
    INSERT INTO queue.call_events AS kept (assignment_id, kind, at, provider, provider_call_id,
        duration_seconds, recording_reference, actor_id)
    VALUES (:assignment_id, :kind, :at, :provider, :provider_call_id,
        :duration_seconds, :recording_reference, :actor_id)
    ON CONFLICT (assignment_id, kind, at, provider, provider_call_id) DO UPDATE
    SET duration_seconds = coalesce(kept.duration_seconds, excluded.duration_seconds),
        recording_reference = CASE kept.recording_reference WHEN ''
            THEN excluded.recording_reference ELSE kept.recording_reference END
    """
)


async def of_assignments(
    tx: Transaction, assignment_ids: Sequence[UUID]
) -> dict[UUID, list[CallEvent]]:
    """Return the events of each assignment, the earliest first."""
    events: dict[UUID, list[CallEvent]] = {it: [] for it in assignment_ids}
    rows = await tx.execute(_OF_ASSIGNMENTS, {"assignment_ids": list(assignment_ids)})
    for row in rows.all():
        events[row[0]].append(CallEvent(CallEventKind(row[1]), *row[2:]))
    return events


_OF_ASSIGNMENTS = statement(
    """
    SELECT assignment_id, kind, at, provider, provider_call_id, duration_seconds,
        recording_reference
    FROM queue.call_events WHERE assignment_id = ANY(CAST(:assignment_ids AS uuid[]))
    ORDER BY at, kind
    """
)


async def set_lease(
    tx: Transaction, assignment_id: UUID, lease_expires_at: datetime, now: datetime
) -> None:
    """Set when a locked, live assignment ends without a sign of life, of which this is one."""
    values = {"assignment_id": assignment_id, "until": lease_expires_at, "now": now}
    await tx.execute(_SET_LEASE, values)


_SET_LEASE = statement(
    "UPDATE queue.assignments SET lease_expires_at = :until, heartbeat_at = :now"
    " WHERE assignment_id = :assignment_id"
)
