"""Statements on assignments, attempts and answers to request ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from services.queue.domain.outcomes import CallReport
from services.queue.domain.terms import (
    Action,
    AgentId,
    Ending,
    Outcome,
    Presence,
    Queue,
    Reason,
    State,
    UserId,
)
from services.queue.store.answers import Answered, Request
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
    phone_e164: str | None = None
    ended_at: datetime | None = None
    ending: Ending | None = None

    def is_live(self, now: datetime) -> bool:
        """Return whether the agent still holds the person."""
        return self.ended_at is None and self.lease_expires_at > now


@dataclass(frozen=True, slots=True)
class Standing:
    """What an agent who claims has: an answer to this very request, an assignment, or neither.

    `presence` is None for an agent who has never been heard of; `allowed_queues` is None for one
    without limits; `skipped_user_id` is whom the agent skipped last, until handed somebody else.
    """

    answered: Answered | None
    held: Assignment | None
    presence: Presence | None
    allowed_queues: frozenset[Queue] | None
    skipped_user_id: UserId | None


@dataclass(frozen=True, slots=True)
class HandOut:
    """Everything that is written when a person is handed out."""

    assignment: Assignment
    request: Request
    response: bytes
    event: bytes


_COLUMNS = (
    "assignment_id, agent_id, user_id, queue, reason, score, fence, started_at,"
    " lease_expires_at, phone_e164, ended_at, ending"
)


def _assignment_of(row: Sequence[Any]) -> Assignment:
    return Assignment(
        assignment_id=row[0],
        agent_id=row[1],
        user_id=UserId(row[2]),
        queue=Queue(row[3]),
        reason=Reason(row[4]),
        score=row[5],
        fence=row[6],
        started_at=row[7],
        lease_expires_at=row[8],
        phone_e164=row[9],
        ended_at=row[10],
        ending=None if row[11] is None else Ending(row[11]),
    )


async def standing(tx: Transaction, requests: Sequence[Request]) -> list[Standing]:
    """Return what each of the claiming agents has, in the order of the requests."""
    rows = await tx.execute(
        _STANDING,
        {
            "agent_ids": [it.agent_id for it in requests],
            "request_ids": [it.request_id for it in requests],
        },
    )
    return [_standing_of(row) for row in rows.all()]


def _standing_of(row: Sequence[Any]) -> Standing:
    presence, allowed, skipped = row[3:6]
    return Standing(
        answered=None if row[0] is None else Answered(row[0], row[1], row[2]),
        held=None if row[6] is None else _assignment_of(row[6:]),
        presence=None if presence is None else Presence(presence),
        allowed_queues=None if allowed is None else frozenset(map(Queue, allowed)),
        skipped_user_id=None if skipped is None else UserId(skipped),
    )


_STANDING = statement(
    f"""
    SELECT request.method, request.payload_hash, request.response,
        agent.presence, agent.allowed_queues, agent.skipped_user_id,
        {", ".join(f"held.{name.strip()}" for name in _COLUMNS.split(","))}
    FROM unnest(CAST(:agent_ids AS text[]), CAST(:request_ids AS uuid[]))
        WITH ORDINALITY AS given(agent_id, request_id, position)
    LEFT JOIN queue.requests AS request
        ON request.agent_id = given.agent_id AND request.request_id = given.request_id
    LEFT JOIN queue.assignments AS held
        ON held.agent_id = given.agent_id AND held.ended_at IS NULL
    LEFT JOIN queue.agents AS agent ON agent.agent_id = given.agent_id
    ORDER BY given.position
    """  # noqa: S608 - our own column names
)


async def hand_out(
    tx: Transaction,
    given: Sequence[HandOut],
    *,
    claim: UUID,
    frozen_from: float,
    phone_rest_from: datetime,
    now: datetime,
) -> set[UserId]:
    """Assign people whom the claim still reserves; returns those who have been handed out.

    Left out are people whose reservation has ended, agents who have got somebody meanwhile, and
    people whose number is in a call or was called for somebody else after `phone_rest_from`.
    One statement, and durable when it returns.
    """
    rows = await tx.execute(
        _HAND_OUT,
        {
            **arrays(_HAND_OUT_COLUMNS, map(_hand_out_values, given)),
            "claim": claim,
            "frozen_from": frozen_from,
            "phone_rest_from": phone_rest_from,
            "now": now,
            "seen_before": now - _SIGN_OF_LIFE_EVERY,
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
    ("phone_e164", "text"),
    ("request_id", "uuid"),
    ("method", "text"),
    ("payload_hash", "bytea"),
    ("response", "bytea"),
    ("event", "bytea"),
)
_ASSIGNMENT_COLUMNS = _HAND_OUT_COLUMNS[:10]
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
            AND (entry.queue = {int(Queue.CALLBACKS)} OR entry.rank_key < :frozen_from)
            AND NOT EXISTS (SELECT FROM queue.attempts AS other
                WHERE other.phone_e164 = given.phone_e164 AND other.user_id <> given.user_id
                    AND other.ended_at > :phone_rest_from)
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
    ), noted AS (
        INSERT INTO queue.audit (at, actor_id, action, user_id, details)
        SELECT given.started_at, given.agent_id, '{Action.HANDED_OUT}', given.user_id,
            jsonb_build_object('assignment_id', given.assignment_id)
        FROM given JOIN begun USING (assignment_id)
    ), seen AS (
        INSERT INTO queue.agents AS agent
            (agent_id, presence, presence_since, last_seen_at)
        SELECT given.agent_id, {int(Presence.AVAILABLE)}, :now, :now
        FROM given JOIN begun USING (assignment_id) ORDER BY given.agent_id
        ON CONFLICT (agent_id) DO UPDATE SET last_seen_at = :now, skipped_user_id = NULL
        WHERE agent.skipped_user_id IS NOT NULL OR agent.last_seen_at < :seen_before
    )
    SELECT user_id FROM begun
    """  # noqa: S608 - our own column names and numbers
)


