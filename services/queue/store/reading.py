"""Statements that only read: call states, calls, figures and pages of a queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import TextClause

from services.queue.domain.entries import Entry
from services.queue.domain.outcomes import CallReport
from services.queue.domain.pages import PagePosition
from services.queue.store.database import Transaction, statement
from services.queue.store.entries import COLUMN_NAMES, COLUMNS, entry_of
from services.queue.types import (
    AgentId,
    CallbackState,
    Direction,
    Hold,
    Outcome,
    Queue,
    Reason,
    State,
    UserId,
)

RECENT_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class RecentAttempt:
    """A call; `outcome` is None while the agent has not reported it."""

    agent_id: AgentId
    outcome: Outcome | None
    ended_at: datetime
    notes: str
    disposition: str | None = None

    @classmethod
    def of(cls, agent_id: AgentId, report: CallReport, ended_at: datetime) -> Self:
        """Return a call as it is reported."""
        return cls(agent_id, report.outcome, ended_at, report.notes, report.disposition)


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person with the version of their state."""

    entry: Entry
    state_version: int


@dataclass(frozen=True, slots=True)
class PlaceFigures:
    """How many people are in one place.

    `queue` is the one they are in, or that of their open case when they are in none.
    """

    queue: Queue
    state: State
    hold: Hold | None
    reason: Reason | None
    people: int
    ready_since: datetime | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class DayFigures:
    """What has happened since a moment, and how many agents hold a person now."""

    agents_on_assignment: int
    prevented_calls: int
    callbacks_missed: int


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """How many calls of an agent had an outcome, or how many conversions are credited to the agent.

    `outcome` is None for conversions and for calls without a report; `agent_id` is None for
    conversions that are credited to no agent.
    """

    agent_id: AgentId | None
    outcome: Outcome | None
    number: int
    is_conversion: bool = False
    disposition: str | None = None

    @property
    def is_unreported(self) -> bool:
        """Whether these are calls that the agent has not reported."""
        return self.outcome is None and not self.is_conversion


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
) -> dict[UserId, list[RecentAttempt]]:
    """Return each person's latest calls, newest first."""
    rows = await tx.execute(_RECENT, {"user_ids": list(user_ids)})
    found: dict[UserId, list[RecentAttempt]] = {}
    for user_id, agent_id, outcome, *others in rows.all():
        reported = None if outcome is None else Outcome(outcome)
        attempt = RecentAttempt(agent_id, reported, *others)
        found.setdefault(UserId(user_id), []).append(attempt)
    return found


def latest_attempts_sql(where: str) -> str:
    """Return the SQL of the latest calls that are so, newest first."""
    return (
        "SELECT agent_id, outcome, ended_at, notes, disposition FROM queue.attempts"  # noqa: S608 - our own
        f" WHERE {where} ORDER BY ended_at DESC LIMIT {RECENT_ATTEMPTS}"
    )


_RECENT = statement(
    f"""
    SELECT given.user_id, latest.agent_id, latest.outcome, latest.ended_at, latest.notes,
        latest.disposition
    FROM unnest(CAST(:user_ids AS bigint[])) AS given(user_id)
    CROSS JOIN LATERAL ({latest_attempts_sql("attempts.user_id = given.user_id")}) AS latest
    ORDER BY given.user_id, latest.ended_at DESC
    """  # noqa: S608 - our own column names
)


async def oldest_snapshot_seconds(tx: Transaction) -> float:
    """Return the age of the oldest snapshot; snapshots of other roles may be hidden."""
    return float((await tx.execute(_OLDEST_SNAPSHOT)).scalar_one())


_OLDEST_SNAPSHOT = statement(
    "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)"
    " FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND datname = current_database()"
)


async def place_figures(tx: Transaction) -> list[PlaceFigures]:
    """Return the figures of each place that holds people in a queue or with an open case."""
    rows = await tx.execute(_PLACE_FIGURES)
    return [
        PlaceFigures(
            queue=Queue(row[0]),
            state=State(row[1]),
            hold=None if row[2] is None else Hold(row[2]),
            reason=None if row[3] is None else Reason(row[3]),
            people=row[4],
            ready_since=row[5],
            due_at=row[6],
        )
        for row in rows.all()
    ]


_PLACE_FIGURES = statement(
    """
    SELECT COALESCE(queue, open_case_queue), state, hold, CASE WHEN queue IS NULL THEN reason END,
        count(*), min(ready_since), min(due_at)
    FROM queue.entries WHERE queue IS NOT NULL OR open_case_queue IS NOT NULL GROUP BY 1, 2, 3, 4
    """
)


async def day_figures(tx: Transaction, since: datetime) -> DayFigures:
    """Return what has happened since then."""
    row = (await tx.execute(_DAY_FIGURES, {"since": since})).one()
    return DayFigures(*row)


_DAY_FIGURES = statement(
    f"""
    SELECT (SELECT count(*) FROM queue.assignments WHERE ended_at IS NULL),
        (SELECT count(*) FROM queue.prevented_calls WHERE prevented_at >= :since),
        (SELECT count(*) FROM queue.callbacks WHERE state = {int(CallbackState.MISSED)})
    """  # noqa: S608 - our own number
)


async def agent_figures(tx: Transaction, since: datetime) -> list[AgentFigures]:
    """Return the calls and conversions since then, by agent and outcome."""
    rows = await tx.execute(_AGENT_FIGURES, {"since": since})
    return [
        AgentFigures(row[0], None if row[1] is None else Outcome(row[1]), *row[2:5])
        for row in rows.all()
    ]


