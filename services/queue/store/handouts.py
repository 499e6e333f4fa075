"""Statements of hand-outs: reserving people at the head of a queue, and releasing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import TextClause
from sqlalchemy.exc import IntegrityError

from services.queue.store.assignments import Assignment
from services.queue.store.database import (
    TEXTS,
    Transaction,
    arrays,
    names,
    statement,
    unnested,
    wake_dispatch,
)
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.store.pauses import is_paused
from services.queue.store.phone_lists import is_any_listed
from services.queue.types import Action, AgentId, Presence, Queue, Reason, State, UserId


class Candidate(NamedTuple):
    """A person reserved at the head of a queue by one hand-out, with the parts of the score.

    `kept_for` is the only agent who may have a callback for now, None when every agent may.
    """

    user_id: UserId
    queue: Queue
    reason: Reason
    rank_key: float
    fence: int
    phones: tuple[str, ...]
    lines: tuple[str, ...]
    time_zone: str | None
    callback_agent_id: AgentId | None
    kept_for: AgentId | None
    outcome_points: float
    attempt_points: float
    aged_from: datetime
    lender_points: float
    age_points: float
    claimed_at: datetime | None
    entered_at: datetime | None
    last_contact_at: datetime | None


@dataclass(frozen=True, slots=True)
class Gate:
    """Which people of a queue may be reserved at this moment.

    People of the usual zone may if `is_usual_zone_open`, others if their zone is in `open_zones`. A
    callback that is kept at `now` for its preferred agent goes to no other agent while that agent,
    seen since `seen_since`, takes calls. While a pause of the queue is in force at `now`, none may.
    """

    frozen_from: float
    is_usual_zone_open: bool
    open_zones: Sequence[str]
    now: datetime
    seen_since: datetime


async def reserve(
    tx: Transaction,
    queue: Queue,
    count: int,
    *,
    handout_id: UUID,
    until: datetime,
    gate: Gate,
    agent_ids: Sequence[AgentId],
    own_callbacks_only: bool = False,
    by_waiting: bool = False,
) -> list[Candidate]:
    """Reserve up to `count` people at the head of the queue for a hand-out, best first.

    People with a line that is in a call, or on a list, are passed over: after a list has come into
    force some stay at the head until they are placed. With `own_callbacks_only`, of the callbacks
    only those that prefer one of `agent_ids`. With `by_waiting`, which is not for callbacks, the
    people who have been ready longest instead of the best. The commit is asynchronous: a
    reservation lost in a crash leaves the person at the head.
    """
    values: dict[str, Any] = {
        "queue": queue,
        "count": count,
        "handout": handout_id,
        "until": until,
        "usual": gate.is_usual_zone_open,
        "zones": list(gate.open_zones),
        "now": gate.now,
    }
    if queue is Queue.CALLBACKS:
        values["agent_ids"] = list(agent_ids)
        if not own_callbacks_only:
            values["seen_since"] = gate.seen_since
        reserve_callbacks = _RESERVE_OWN_CALLBACKS if own_callbacks_only else _RESERVE_CALLBACKS
        rows = await tx.execute(reserve_callbacks, values)
    else:
        of_scores = _RESERVE_LONGEST_WAITING if by_waiting else _RESERVE
        rows = await tx.execute(of_scores, values | {"frozen_from": gate.frozen_from})
    found = []
    for row in rows.all():
        values = dict(zip(_RETURNED, row, strict=False))
        values["phones"], values["lines"] = tuple(values["phones"]), tuple(values["lines"])
        values |= {"queue": queue, "reason": Reason(values["reason"])}
        found.append(Candidate(**values))
    return sorted(found, key=lambda it: (it.rank_key, -it.user_id))


_RETURNED = tuple(name for name in Candidate._fields if name != "queue")


def _reserve(
    where: str, kept_for: str, order: str = "entry.rank_key, entry.user_id DESC"
) -> TextClause:
    returned = ", ".join(f"entry.{name}" for name in _RETURNED if name != "kept_for")
    returned = returned.replace(
        "entry.callback_agent_id,", f"entry.callback_agent_id, {kept_for} AS kept_for,"
    )
    return statement(
        f"""
        WITH head AS MATERIALIZED (
            SELECT entry.user_id FROM queue.entries AS entry
            WHERE entry.queue = :queue AND entry.state = {int(State.READY)} AND {where}
                AND CASE WHEN entry.time_zone IS NULL THEN CAST(:usual AS boolean)
                    ELSE entry.time_zone = ANY(CAST(:zones AS text[])) END
                AND entry.lines <> '{{}}'
                AND NOT EXISTS (SELECT FROM queue.live_lines AS live
                    WHERE live.phone_e164 = ANY(entry.lines))
                AND NOT {is_any_listed("entry.lines")}
                AND NOT {is_paused(":queue", ":now")}
            ORDER BY {order} LIMIT :count
            FOR UPDATE OF entry SKIP LOCKED
        )
        UPDATE queue.entries AS entry
        SET state = {int(State.RESERVED)}, reserved_by = :handout, reserved_until = :until
        FROM head WHERE entry.user_id = head.user_id
        RETURNING {returned}, set_config('synchronous_commit', 'off', true)
        """  # noqa: S608 - our own names and numbers
    )


_OPEN_TO_ALL = f"""(entry.callback_agent_id IS NULL OR entry.kept_until IS NULL
    OR entry.kept_until <= :now
    OR NOT EXISTS (SELECT FROM queue.agents AS agent
        WHERE agent.agent_id = entry.callback_agent_id AND agent.last_seen_at > :seen_since
            AND agent.presence NOT IN ({int(Presence.BREAK)}, {int(Presence.OFFLINE)})))"""
_RESERVE = _reserve("entry.rank_key < :frozen_from", "NULL")
_RESERVE_LONGEST_WAITING = _reserve(
    "entry.rank_key < :frozen_from", "NULL", "entry.ready_since, entry.user_id"
)
_RESERVE_CALLBACKS = _reserve(
    f"({_OPEN_TO_ALL} OR entry.callback_agent_id = ANY(CAST(:agent_ids AS text[])))",
    f"CASE WHEN NOT {_OPEN_TO_ALL} THEN entry.callback_agent_id END",
)
_RESERVE_OWN_CALLBACKS = _reserve(
    "entry.callback_agent_id = ANY(CAST(:agent_ids AS text[]))", "entry.callback_agent_id"
)


# Locked in the order of ids, as every transaction that waits for rows does.
_STILL_RESERVED = f"""reserved AS MATERIALIZED (
        SELECT user_id FROM queue.entries
        WHERE user_id = ANY(CAST(:user_ids AS bigint[])) AND state = {int(State.RESERVED)}
            AND reserved_by = :handout
        ORDER BY user_id FOR UPDATE
    )"""  # noqa: S608 - our own numbers


async def release(tx: Transaction, user_ids: Sequence[UserId], handout_id: UUID) -> None:
    """Release people whom the hand-out still reserves; the commit is asynchronous."""
    await tx.execute(_RELEASE, {"user_ids": list(user_ids), "handout": handout_id})


_RELEASE = statement(
    f"""
    WITH {_STILL_RESERVED}
    UPDATE queue.entries AS entry
    SET state = {int(State.READY)}, reserved_by = NULL, reserved_until = NULL
    FROM reserved WHERE entry.user_id = reserved.user_id
    RETURNING set_config('synchronous_commit', 'off', true)
    """  # noqa: S608 - our own numbers
)


async def quarantine(
    tx: Transaction, user_ids: Sequence[UserId], handout_id: UUID, until: datetime
) -> None:
    """Keep people whom the hand-out still reserves from every hand-out until then."""
    await tx.execute(
        _QUARANTINE, {"user_ids": list(user_ids), "handout": handout_id, "until": until}
    )


_QUARANTINE = statement(
    f"""
    WITH {_STILL_RESERVED}
    UPDATE queue.entries AS entry SET reserved_by = NULL, reserved_until = :until
    FROM reserved WHERE entry.user_id = reserved.user_id
    """  # noqa: S608 - our own numbers
)


async def insert_prevented_calls(
    tx: Transaction, people: Sequence[tuple[UserId, Queue]], now: datetime
) -> None:
    """Count people whom the live check found not to qualify any more."""
    await tx.execute(_INSERT_PREVENTED, {**arrays(_PREVENTED_COLUMNS, people), "now": now})


_PREVENTED_COLUMNS = (("user_id", "bigint"), ("queue", "smallint"))
_INSERT_PREVENTED = statement(
    f"""
    INSERT INTO queue.prevented_calls (user_id, queue, prevented_at)
    SELECT user_id, queue, :now FROM {unnested(_PREVENTED_COLUMNS, "given")}
    """  # noqa: S608 - our own column names
)


@dataclass(frozen=True, slots=True)
class HandOut:
    """What is written when a person is handed out."""

    assignment: Assignment
    request: IdempotentRequest
    response: bytes
    event: bytes


async def hand_out(
    tx: Transaction,
    given: Sequence[HandOut],
    *,
    handout_id: UUID,
    frozen_from: float,
    phone_rest_from: datetime,
    now: datetime,
) -> set[UserId]:
    """Assign people whom the hand-out still reserves; returns the people handed out.

    Not handed out are people whose reservation has ended, people with a line that is on a list or
    was called for another person after `phone_rest_from`, and people for agents who have been
    handed another one meanwhile. One statement, durable when it returns. Raises LinesInCall when a
    line is in a call.
    """
    values = {
        **arrays(_HAND_OUT_COLUMNS, map(_hand_out_values, given)),
        "handout": handout_id,
        "frozen_from": frozen_from,
        "phone_rest_from": phone_rest_from,
        "now": now,
        "seen_before": now - _SEEN_EVERY,
    }
    try:
        rows = await tx.execute(_HAND_OUT, values)
    except IntegrityError as error:
        if _LIVE_LINE not in str(error.orig):
            raise
        raise LinesInCall from error
    wake_dispatch(tx)
    return {UserId(row[0]) for row in rows.all()}


_LIVE_LINE = "live_lines_pkey"


class LinesInCall(Exception):
    """A line of one of the people is in a call by now; no person was handed out."""


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
    ("lines", TEXTS),
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
        WHERE entry.state = {int(State.RESERVED)} AND entry.reserved_by = :handout
            AND entry.queue = given.queue AND entry.fence = given.fence - 1
            AND entry.lines = given.lines
            AND (entry.queue = {int(Queue.CALLBACKS)} OR entry.rank_key < :frozen_from)
            AND NOT EXISTS (SELECT FROM queue.attempt_lines AS other
                WHERE other.phone_e164 = ANY(given.lines) AND other.user_id <> given.user_id
                    AND other.ended_at > :phone_rest_from)
            AND NOT {is_any_listed("given.lines")}
        ORDER BY entry.user_id FOR UPDATE OF entry
    ), begun AS (
        INSERT INTO queue.assignments ({names(_ASSIGNMENT_COLUMNS)})
        SELECT {names(_ASSIGNMENT_COLUMNS)} FROM given JOIN held USING (user_id)
        ON CONFLICT DO NOTHING
        RETURNING assignment_id, user_id
    ), called AS (
        INSERT INTO queue.live_lines (phone_e164, assignment_id)
        SELECT unnest(given.lines) AS phone_e164, assignment_id
        FROM given JOIN begun USING (assignment_id) ORDER BY phone_e164
    ), moved AS (
        UPDATE queue.entries AS entry
        SET state = {int(State.ASSIGNED)}, fence = given.fence, agent_id = given.agent_id,
            assignment_id = given.assignment_id, ready_since = NULL,
            reserved_by = NULL, reserved_until = NULL,
            state_version = nextval('queue.state_version')
        FROM begun JOIN given USING (assignment_id)
        WHERE entry.user_id = begun.user_id
        RETURNING entry.user_id, entry.state_version
    ), notified AS (
        INSERT INTO queue.stale_call_states (user_id, state_version)
        SELECT user_id, state_version FROM moved
    ), answered AS (
        INSERT INTO queue.requests
            (agent_id, request_id, method, payload_hash, response, made_at)
        SELECT agent_id, request_id, method, payload_hash, response, started_at
        FROM given JOIN begun USING (assignment_id)
        ON CONFLICT DO NOTHING
    ), announced AS (
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


# Agents are seen often; a row that is a few seconds old is good enough.
_SEEN_EVERY = timedelta(seconds=10)
