"""Statements on idempotency records: requests that change state, with the answers to repeat."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.queue.store.database import Transaction, statement
from services.queue.store.writing import Write, write
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
    taken = await tx.execute(_BEGIN, taking(request, now))
    return None if taken.one_or_none() is not None else await find(tx, request)


def taking(request: IdempotentRequest, now: datetime) -> dict[str, Any]:
    """Return the parameters of `TAKE`."""
    return {
        "agent_id": request.agent_id,
        "request_id": request.request_id,
        "method": request.method,
        "payload_hash": request.payload_hash,
        "now": now,
    }


# Returns a row if the id was free.
TAKE = """
    INSERT INTO queue.requests (agent_id, request_id, method, payload_hash, made_at)
    VALUES (:agent_id, :request_id, :method, :payload_hash, :now)
    ON CONFLICT DO NOTHING
    RETURNING 1
"""
_BEGIN = statement(TAKE)


async def find(tx: Transaction, request: IdempotentRequest) -> IdempotencyRecord:
    """Return what is known of a request id that is taken."""
    key = {"agent_id": request.agent_id, "request_id": request.request_id}
    return IdempotencyRecord(*(await tx.execute(_FIND, key)).one())


_FIND = statement(
    "SELECT method, payload_hash, response FROM queue.requests"
    " WHERE agent_id = :agent_id AND request_id = :request_id"
)


async def finish(tx: Transaction, request: IdempotentRequest, response: bytes) -> None:
    """Keep the answer, to be repeated."""
    await write(tx, _FINISH, [(request.agent_id, request.request_id, response)])


_FINISH = Write(
    "answered",
    (("agent_id", "text"), ("request_id", "uuid"), ("response", "bytea")),
    """
    UPDATE queue.requests AS request SET response = given.response FROM {given}
    WHERE request.agent_id = given.agent_id AND request.request_id = given.request_id
    """,
)
