"""Statements of claims: taking people from the head of a queue, and putting them back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import TextClause

from services.queue.domain.terms import AgentId, Presence, Queue, Reason, State, UserId
from services.queue.store.database import Transaction, arrays, statement, unnested


class Candidate(NamedTuple):
    """A person taken from the head of a queue by one claim, with what their score is made of.

    `kept_for` is the only agent who may have a callback for now, None when anyone may.
    """

    user_id: UserId
    queue: Queue
    reason: Reason
    rank_key: float
    fence: int
    phone_e164: str | None
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
    """Who may be taken from a queue at this moment.

    People of the usual zone are taken if `is_usual_zone_open`, others if their zone is in
    `open_zones`. A callback is kept for its preferred agent if it fell due after
    `kept_since` and that agent, seen since `seen_since`, takes calls.
    """

    frozen_from: float
    is_usual_zone_open: bool
    open_zones: Sequence[str]
    kept_since: datetime
    seen_since: datetime


async def reserve(
    tx: Transaction,
    queue: Queue,
    count: int,
    *,
    claim: UUID,
    until: datetime,
    gate: Gate,
    agent_ids: Sequence[AgentId],
) -> list[Candidate]:
    """Take up to `count` people from the head of the queue for a claim, best first.

    Nobody whose phone number is in a call. The commit is not waited for: a reservation lost in a
    crash leaves the person at the head.
    """
    values: dict[str, Any] = {
        "queue": queue,
        "count": count,
        "claim": claim,
        "until": until,
        "usual": gate.is_usual_zone_open,
        "zones": list(gate.open_zones),
    }
    if queue is Queue.CALLBACKS:
        values |= {
            "agent_ids": list(agent_ids),
            "kept_since": gate.kept_since,
            "seen_since": gate.seen_since,
        }
        rows = await tx.execute(_RESERVE_CALLBACKS, values)
    else:
        rows = await tx.execute(_RESERVE, values | {"frozen_from": gate.frozen_from})
    found = [_candidate(queue, row) for row in rows.all()]
    return sorted(found, key=lambda it: (it.rank_key, -it.user_id))


def _candidate(queue: Queue, row: Sequence[Any]) -> Candidate:
    values = dict(zip(_RETURNED, row, strict=False))
    return Candidate(
        **values | {"queue": queue, "reason": Reason(values["reason"])},
    )


_RETURNED = tuple(name for name in Candidate._fields if name != "queue")


def _reserve(where: str, kept_for: str) -> TextClause:
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
                AND NOT EXISTS (SELECT FROM queue.assignments AS live
                    WHERE live.phone_e164 = entry.phone_e164 AND live.ended_at IS NULL)
            ORDER BY entry.rank_key, entry.user_id DESC LIMIT :count
            FOR UPDATE OF entry SKIP LOCKED
        )
        UPDATE queue.entries AS entry
        SET state = {int(State.RESERVED)}, reserved_by = :claim, reserved_until = :until
        FROM head WHERE entry.user_id = head.user_id
        RETURNING {returned}, set_config('synchronous_commit', 'off', true)
        """  # noqa: S608 - our own names and numbers
    )


_OPEN_TO_ALL = f"""(entry.callback_agent_id IS NULL OR entry.callback_at <= :kept_since
    OR NOT EXISTS (SELECT FROM queue.agents AS agent
        WHERE agent.agent_id = entry.callback_agent_id AND agent.last_seen_at > :seen_since
            AND agent.presence NOT IN ({int(Presence.BREAK)}, {int(Presence.OFFLINE)})))"""
_RESERVE = _reserve("entry.rank_key < :frozen_from", "NULL")
_RESERVE_CALLBACKS = _reserve(
    f"({_OPEN_TO_ALL} OR entry.callback_agent_id = ANY(CAST(:agent_ids AS text[])))",
    f"CASE WHEN NOT {_OPEN_TO_ALL} THEN entry.callback_agent_id END",
)


# Locked in the order of ids, as everybody who waits for rows does.
_STILL_RESERVED = f"""reserved AS MATERIALIZED (
        SELECT user_id FROM queue.entries
        WHERE user_id = ANY(CAST(:user_ids AS bigint[])) AND state = {int(State.RESERVED)}
            AND reserved_by = :claim
        ORDER BY user_id FOR UPDATE
    )"""  # noqa: S608 - our own numbers


async def give_back(tx: Transaction, user_ids: Sequence[UserId], claim: UUID) -> None:
    """Put people whom the claim still reserves back where they were; not waited for either."""
    await tx.execute(_GIVE_BACK, {"user_ids": list(user_ids), "claim": claim})


_GIVE_BACK = statement(
    f"""
    WITH {_STILL_RESERVED}
    UPDATE queue.entries AS entry
    SET state = {int(State.READY)}, reserved_by = NULL, reserved_until = NULL
    FROM reserved WHERE entry.user_id = reserved.user_id
    RETURNING set_config('synchronous_commit', 'off', true)
    """  # noqa: S608 - our own numbers
)


async def set_aside(
    tx: Transaction, user_ids: Sequence[UserId], claim: UUID, until: datetime
) -> None:
    """Keep people whom the claim still reserves from every claim until then."""
    await tx.execute(_SET_ASIDE, {"user_ids": list(user_ids), "claim": claim, "until": until})


_SET_ASIDE = statement(
    f"""
    WITH {_STILL_RESERVED}
    UPDATE queue.entries AS entry SET reserved_by = NULL, reserved_until = :until
    FROM reserved WHERE entry.user_id = reserved.user_id
    """  # noqa: S608 - our own numbers
)


async def insert_prevented_calls(
    tx: Transaction, people: Sequence[tuple[UserId, Queue]], now: datetime
) -> None:
    """Count people whom the live check kept from being phoned for nothing."""
    await tx.execute(_INSERT_PREVENTED, {**arrays(_PREVENTED_COLUMNS, people), "now": now})


_PREVENTED_COLUMNS = (("user_id", "bigint"), ("queue", "smallint"))
_INSERT_PREVENTED = statement(
    f"""
    INSERT INTO queue.prevented_calls (user_id, queue, prevented_at)
    SELECT user_id, queue, :now FROM {unnested(_PREVENTED_COLUMNS, "given")}
    """  # noqa: S608 - our own column names
)


async def is_phone_in_call(tx: Transaction, user_id: UserId, phone_e164: str | None) -> bool:
    """Return whether an agent holds somebody else with that number."""
    rows = await tx.execute(_IS_PHONE_IN_CALL, {"user_id": user_id, "phone_e164": phone_e164})
    return bool(rows.scalar_one())


_IS_PHONE_IN_CALL = statement(
    "SELECT EXISTS (SELECT FROM queue.assignments WHERE ended_at IS NULL"
    " AND phone_e164 = :phone_e164 AND user_id <> :user_id)"
)
