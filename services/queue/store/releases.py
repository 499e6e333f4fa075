"""Two statements that give many people back at once, if nothing has come between the two."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from dialler.queue.v1.queue_pb2 import ReleaseAssignmentResponse

from services.queue.domain.entries import Entry
from services.queue.domain.terms import Action, Ending, Presence, Queue, Reason, State, UserId
from services.queue.store.assignments import SIGN_OF_LIFE_EVERY, Assignment, Request
from services.queue.store.database import Transaction, arrays, names, statement, unnested
from services.queue.store.entries import COLUMNS, entry_of


@dataclass(frozen=True, slots=True)
class Held:
    """A person as an agent holds them, and the version their next state is to have.

    The version is drawn without a lock: it holds its promise because `give_back` refuses whoever
    has changed since.
    """

    assignment: Assignment
    entry: Entry
    state_version: int
    next_version: int


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Everything that is written when a person is given back."""

    held: Held
    after: Entry
    request: Request
    response: ReleaseAssignmentResponse
    event: bytes


async def held(tx: Transaction, asked: Sequence[tuple[UUID, Request]], now: datetime) -> list[Held]:
    """Return what may be given back: held by who asks, under a request id not used before."""
    rows = await tx.execute(
        _HELD,
        {
            **arrays(
                _ASKED_COLUMNS,
                ((key, it.agent_id, it.request_id) for key, it in asked),
            ),
            "now": now,
        },
    )
    return [_held_of(row) for row in rows.all()]


def _held_of(row: Sequence[Any]) -> Held:
    assignment = Assignment(
        row[0], row[1], UserId(row[2]), Queue(row[3]), Reason(row[4]), *row[5:9]
    )
    return Held(assignment, entry_of(row[11:]), row[9], row[10])


_ASKED_COLUMNS = (("assignment_id", "uuid"), ("agent_id", "text"), ("request_id", "uuid"))
_HELD = statement(
    f"""
    SELECT held.assignment_id, held.agent_id, held.user_id, held.queue, held.reason, held.score,
        held.fence, held.started_at, held.lease_expires_at,
        entry.state_version, nextval('queue.state_version'),
        {", ".join(f"entry.{name}" for name, _ in COLUMNS)}
    FROM {unnested(_ASKED_COLUMNS, "given")}
    JOIN queue.assignments AS held USING (assignment_id, agent_id)
    JOIN queue.entries AS entry USING (user_id, fence)
    WHERE held.ended_at IS NULL AND held.lease_expires_at > :now
        AND entry.state = {int(State.ASSIGNED)} AND entry.assignment_id = held.assignment_id
        AND NOT EXISTS (
        SELECT FROM queue.requests AS known
        WHERE known.agent_id = given.agent_id AND known.request_id = given.request_id)
    """  # noqa: S608 - our own column names
)


async def give_back(tx: Transaction, given: Sequence[GivenBack], now: datetime) -> set[UserId]:
    """End assignments and put their people where they belong; returns those for whom it was done.

    Left out is whoever has changed since they were read, and whose request id has been used
    since. One statement, and durable when it returns.
    """
    rows = await tx.execute(
        _GIVE_BACK,
        {
            **arrays(_GIVEN_COLUMNS, map(_given_values, given)),
            "now": now,
            "seen_before": now - SIGN_OF_LIFE_EVERY,
        },
    )
    return {UserId(row[0]) for row in rows.all()}


def _given_values(given: GivenBack) -> tuple[Any, ...]:
    request = given.request
    return (
        *given.after,
        given.held.assignment.assignment_id,
        given.held.state_version,
        given.held.entry.facts_version,
        given.held.next_version,
        request.agent_id,
        request.request_id,
        request.method,
        request.payload_hash,
        given.response.SerializeToString(),
        given.event,
    )


_GIVEN_COLUMNS = (
    *COLUMNS,
    ("ended_assignment", "uuid"),
    ("known_state", "bigint"),
    ("known_facts", "bigint"),
    ("next_version", "bigint"),
    ("asking_agent", "text"),
    ("request_id", "uuid"),
    ("method", "text"),
    ("payload_hash", "bytea"),
    ("response", "bytea"),
    ("event", "bytea"),
)
# Locked in the order that everybody keeps: assignments before entries, each by person. Facts can
# be noted without a new state version, so both versions are compared.
_GIVE_BACK = statement(
    f"""
    WITH given AS MATERIALIZED (
        SELECT {names(_GIVEN_COLUMNS)} FROM {unnested(_GIVEN_COLUMNS, "it")}
    ), live AS MATERIALIZED (
        SELECT held.assignment_id FROM queue.assignments AS held
        JOIN given ON given.ended_assignment = held.assignment_id
        WHERE held.ended_at IS NULL AND held.lease_expires_at > :now
        ORDER BY held.user_id FOR UPDATE OF held
    ), unchanged AS MATERIALIZED (
        SELECT entry.user_id FROM queue.entries AS entry
        JOIN given USING (user_id) JOIN live ON live.assignment_id = given.ended_assignment
        WHERE entry.state_version = given.known_state
            AND entry.facts_version = given.known_facts
            AND entry.state = {int(State.ASSIGNED)}
        ORDER BY entry.user_id FOR UPDATE OF entry
    ), answered AS (
        INSERT INTO queue.requests
            (agent_id, request_id, method, payload_hash, response, made_at)
        SELECT asking_agent, request_id, method, payload_hash, response, :now
        FROM given JOIN unchanged USING (user_id) ORDER BY asking_agent, request_id
        ON CONFLICT DO NOTHING
        RETURNING agent_id, request_id
    ), done AS MATERIALIZED (
        SELECT given.* FROM given JOIN unchanged USING (user_id) JOIN answered
        ON answered.agent_id = given.asking_agent AND answered.request_id = given.request_id
    ), ended AS (
        UPDATE queue.assignments AS held SET ended_at = :now, ending = {int(Ending.RELEASED)}
        FROM done WHERE held.assignment_id = done.ended_assignment
    ), moved AS (
        UPDATE queue.entries AS entry
        SET {", ".join(f"{name} = done.{name}" for name, _ in COLUMNS[1:])},
            state_version = done.next_version
        FROM done WHERE entry.user_id = done.user_id
    ), told AS (
        INSERT INTO queue.stale_call_states (user_id, state_version)
        SELECT user_id, next_version FROM done
    ), posted AS (
        INSERT INTO queue.outbox (event) SELECT event FROM done
    ), noted AS (
        INSERT INTO queue.audit (at, actor_id, action, user_id, details)
        SELECT :now, asking_agent, '{Action.RELEASED}', user_id,
            jsonb_build_object('assignment_id', ended_assignment)
        FROM done
    ), seen AS (
        INSERT INTO queue.agents AS agent (agent_id, presence, presence_since, last_seen_at)
        SELECT asking_agent, {int(Presence.AVAILABLE)}, :now, :now FROM done ORDER BY asking_agent
        ON CONFLICT (agent_id) DO UPDATE SET last_seen_at = :now
        WHERE agent.last_seen_at < :seen_before
    )
    SELECT user_id FROM done
    """  # noqa: S608 - our own column names
)
