"""Statements on agents."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.queue.store.database import Transaction, statement
from services.queue.store.writing import Write, write
from services.queue.types import AgentId, Presence, Queue, UserId


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as last seen; `allowed_queues` is None for an agent without limits."""

    agent_id: AgentId
    presence: Presence
    presence_since: datetime
    last_seen_at: datetime
    allowed_queues: frozenset[Queue] | None
    skipped_user_id: UserId | None


_COLUMNS = "agent_id, presence, presence_since, last_seen_at, allowed_queues, skipped_user_id"


def _agent_of(row: Sequence[Any]) -> Agent:
    allowed = None if row[4] is None else frozenset(map(Queue, row[4]))
    return Agent(AgentId(row[0]), Presence(row[1]), row[2], row[3], allowed, row[5])


async def set_presence(
    tx: Transaction, agent_id: AgentId, presence: Presence, now: datetime
) -> Agent:
    """Set an agent's presence; the same presence again only sets when the agent was seen."""
    rows = await tx.execute(_SET_PRESENCE, {"agent_id": agent_id, "presence": presence, "now": now})
    return _agent_of(rows.one())


_SET_PRESENCE = statement(
    f"""
    INSERT INTO queue.agents AS agent (agent_id, presence, presence_since, last_seen_at)
    VALUES (:agent_id, :presence, :now, :now)
    ON CONFLICT (agent_id) DO UPDATE SET
        presence = excluded.presence,
        presence_since = CASE WHEN agent.presence = excluded.presence
            THEN agent.presence_since ELSE excluded.presence_since END,
        last_seen_at = excluded.last_seen_at
    RETURNING {_COLUMNS}
    """  # noqa: S608 - our own column names
)


async def set_queues(
    tx: Transaction, agent_id: AgentId, queues: frozenset[Queue] | None, now: datetime
) -> Agent:
    """Limit an agent to queues, None for no limit; an unknown agent counts as offline."""
    rows = await tx.execute(
        _SET_QUEUES,
        {
            "agent_id": agent_id,
            "presence": Presence.OFFLINE,
            "queues": None if queues is None else sorted(map(int, queues)),
            "now": now,
        },
    )
    return _agent_of(rows.one())


_SET_QUEUES = statement(
    f"""
    INSERT INTO queue.agents (agent_id, presence, presence_since, last_seen_at, allowed_queues)
    VALUES (:agent_id, :presence, :now, :now, CAST(:queues AS smallint[]))
    ON CONFLICT (agent_id) DO UPDATE SET allowed_queues = excluded.allowed_queues
    RETURNING {_COLUMNS}
    """  # noqa: S608 - our own column names
)


async def seen(
    tx: Transaction, agent_ids: Sequence[AgentId], now: datetime, skipped: UserId | None = None
) -> None:
    """Note that agents were seen, and which person they have just skipped, if any."""
    rows = [(agent_id, Presence.AVAILABLE, now, skipped) for agent_id in sorted(agent_ids)]
    await write(tx, _SEEN, rows)


_SEEN = Write(
    "seen",
    (
        ("agent_id", "text"),
        ("presence", "smallint"),
        ("seen_at", "timestamptz"),
        ("skipped_user_id", "bigint"),
    ),
    """
    INSERT INTO queue.agents AS agent
        (agent_id, presence, presence_since, last_seen_at, skipped_user_id)
    SELECT agent_id, presence, seen_at, seen_at, skipped_user_id FROM {given} ORDER BY agent_id
    ON CONFLICT (agent_id) DO UPDATE SET
        last_seen_at = greatest(agent.last_seen_at, excluded.last_seen_at),
        skipped_user_id = COALESCE(excluded.skipped_user_id, agent.skipped_user_id)
    """,
)


async def every(tx: Transaction) -> list[Agent]:
    """Return every agent known, by id."""
    return [_agent_of(row) for row in (await tx.execute(_EVERY)).all()]


_EVERY = statement(
    f"SELECT {_COLUMNS} FROM queue.agents ORDER BY agent_id"  # noqa: S608 - our own column names
)


async def find(tx: Transaction, agent_id: AgentId) -> Agent | None:
    """Return an agent."""
    row = (await tx.execute(_FIND, {"agent_id": agent_id})).one_or_none()
    return None if row is None else _agent_of(row)


_FIND = statement(
    f"SELECT {_COLUMNS} FROM queue.agents WHERE agent_id = :agent_id"  # noqa: S608 - our own
)
