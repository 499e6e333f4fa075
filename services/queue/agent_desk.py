"""Who is at work, what they may take, and what they have done today."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from services.queue import messages
from services.queue.domain.terms import Action, AgentId, Presence, Queue
from services.queue.figures import Figures
from services.queue.rulebook import Rulebook
from services.queue.store import agents, assignments, audit
from services.queue.store.agents import Agent
from services.queue.store.assignments import Assignment
from services.queue.store.database import Database


class AgentDesk:
    """Presence and limits of agents.

    Nothing but an agent's own word changes what is kept of their presence: one who is not heard
    of counts as offline, and comes back as whatever they were.
    """

    def __init__(
        self, database: Database, rulebook: Rulebook, figures: Figures, clock: Clock
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._figures = figures
        self._clock = clock

    async def set_presence(self, agent_id: AgentId, presence: Presence) -> queue_pb2.Agent:
        """Note what the agent says of themselves."""
        now = self._clock.now()
        async with self._database.statements() as tx:
            agent = await agents.set_presence(tx, agent_id, presence, now)
            held = await assignments.live_of_agent(tx, agent_id)
        return await self._told(agent, held, now)

    async def set_queues(
        self, agent_id: AgentId, queues: frozenset[Queue] | None, actor_id: AgentId
    ) -> queue_pb2.Agent:
        """Limit an agent to queues; None for no limit."""
        now = self._clock.now()
        names = ",".join(sorted(queue.name.lower() for queue in queues or ()))
        async with self._database.transaction() as tx:
            agent = await agents.set_queues(tx, agent_id, queues, now)
            held = await assignments.live_of_agent(tx, agent_id)
            details = {"agent_id": agent_id, "allowed_queues": names}
            await audit.note(tx, actor_id, Action.QUEUES_SET, [None], now, **details)
        return await self._told(agent, held, now)

    async def every(self, presence: Presence | None) -> Sequence[queue_pb2.Agent]:
        """Return every agent known, by id; those of one presence if it is given."""
        now = self._clock.now()
        async with self._database.statements() as tx:
            known = await agents.every(tx)
            held = await assignments.live_of_agents(tx)
        days = await self._figures.agent_days()
        told = [
            self._message(it, held.get(it.agent_id), days.get(it.agent_id), now) for it in known
        ]
        number = messages.presence_number(presence) if presence is not None else None
        return [it for it in told if number in (None, it.presence)]

    async def _told(self, agent: Agent, held: Assignment | None, now: datetime) -> queue_pb2.Agent:
        days = await self._figures.agent_days()
        return self._message(agent, held, days.get(agent.agent_id), now)

    def _message(
        self,
        agent: Agent,
        held: Assignment | None,
        day: queue_pb2.AgentDay | None,
        now: datetime,
    ) -> queue_pb2.Agent:
        live = held if held is not None and held.is_live(now) else None
        return messages.agent_message(agent, self._presence(agent, live, now), live, day)

    def _presence(self, agent: Agent, held: Assignment | None, now: datetime) -> Presence:
        silence = timedelta(seconds=self._rulebook.rules.agents.presence_seconds)
        if agent.last_seen_at + silence <= now:
            return Presence.OFFLINE
        return Presence.ON_CALL if held is not None else agent.presence
