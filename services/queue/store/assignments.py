"""Statements on assignments, attempts and answers to request ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from services.queue.domain.outcomes import CallReport
from services.queue.domain.terms import AgentId, Ending, Queue, Reason, State, UserId
from services.queue.store.database import Transaction, arrays, names, statement, unnested


@dataclass(frozen=True, slots=True)
class Assignment:
    """A person handed to an agent. Live while `ended_at` is None and the lease lasts."""

    assignment_id: UUID
    agent_id: AgentId
    user_id: UserId
    queue: Queue
    reason: Reason
    score: float
    fence: int
    started_at: datetime
    lease_expires_at: datetime
    ended_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Return whether the agent still holds the person."""
        return self.ended_at is None and self.lease_expires_at > now


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


@dataclass(frozen=True, slots=True)
class Standing:
    """What an agent who claims has: an answer to this very request, an assignment, or neither."""

    answered: Answered | None
    held: Assignment | None


@dataclass(frozen=True, slots=True)
class HandOut:
    """Everything that is written when a person is handed out."""

    assignment: Assignment
    request: Request
    response: bytes
    event: bytes


_COLUMNS = (
    "assignment_id, agent_id, user_id, queue, reason, score, fence, started_at,"
    " lease_expires_at, ended_at"
)


def _assignment_of(row: Sequence[Any]) -> Assignment:
    return Assignment(row[0], row[1], UserId(row[2]), Queue(row[3]), Reason(row[4]), *row[5:10])


async def standing(tx: Transaction, requests: Sequence[Request]) -> list[Standing]:
    """Return what each of the claiming agents has, in the order of the requests."""
    rows = await tx.execute(
        _STANDING,
        {
            "agent_ids": [it.agent_id for it in requests],
            "request_ids": [it.request_id for it in requests],
        },
    )
    return [
        Standing(
            None if row[0] is None else Answered(row[0], row[1], row[2]),
            None if row[3] is None else _assignment_of(row[3:]),
        )
        for row in rows.all()
    ]


_STANDING = statement(
    """
    SELECT request.method, request.payload_hash, request.response,
        held.assignment_id, held.agent_id, held.user_id, held.queue, held.reason, held.score,
        held.fence, held.started_at, held.lease_expires_at, held.ended_at
    FROM unnest(CAST(:agent_ids AS text[]), CAST(:request_ids AS uuid[]))
        WITH ORDINALITY AS given(agent_id, request_id, position)
    LEFT JOIN queue.requests AS request
        ON request.agent_id = given.agent_id AND request.request_id = given.request_id
    LEFT JOIN queue.assignments AS held
        ON held.agent_id = given.agent_id AND held.ended_at IS NULL
    ORDER BY given.position
    """
)


async def hand_out(
    tx: Transaction, given: Sequence[HandOut], *, claim: UUID, frozen_from: float
) -> set[UserId]:
    """Assign people whom the claim still reserves; returns those who have been handed out.

    Left out are people whose reservation has ended and agents who have got somebody meanwhile.
    One statement, and durable when it returns.
    """
    rows = await tx.execute(
        _HAND_OUT,
        {
            **arrays(_HAND_OUT_COLUMNS, map(_hand_out_values, given)),
            "claim": claim,
            "frozen_from": frozen_from,
        },
    )
    return {UserId(row[0]) for row in rows.all()}


_HAND_OUT_COLUMNS = (
    ("assignment_id", "uuid"),
    ("agent_id", "text"),
    ("user_id", "bigint"),
    ("queue", "smallint"),
    ("reason", "text"),
    ("score", "double precision"),
    ("fence", "bigint"),
    ("started_at", "timestamptz"),
    ("lease_expires_at", "timestamptz"),
    ("request_id", "uuid"),
    ("method", "text"),
    ("payload_hash", "bytea"),
    ("response", "bytea"),
    ("event", "bytea"),
)
_ASSIGNMENT_COLUMNS = _HAND_OUT_COLUMNS[:9]
_hand_out_values = attrgetter(
    *(f"assignment.{name}" for name, _ in _ASSIGNMENT_COLUMNS),
    "request.request_id",
    "request.method",
    "request.payload_hash",
    "response",
    "event",
)
_HAND_OUT = statement(
    f"""
    WITH given AS MATERIALIZED (
        SELECT {names(_HAND_OUT_COLUMNS)} FROM {unnested(_HAND_OUT_COLUMNS, "it")}
    ), held AS MATERIALIZED (
        SELECT entry.user_id FROM queue.entries AS entry JOIN given USING (user_id)
        WHERE entry.state = {int(State.RESERVED)} AND entry.reserved_by = :claim
            AND entry.queue = given.queue AND entry.fence = given.fence - 1
            AND entry.rank_key < :frozen_from
        ORDER BY entry.user_id FOR UPDATE OF entry
    ), begun AS (
        INSERT INTO queue.assignments ({names(_ASSIGNMENT_COLUMNS)})
        SELECT {names(_ASSIGNMENT_COLUMNS)} FROM given JOIN held USING (user_id)
        ON CONFLICT DO NOTHING
        RETURNING assignment_id, user_id
    ), moved AS (
        UPDATE queue.entries AS entry
        SET state = {int(State.ASSIGNED)}, fence = given.fence, agent_id = given.agent_id,
            assignment_id = given.assignment_id, ready_since = NULL,
            reserved_by = NULL, reserved_until = NULL,
            state_version = nextval('queue.state_version')
        FROM begun JOIN given USING (assignment_id)
        WHERE entry.user_id = begun.user_id
        RETURNING entry.user_id, entry.state_version
    ), told AS (
        INSERT INTO queue.stale_call_states (user_id, state_version)
        SELECT user_id, state_version FROM moved
    ), answered AS (
        INSERT INTO queue.requests
            (agent_id, request_id, method, payload_hash, response, made_at)
        SELECT agent_id, request_id, method, payload_hash, response, started_at
        FROM given JOIN begun USING (assignment_id)
        ON CONFLICT DO NOTHING
    ), posted AS (
        INSERT INTO queue.outbox (event)
        SELECT event FROM given JOIN begun USING (assignment_id)
    )
    SELECT user_id FROM begun
    """  # noqa: S608 - our own column names and numbers
)


