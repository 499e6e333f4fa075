"""Statements on assignments and attempts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.queue.domain.outcomes import CallReport
from services.queue.store.database import (
    Transaction,
    names,
    statement,
)
from services.queue.store.idempotency_records import IdempotencyRecord, IdempotentRequest
from services.queue.store.writing import Write, write
from services.queue.types import (
    AgentId,
    Direction,
    Ending,
    Outcome,
    Presence,
    Queue,
    Reason,
    UserId,
)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A person handed to an agent. Live while `ended_at` is None and the lease lasts.

    `lines` are the person's at that moment; `heartbeat_at` is that of the last sign of a call.
    """

    assignment_id: UUID
    agent_id: AgentId
    user_id: UserId
    queue: Queue
    reason: Reason
    score: float
    fence: int
    started_at: datetime
    lease_expires_at: datetime
    lines: tuple[str, ...] = ()
    heartbeat_at: datetime | None = None
    ended_at: datetime | None = None
    ending: Ending | None = None
    direction: Direction = Direction.OUTBOUND

    def is_live(self, now: datetime) -> bool:
        """Return whether the agent still holds the person."""
        return self.ended_at is None and self.lease_expires_at > now

    @property
    def call_ended_at(self) -> datetime:
        """When the call ended: at the latest when the lease ran out, however late it is swept."""
        return min(self.ended_at or self.lease_expires_at, self.lease_expires_at)


@dataclass(frozen=True, slots=True)
class AgentSnapshot:
    """An agent who asks for the next person: the record of the request, and the assignment.

    `presence` is None for an unknown agent; `allowed_queues` is None for an agent without limits;
    `skipped_user_id` is the person skipped last, until the agent is handed another one.
    """

    answered: IdempotencyRecord | None
    held: Assignment | None
    presence: Presence | None
    allowed_queues: frozenset[Queue] | None
    skipped_user_id: UserId | None


ASSIGNMENT_COLUMNS = (
    *("assignment_id", "agent_id", "user_id", "queue", "reason", "score", "fence", "started_at"),
    *("lease_expires_at", "lines", "heartbeat_at", "ended_at", "ending", "direction"),
)
_COLUMNS = ", ".join(ASSIGNMENT_COLUMNS)


def assignment_of(row: Sequence[Any]) -> Assignment:
    """Return the assignment in a row that begins with `ASSIGNMENT_COLUMNS`."""
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
        lines=tuple(row[9]),
        heartbeat_at=row[10],
        ended_at=row[11],
        ending=None if row[12] is None else Ending(row[12]),
        direction=Direction(row[13]),
    )


async def snapshots(tx: Transaction, requests: Sequence[IdempotentRequest]) -> list[AgentSnapshot]:
    """Return a snapshot of each agent, in the order of the requests."""
    rows = await tx.execute(
        _SNAPSHOTS,
        {
            "agent_ids": [it.agent_id for it in requests],
            "request_ids": [it.request_id for it in requests],
        },
    )
    return [
        AgentSnapshot(
            answered=None if row[0] is None else IdempotencyRecord(*row[:3]),
            held=None if row[6] is None else assignment_of(row[6:]),
            presence=None if row[3] is None else Presence(row[3]),
            allowed_queues=None if row[4] is None else frozenset(map(Queue, row[4])),
            skipped_user_id=None if row[5] is None else UserId(row[5]),
        )
        for row in rows.all()
    ]


