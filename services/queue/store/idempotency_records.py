"""Statements on idempotency records: requests that change state, with the answers to repeat."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.queue.store.database import Transaction, statement
from services.queue.types import AgentId


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request that changes state, under an id that the caller chose."""

    agent_id: AgentId
    request_id: UUID
    method: str
    payload_hash: bytes


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The request id's first use: `response` is None while the request has not finished."""

    method: str
    payload_hash: bytes
    response: bytes | None


async def begin(
    tx: Transaction, request: IdempotentRequest, now: datetime
) -> IdempotencyRecord | None:
    """Take the request id; returns what is known of it if it is taken.

    Waits for another transaction that is using the same id.
    """
    taken = await tx.execute(
        _BEGIN,
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
    return IdempotencyRecord(*(await tx.execute(_FIND, key)).one())


_BEGIN = statement(
    """
    INSERT INTO queue.requests (agent_id, request_id, method, payload_hash, made_at)
    VALUES (:agent_id, :request_id, :method, :payload_hash, :now)
    ON CONFLICT DO NOTHING
    RETURNING 1
    """
)
_FIND = statement(
    "SELECT method, payload_hash, response FROM queue.requests"
    " WHERE agent_id = :agent_id AND request_id = :request_id"
)


async def finish(tx: Transaction, request: IdempotentRequest, response: bytes) -> None:
    """Keep the answer, to be repeated."""
    await tx.execute(
        _FINISH,
        {
            "agent_id": request.agent_id,
            "request_id": request.request_id,
            "response": response,
        },
    )


_FINISH = statement(
    "UPDATE queue.requests SET response = :response"
    " WHERE agent_id = :agent_id AND request_id = :request_id"
)