# Agents are seen again and again; a row that is a few seconds behind serves as well.
_SIGN_OF_LIFE_EVERY = timedelta(seconds=10)


async def live_of_agent(tx: Transaction, agent_id: AgentId) -> Assignment | None:
    """Return what the agent holds; its lease may have run out unnoticed."""
    row = (await tx.execute(_LIVE_OF_AGENT, {"agent_id": agent_id})).one_or_none()
    return None if row is None else _assignment_of(row)


async def live_of_agents(tx: Transaction) -> dict[AgentId, Assignment]:
    """Return what every agent holds."""
    rows = await tx.execute(_LIVE)
    return {it.agent_id: it for it in map(_assignment_of, rows.all())}


_LIVE = statement(
    f"SELECT {_COLUMNS} FROM queue.assignments WHERE ended_at IS NULL"  # noqa: S608 - our own
)
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


async def end(tx: Transaction, assignment_id: UUID, ending: Ending, now: datetime) -> None:
    """End a locked assignment; one that has ended keeps its time and takes the new ending."""
    await tx.execute(_END, {"assignment_id": assignment_id, "ending": ending, "now": now})


_END = statement(
    "UPDATE queue.assignments SET ended_at = COALESCE(ended_at, :now), ending = :ending"
    " WHERE assignment_id = :assignment_id"
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
            "phone_e164": assignment.phone_e164,
        },
    )


_INSERT_ATTEMPT = statement(
    """
    INSERT INTO queue.attempts (assignment_id, user_id, agent_id, queue, outcome, notes,
        callback_at, ended_at, phone_e164)
    VALUES (:assignment_id, :user_id, :agent_id, :queue, :outcome, :notes,
        :callback_at, :now, :phone_e164)
    """
)


async def attempt_of(tx: Transaction, assignment_id: UUID) -> CallReport | None:
    """Return what was reported of an assignment, if anything was."""
    row = (await tx.execute(_ATTEMPT_OF, {"assignment_id": assignment_id})).one_or_none()
    return None if row is None else CallReport(Outcome(row[0]), row[1], row[2])


_ATTEMPT_OF = statement(
    "SELECT outcome, notes, callback_at FROM queue.attempts WHERE assignment_id = :assignment_id"
)


async def calls_since(tx: Transaction, user_id: UserId, since: datetime) -> list[datetime]:
    """Return the moments of a person's calls after `since`, latest first."""
    rows = await tx.execute(_CALLS_SINCE, {"user_id": user_id, "since": since})
    return [row[0] for row in rows.all()]


async def calls_of_all_since(
    tx: Transaction, user_ids: Sequence[UserId], since: datetime
) -> dict[UserId, list[datetime]]:
    """Return the moments of each person's calls after `since`, those with none left out."""
    rows = await tx.execute(_CALLS_OF_ALL_SINCE, {"user_ids": list(user_ids), "since": since})
    found: dict[UserId, list[datetime]] = {}
    for user_id, ended_at in rows.all():
        found.setdefault(UserId(user_id), []).append(ended_at)
    return found


_CALLS_OF_ALL_SINCE = statement(
    "SELECT user_id, ended_at FROM queue.attempts"
    " WHERE user_id = ANY(CAST(:user_ids AS bigint[])) AND ended_at > :since"
)
_CALLS_SINCE = statement(
    "SELECT ended_at FROM queue.attempts WHERE user_id = :user_id AND ended_at > :since"
    " ORDER BY ended_at DESC"
)


async def held_among(tx: Transaction, user_ids: Sequence[UserId]) -> set[UserId]:
    """Return those of these people whose assignment has not ended."""
    if not user_ids:
        return set()
    rows = await tx.execute(_HELD_AMONG, {"user_ids": list(user_ids)})
    return {UserId(row[0]) for row in rows.all()}


_HELD_AMONG = statement(
    "SELECT user_id FROM queue.assignments"
    " WHERE user_id = ANY(CAST(:user_ids AS bigint[])) AND ended_at IS NULL"
)