_SNAPSHOTS = statement(
    f"""
    SELECT request.method, request.payload_hash, request.response,
        agent.presence, agent.allowed_queues, agent.skipped_user_id,
        {", ".join(f"held.{name}" for name in ASSIGNMENT_COLUMNS)}
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


async def live_of_agent(tx: Transaction, agent_id: AgentId) -> Assignment | None:
    """Return the agent's assignment that has not ended; its lease may have run out."""
    row = (await tx.execute(_LIVE_OF_AGENT, {"agent_id": agent_id})).one_or_none()
    return None if row is None else assignment_of(row)


async def live_of_agents(tx: Transaction) -> dict[AgentId, Assignment]:
    """Return the assignment of every agent who has one."""
    rows = await tx.execute(_LIVE)
    return {it.agent_id: it for it in map(assignment_of, rows.all())}


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
    return None if row is None else assignment_of(row)


_LOCK = statement(
    f"SELECT {_COLUMNS} FROM queue.assignments"  # noqa: S608 - our own column names
    " WHERE assignment_id = :assignment_id FOR UPDATE"
)


async def expired(tx: Transaction, now: datetime, limit: int) -> list[UUID]:
    """Return live assignments whose lease has run out; nothing is locked."""
    rows = await tx.execute(_EXPIRED, {"now": now, "limit": limit})
    return [row[0] for row in rows.all()]


_EXPIRED = statement(
    "SELECT assignment_id FROM queue.assignments"
    " WHERE ended_at IS NULL AND lease_expires_at <= :now ORDER BY user_id LIMIT :limit"
)


async def free_ended_lines(tx: Transaction) -> None:
    """Free lines whose assignment has ended; code before 0005 does not free them."""
    await tx.execute(_FREE_ENDED_LINES)


_FREE_ENDED_LINES = statement(
    "DELETE FROM queue.live_lines USING queue.assignments AS ended"
    " WHERE ended.assignment_id = live_lines.assignment_id AND ended.ended_at IS NOT NULL"
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
    return None if found is None else assignment_of(found)


_EXTEND = statement(
    f"""
    UPDATE queue.assignments
    SET lease_expires_at = greatest(lease_expires_at, least(
        CAST(:until AS timestamptz),
        started_at + make_interval(secs => CAST(:longest_seconds AS double precision)))),
        heartbeat_at = :now
    WHERE assignment_id = :assignment_id AND agent_id = :agent_id AND ended_at IS NULL
        AND lease_expires_at > :now
    RETURNING {_COLUMNS}
    """  # noqa: S608 - our own column names
)


async def end(
    tx: Transaction,
    assignment_id: UUID,
    ending: Ending,
    now: datetime,
    notes: str | None = None,
    report_effects: str | None = None,
) -> None:
    """End a locked assignment; one that has ended keeps its time and takes the new ending.

    `notes` say why a supervisor ended it; `report_effects` are JSON.
    """
    await write(tx, _END, [(assignment_id, now, ending, notes, report_effects)])
    await write(tx, _FREE_LINES, [(assignment_id,)])


_END = Write(
    "ended",
    (
        ("assignment_id", "uuid"),
        ("ended_at", "timestamptz"),
        ("ending", "smallint"),
        ("end_notes", "text"),
        ("report_effects", "text"),
    ),
    """
    UPDATE queue.assignments AS held SET ended_at = COALESCE(held.ended_at, given.ended_at),
        ending = given.ending, end_notes = COALESCE(given.end_notes, held.end_notes),
        report_effects = CAST(given.report_effects AS jsonb)
    FROM {given} WHERE held.assignment_id = given.assignment_id
    """,
)
_FREE_LINES = Write(
    "freed",
    (("assignment_id", "uuid"),),
    "DELETE FROM queue.live_lines AS live USING {given}"
    " WHERE live.assignment_id = given.assignment_id",
)


async def insert(tx: Transaction, assignment: Assignment) -> bool:
    """Insert an assignment; False if it is live and its agent, person or a line is in another one.

    After False the transaction must be rolled back.
    """
    given = {**asdict(assignment), "lines": list(assignment.lines)}
    free, in_call = (await tx.execute(_INSERT, given)).one()
    return bool(free and in_call == (0 if assignment.ended_at else len(assignment.lines)))


_INSERT = statement(
    f"""
    WITH begun AS (
        INSERT INTO queue.assignments ({_COLUMNS})
        VALUES ({", ".join(f":{name}" for name in ASSIGNMENT_COLUMNS)})
        ON CONFLICT DO NOTHING
        RETURNING assignment_id, lines, ended_at
    ), called AS (
        INSERT INTO queue.live_lines (phone_e164, assignment_id)
        SELECT unnest(lines) AS phone_e164, assignment_id FROM begun WHERE ended_at IS NULL
        ORDER BY phone_e164
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM begun), (SELECT count(*) FROM called)
    """  # noqa: S608 - our own column names
)


async def holder_of(tx: Transaction, user_id: UserId, lines: Sequence[str]) -> Assignment | None:
    """Return the assignment of the person, or one of another person with one of these lines."""
    values = {"user_id": user_id, "lines": list(lines)}
    row = (await tx.execute(_HOLDER_OF, values)).one_or_none()
    return None if row is None else assignment_of(row)


_HOLDER_OF = statement(
    f"""
    SELECT {_COLUMNS} FROM queue.assignments AS live
    WHERE ended_at IS NULL AND (user_id = :user_id OR assignment_id IN (
        SELECT assignment_id FROM queue.live_lines
        WHERE phone_e164 = ANY(CAST(:lines AS text[]))))
    ORDER BY user_id <> :user_id, assignment_id LIMIT 1
    """  # noqa: S608 - our own column names
)


async def keep_attempt(
    tx: Transaction, assignment: Assignment, report: CallReport | None, ended_at: datetime
) -> None:
    """Keep a call, with the agent's report or None for none yet.

    A call that was kept before without a report gets this one.
    """
    attempt = (
        assignment.assignment_id,
        assignment.user_id,
        assignment.agent_id,
        assignment.queue,
        report and report.outcome,
        report.notes if report is not None else "",
        report and report.callback_at,
        ended_at,
        report and report.disposition,
        assignment.direction,
    )
    await write(tx, _KEEP_ATTEMPT, [attempt])
    lines = [
        (assignment.assignment_id, phone, assignment.user_id, ended_at)
        for phone in assignment.lines
    ]
    await write(tx, _KEEP_LINES, lines)


_ATTEMPT_COLUMNS = (
    ("assignment_id", "uuid"),
    ("user_id", "bigint"),
    ("agent_id", "text"),
    ("queue", "smallint"),
    ("outcome", "smallint"),
    ("notes", "text"),
    ("callback_at", "timestamptz"),
    ("ended_at", "timestamptz"),
    ("disposition", "text"),
    ("direction", "smallint"),
)
_KEEP_ATTEMPT = Write(
    "attempts_kept",
    _ATTEMPT_COLUMNS,
    f"""
    INSERT INTO queue.attempts AS kept ({names(_ATTEMPT_COLUMNS)})
    SELECT {names(_ATTEMPT_COLUMNS)} FROM {{given}}
    ON CONFLICT (assignment_id) DO UPDATE
    SET outcome = excluded.outcome, notes = excluded.notes, callback_at = excluded.callback_at,
        ended_at = excluded.ended_at, disposition = excluded.disposition
    WHERE excluded.outcome IS NOT NULL
    """,  # noqa: S608 - our own column names
)
_LINE_COLUMNS = (
    ("assignment_id", "uuid"),
    ("phone_e164", "text"),
    ("user_id", "bigint"),
    ("ended_at", "timestamptz"),
)
_KEEP_LINES = Write(
    "attempt_lines_kept",
    _LINE_COLUMNS,
    f"""
    INSERT INTO queue.attempt_lines ({names(_LINE_COLUMNS)})
    SELECT {names(_LINE_COLUMNS)} FROM {{given}}
    ON CONFLICT (assignment_id, phone_e164) DO UPDATE SET ended_at = excluded.ended_at
    """,  # noqa: S608 - our own column names
)


@dataclass(frozen=True, slots=True)
class KeptAttempt:
    """A call, which is kept longer than its assignment; `report` is None until there is one."""

    agent_id: AgentId
    user_id: UserId
    report: CallReport | None


async def attempt_of(tx: Transaction, assignment_id: UUID) -> KeptAttempt | None:
    """Return the call that was made within an assignment, if any."""
    row = (await tx.execute(_ATTEMPT_OF, {"assignment_id": assignment_id})).one_or_none()
    if row is None:
        return None
    report = None if row[2] is None else CallReport(Outcome(row[2]), *row[3:6])
    return KeptAttempt(AgentId(row[0]), UserId(row[1]), report)


_ATTEMPT_OF = statement(
    "SELECT agent_id, user_id, outcome, notes, callback_at, disposition FROM queue.attempts"
    " WHERE assignment_id = :assignment_id"
)


async def attempt_lines(tx: Transaction, assignment_id: UUID) -> list[str]:
    """Return the lines that a call counts for."""
    rows = await tx.execute(_ATTEMPT_LINES, {"assignment_id": assignment_id})
    return [row[0] for row in rows.all()]


_ATTEMPT_LINES = statement(
    "SELECT phone_e164 FROM queue.attempt_lines WHERE assignment_id = :assignment_id"
)
