"""Statements on requests that change something, and on the answers that are repeated."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.queue.domain.terms import AgentId
from services.queue.store.database import Transaction, statement


@dataclass(frozen=True, slots=True)
class Request:
    """A change asked for under an id of the caller's choice."""

    agent_id: AgentId
    request_id: UUID
    method: str
    payload_hash: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """What is known of a request id that was used before."""

    method: str
    payload_hash: bytes
    response: bytes | None


async def begin_request(tx: Transaction, request: Request, now: datetime) -> Answered | None:
    """Take the request id; returns what is known of it if it is taken.

    Waits for another transaction that is using the same id.
    """
    taken = await tx.execute(
        _BEGIN_REQUEST,
        {
            "agent_id": request.agent_id,
            "request_id": request.request_id,
            "method": request.method,
            "payload_hash": request.payload_hash,
            "now": now,
        },
    )
    if taken.one_or_none() is not None:
        return None
    key = {"agent_id": request.agent_id, "request_id": request.request_id}
    return Answered(*(await tx.execute(_FIND_REQUEST, key)).one())


_BEGIN_REQUEST = statement(
    """
    INSERT INTO queue.requests (agent_id, request_id, method, payload_hash, made_at)
    VALUES (:agent_id, :request_id, :method, :payload_hash, :now)
    ON CONFLICT DO NOTHING
    RETURNING 1
    """
)
_FIND_REQUEST = statement(
    "SELECT method, payload_hash, response FROM queue.requests"
    " WHERE agent_id = :agent_id AND request_id = :request_id"
)


async def finish_request(tx: Transaction, request: Request, response: bytes) -> None:
    """Keep the answer, to be repeated."""
    await tx.execute(
        _FINISH_REQUEST,
        {
            "agent_id": request.agent_id,
            "request_id": request.request_id,
            "response": response,
        },
    )


_FINISH_REQUEST = statement(
    "UPDATE queue.requests SET response = :response"
    " WHERE agent_id = :agent_id AND request_id = :request_id"
)
