"""Statements that only read: call states, figures and pages of a queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause

from services.queue.domain.entries import Entry
from services.queue.domain.pages import Position
from services.queue.domain.terms import AgentId, Outcome, Queue, State, UserId
from services.queue.store.database import Transaction, statement
from services.queue.store.entries import COLUMN_NAMES, COLUMNS, entry_of

RECENT_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that ended with an outcome."""

    agent_id: AgentId
    outcome: Outcome
    ended_at: datetime
    notes: str


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person with the version of their state."""

    entry: Entry
    state_version: int


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """How many people of a queue are in one state."""

    queue: Queue
    state: State
    people: int
    ready_since: datetime | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class DayFigures:
    """What has happened since a moment, and how many agents hold somebody now."""

    agents_on_assignment: int
    calls: int
    conversions: int
    prevented_calls: int


async def people(tx: Transaction, user_ids: Sequence[UserId]) -> list[KnownPerson]:
    """Return those of the people who are known, in any order."""
    rows = await tx.execute(_PEOPLE, {"user_ids": list(user_ids)})
    return [KnownPerson(entry_of(row), row[len(COLUMNS)]) for row in rows.all()]


_PEOPLE = statement(
    f"SELECT {COLUMN_NAMES}, state_version FROM queue.entries"  # noqa: S608 - our own column names
    " WHERE user_id = ANY(CAST(:user_ids AS bigint[]))"
)


async def recent_attempts(
    tx: Transaction, user_ids: Sequence[UserId]
) -> dict[UserId, list[Attempt]]:
    """Return each person's latest calls, newest first."""
    rows = await tx.execute(_RECENT, {"user_ids": list(user_ids), "limit": RECENT_ATTEMPTS})
    found: dict[UserId, list[Attempt]] = {}
    for user_id, agent_id, outcome, ended_at, notes in rows.all():
        attempt = Attempt(agent_id, Outcome(outcome), ended_at, notes)
        found.setdefault(UserId(user_id), []).append(attempt)
    return found


_RECENT = statement(
    """
    SELECT given.user_id, latest.agent_id, latest.outcome, latest.ended_at, latest.notes
    FROM unnest(CAST(:user_ids AS bigint[])) AS given(user_id)
    CROSS JOIN LATERAL (
        SELECT agent_id, outcome, ended_at, notes FROM queue.attempts
        WHERE attempts.user_id = given.user_id ORDER BY ended_at DESC LIMIT :limit
    ) AS latest
    ORDER BY given.user_id, latest.ended_at DESC
    """
)


async def queue_figures(tx: Transaction) -> list[QueueFigures]:
    """Return the figures of each queue and state in which there is anybody."""
    rows = await tx.execute(_QUEUE_FIGURES)
    return [QueueFigures(Queue(row[0]), State(row[1]), *row[2:]) for row in rows.all()]


_QUEUE_FIGURES = statement(
    "SELECT queue, state, count(*), min(ready_since), min(due_at) FROM queue.entries"
    " WHERE queue IS NOT NULL GROUP BY queue, state"
)


async def day_figures(tx: Transaction, since: datetime) -> DayFigures:
    """Return what has happened since then."""
    row = (await tx.execute(_DAY_FIGURES, {"since": since})).one()
    return DayFigures(*row)


_DAY_FIGURES = statement(
    """
    SELECT (SELECT count(*) FROM queue.assignments WHERE ended_at IS NULL),
        (SELECT count(*) FROM queue.attempts WHERE ended_at >= :since),
        (SELECT count(*) FROM queue.conversions WHERE recorded_at >= :since),
        (SELECT count(*) FROM queue.prevented_calls WHERE prevented_at >= :since)
    """
)


async def page(
    tx: Transaction, queue: Queue, state: State, after: Position | None, limit: int
) -> list[Entry]:
    """Return up to `limit` people of a queue in one state after a position.

    READY people come in the order of handing out, WAITING ones as they fall due, the rest newest
    first. People in no queue are found by what they owe.
    """
    first, following = _PAGES[state]
    values: dict[str, Any] = {"queue": queue, "limit": limit}
    if after is not None:
        values |= {"user_id": after.user_id, "key": after.key}
    rows = await tx.execute(first if after is None else following, values)
    return [entry_of(row) for row in rows.all()]


def _page(where: str, key: str | None, kind: str = "") -> tuple[TextClause, TextClause]:
    columns = "user_id DESC" if key is None else f"{key}, user_id DESC"
    after = (
        "user_id < :user_id"
        if key is None
        else f"({key} > CAST(:key AS {kind})"
        f" OR ({key} = CAST(:key AS {kind}) AND user_id < :user_id))"
        # Says the same once more in the form an index range can be read from.
        f" AND {key} >= CAST(:key AS {kind})"
    )
    select = f"SELECT {COLUMN_NAMES} FROM queue.entries WHERE {where}"  # noqa: S608 - our own
    end = f" ORDER BY {columns} LIMIT :limit"
    return statement(select + end), statement(f"{select} AND {after}{end}")


# The states are spelt out, since a parameter would not match a partial index.
_PAGES = {
    State.READY: _page(
        f"queue = :queue AND state = {int(State.READY)}", "rank_key", "double precision"
    ),
    State.WAITING: _page(
        f"queue = :queue AND state = {int(State.WAITING)}", "due_at", "timestamptz"
    ),
    State.ASSIGNED: _page(f"queue = :queue AND state = {int(State.ASSIGNED)}", None),
    State.SUPPRESSED: _page(f"owes = :queue AND state = {int(State.SUPPRESSED)}", None),
    State.OUT: _page(f"owes = :queue AND state = {int(State.OUT)}", None),
}