async def live_of_agent(tx: Transaction, agent_id: AgentId) -> Assignment | None:
    """Return what the agent holds; its lease may have run out unnoticed."""
    row = (await tx.execute(_LIVE_OF_AGENT, {"agent_id": agent_id})).one_or_none()
    return None if row is None else _assignment_of(row)


_LIVE_OF_AGENT = statement(
    f"SELECT {_COLUMNS} FROM queue.assignments"  # noqa: S608 - our own column names
    " WHERE agent_id = :agent_id AND ended_at IS NULL"
)


async def lock(tx: Transaction, assignment_id: UUID) -> Assignment | None:
    """Lock and return an assignment. The person's entry is locked after it, never before."""
    row = (await tx.execute(_LOCK, {"assignment_id": assignment_id})).one_or_none()
    return None if row is None else _assignment_of(row)


_LOCK = statement(
    f"SELECT {_COLUMNS} FROM queue.assignments"  # noqa: S608 - our own column names
    " WHERE assignment_id = :assignment_id FOR UPDATE"
)


async def lock_expired(tx: Transaction, now: datetime, limit: int) -> list[Assignment]:
    """Lock and return live assignments whose lease has run out; those held elsewhere are left."""
    rows = await tx.execute(_LOCK_EXPIRED, {"now": now, "limit": limit})
    return [_assignment_of(row) for row in rows.all()]


_LOCK_EXPIRED = statement(
    f"SELECT {_COLUMNS} FROM queue.assignments"  # noqa: S608 - our own column names
    " WHERE ended_at IS NULL AND lease_expires_at <= :now"
    " ORDER BY user_id LIMIT :limit FOR UPDATE SKIP LOCKED"
)


async def extend(
    tx: Transaction,
    assignment_id: UUID,
    agent_id: AgentId,
    *,
    now: datetime,
    until: datetime,
    longest_seconds: float,
) -> Assignment | None:
    """Extend the agent's live lease, never beyond `longest_seconds` after its start.

    Returns None if there is no such live assignment of that agent.
    """
    row = await tx.execute(
        _EXTEND,
        {
            "assignment_id": assignment_id,
            "agent_id": agent_id,
            "now": now,
            "until": until,
            "longest_seconds": longest_seconds,
        },
    )
    found = row.one_or_none()
    return None if found is None else _assignment_of(found)


_EXTEND = statement(
    f"""
    UPDATE queue.assignments
    SET lease_expires_at = greatest(lease_expires_at, least(
        CAST(:until AS timestamptz),
        started_at + make_interval(secs => CAST(:longest_seconds AS double precision))))
    WHERE assignment_id = :assignment_id AND agent_id = :agent_id AND ended_at IS NULL
        AND lease_expires_at > :now
    RETURNING {_COLUMNS}
    """  # noqa: S608 - our own column names
)


async def end(
    tx: Transaction, assignment_ids: Sequence[UUID], ending: Ending, now: datetime
) -> None:
    """End locked assignments."""
    await tx.execute(_END, {"assignment_ids": list(assignment_ids), "ending": ending, "now": now})


_END = statement(
    "UPDATE queue.assignments SET ended_at = :now, ending = :ending"
    " WHERE assignment_id = ANY(CAST(:assignment_ids AS uuid[])) AND ended_at IS NULL"
)


async def insert_attempt(
    tx: Transaction, assignment: Assignment, report: CallReport, now: datetime
) -> None:
    """Keep what the agent reported of the call."""
    await tx.execute(
        _INSERT_ATTEMPT,
        {
            "assignment_id": assignment.assignment_id,
            "user_id": assignment.user_id,
            "agent_id": assignment.agent_id,
            "queue": assignment.queue,
            "outcome": report.outcome,
            "notes": report.notes,
            "callback_at": report.callback_at,
            "now": now,
        },
    )


_INSERT_ATTEMPT = statement(
    """
    INSERT INTO queue.attempts
        (assignment_id, user_id, agent_id, queue, outcome, notes, callback_at, ended_at)
    VALUES (:assignment_id, :user_id, :agent_id, :queue, :outcome, :notes, :callback_at, :now)
    """
)


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


async def delete_requests(tx: Transaction, made_before: datetime, limit: int) -> int:
    """Forget old answers; returns how many."""
    rows = await tx.execute(_DELETE_REQUESTS, {"made_before": made_before, "limit": limit})
    return len(rows.all())


_DELETE_REQUESTS = statement(
    """
    DELETE FROM queue.requests WHERE (agent_id, request_id) IN (
        SELECT agent_id, request_id FROM queue.requests
        WHERE made_at < :made_before ORDER BY made_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING 1
    """
)