_AGENT_FIGURES = statement(
    """
    SELECT agent_id, outcome, count(*), false, disposition
    FROM queue.attempts WHERE ended_at >= :since GROUP BY 1, 2, 5
    UNION ALL
    SELECT agent_id, NULL, count(*), true, NULL FROM queue.conversions WHERE recorded_at >= :since
    GROUP BY 1
    """
)


async def people_ahead(tx: Transaction, entry: Entry) -> int:
    """Return how many READY people of the same queue come before this one."""
    values = {"queue": entry.queue, "rank_key": entry.rank_key, "user_id": entry.user_id}
    return int((await tx.execute(_PEOPLE_AHEAD, values)).scalar_one())


_PEOPLE_AHEAD = statement(
    f"""
    SELECT count(*) FROM queue.entries
    WHERE queue = :queue AND state = {int(State.READY)} AND rank_key <= :rank_key
        AND (rank_key < :rank_key OR user_id > :user_id)
    """  # noqa: S608 - our own number
)


async def people_ready_longer(tx: Transaction, entry: Entry) -> int:
    """Return how many READY people of the same queue have been ready for longer than this one."""
    values = {
        "queue": entry.queue,
        "ready_since": entry.ready_since,
        "user_id": entry.user_id,
    }
    return int((await tx.execute(_PEOPLE_READY_LONGER, values)).scalar_one())


_PEOPLE_READY_LONGER = statement(
    f"""
    SELECT count(*) FROM queue.entries
    WHERE queue = :queue AND state = {int(State.READY)}
        AND (ready_since, user_id) < (CAST(:ready_since AS timestamptz), :user_id)
    """  # noqa: S608 - our own number
)


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which people of a list are asked for; None for any."""

    queue: Queue
    state: State
    hold: Hold | None = None
    reason: Reason | None = None
    last_outcome: Outcome | None = None
    agent_id: AgentId | None = None
    attempts_at_least: int = 0


async def page(
    tx: Transaction, asked: EntryFilter, after: PagePosition | None, limit: int
) -> list[Entry]:
    """Return up to `limit` entries of a queue in one state after a position.

    READY people come in the order of handing out, WAITING ones as they fall due, the rest newest
    first. People in no queue are found by their open case.
    """
    first, following = _PAGES[asked.state]
    values: dict[str, Any] = {
        "queue": asked.queue,
        "limit": limit,
        "hold": asked.hold,
        "reason": asked.reason,
        "last_outcome": asked.last_outcome,
        "agent_id": asked.agent_id,
        "attempts_at_least": asked.attempts_at_least,
    }
    if after is not None:
        values |= {"user_id": after.user_id, "key": after.key}
    rows = await tx.execute(first if after is None else following, values)
    return [entry_of(row) for row in rows.all()]


_FILTERED = """attempts >= :attempts_at_least
        AND (CAST(:hold AS smallint) IS NULL OR hold = :hold)
        AND (CAST(:reason AS text) IS NULL OR reason = :reason)
        AND (CAST(:last_outcome AS smallint) IS NULL OR last_outcome = :last_outcome)
        AND (CAST(:agent_id AS text) IS NULL OR COALESCE(agent_id, last_agent_id) = :agent_id)"""


def _page(where: str, key: str | None, kind: str = "") -> tuple[TextClause, TextClause]:
    columns = "user_id DESC" if key is None else f"{key}, user_id DESC"
    after = (
        "user_id < :user_id"
        if key is None
        else f"({key} > CAST(:key AS {kind})"
        f" OR ({key} = CAST(:key AS {kind}) AND user_id < :user_id))"
        # The same once more, in a form for which PostgreSQL reads an index range.
        f" AND {key} >= CAST(:key AS {kind})"
    )
    select = f"SELECT {COLUMN_NAMES} FROM queue.entries WHERE {where} AND {_FILTERED}"  # noqa: S608
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
    State.SUPPRESSED: _page(f"open_case_queue = :queue AND state = {int(State.SUPPRESSED)}", None),
    State.OUT: _page(f"open_case_queue = :queue AND state = {int(State.OUT)}", None),
}


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call; `outcome` is None while the agent has not reported it."""

    assignment_id: UUID
    agent_id: AgentId
    queue: Queue
    outcome: Outcome | None
    ended_at: datetime
    callback_at: datetime | None
    notes: str
    disposition: str | None
    direction: Direction


async def calls(
    tx: Transaction, user_id: UserId, before: tuple[datetime, UUID] | None, limit: int
) -> list[RecordedCall]:
    """Return a person's calls before a position, the latest first."""
    moment, identifier = before or (None, None)
    rows = await tx.execute(
        _CALLS, {"user_id": user_id, "moment": moment, "identifier": identifier, "limit": limit}
    )
    return [
        RecordedCall(
            *(row[0], row[1], Queue(row[2]), None if row[3] is None else Outcome(row[3])),
            *(*row[4:8], Direction(row[8])),
        )
        for row in rows.all()
    ]


_CALLS = statement(
    """
    SELECT assignment_id, agent_id, queue, outcome, ended_at, callback_at, notes, disposition,
        direction
    FROM queue.attempts
    WHERE user_id = :user_id
        AND (CAST(:moment AS timestamptz) IS NULL
            OR (ended_at, assignment_id) < (:moment, CAST(:identifier AS uuid)))
    ORDER BY ended_at DESC, assignment_id DESC LIMIT :limit
    """
)
