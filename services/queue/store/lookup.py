"""Statements that find people by their number and list the calls of one."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.queue.domain.terms import AgentId, Outcome, Queue, UserId
from services.queue.store.database import Transaction, statement


@dataclass(frozen=True, slots=True)
class Call:
    """A call that ended with an outcome."""

    assignment_id: UUID
    agent_id: AgentId
    queue: Queue
    outcome: Outcome
    ended_at: datetime
    callback_at: datetime | None
    notes: str


async def people_with_phone(tx: Transaction, phone_e164: str, limit: int) -> list[UserId]:
    """Return people by their number as last applied, the newest first."""
    rows = await tx.execute(_WITH_PHONE, {"phone": phone_e164, "limit": limit})
    return [UserId(user_id) for (user_id,) in rows.all()]


_WITH_PHONE = statement(
    "SELECT user_id FROM queue.entries WHERE phone_e164 = :phone ORDER BY user_id DESC LIMIT :limit"
)


async def calls(
    tx: Transaction, user_id: UserId, before: tuple[datetime, UUID] | None, limit: int
) -> list[Call]:
    """Return a person's calls before a position, the latest first."""
    moment, identifier = before or (None, None)
    rows = await tx.execute(
        _CALLS, {"user_id": user_id, "moment": moment, "identifier": identifier, "limit": limit}
    )
    return [Call(row[0], row[1], Queue(row[2]), Outcome(row[3]), *row[4:]) for row in rows.all()]


_CALLS = statement(
    """
    SELECT assignment_id, agent_id, queue, outcome, ended_at, callback_at, notes
    FROM queue.attempts
    WHERE user_id = :user_id
        AND (CAST(:moment AS timestamptz) IS NULL
            OR (ended_at, assignment_id) < (:moment, CAST(:identifier AS uuid)))
    ORDER BY ended_at DESC, assignment_id DESC LIMIT :limit
    """
)
