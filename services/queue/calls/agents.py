"""Agents: their presence, the queues they may take from, and what they have done today."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from services.queue.people.rulebook import Rulebook
from services.queue.reads.figures import QueueFigures
from services.queue.store import agents, assignments, audit, callbacks
from services.queue.store.agents import Agent
from services.queue.store.assignments import Assignment
from services.queue.store.database import Database
from services.queue.types import Action, AgentId, Presence, Queue
from services.queue.wire import messages


class Agents:
    """Presence and limits of agents.

    Only the agent sets the presence that is kept. An agent that sends nothing for a while is shown
    as offline, and with its presence of before as soon as it sends something.
    """

    def __init__(
        self, database: Database, rulebook: Rulebook, figures: QueueFigures, clock: Clock
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._figures = figures
        self._clock = clock

    async def set_presence(self, agent_id: AgentId, presence: Presence) -> queue_pb2.Agent:
        """Set the agent's presence."""
        now = self._clock.now()
        async with self._database.statements() as tx:
            agent = await agents.set_presence(tx, agent_id, presence, now)
            held = await assignments.live_of_agent(tx, agent_id)
        return self._message(agent, held, await self._figures.agent_days(), now)

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
        return self._message(agent, held, await self._figures.agent_days(), now)

    async def one(self, agent_id: AgentId) -> queue_pb2.Agent:
        """Return an agent; one that was never seen is offline."""
        now = self._clock.now()
        async with self._database.statements() as tx:
            known = await agents.find(tx, agent_id)
            held = await assignments.live_of_agent(tx, agent_id)
            skips = await audit.skips_last_hour(tx, now, agent_id)
            open_ = await callbacks.open_by_agent(tx, agent_id)
        if known is None:
            return queue_pb2.Agent(
                agent_id=agent_id,
                presence=queue_pb2.PRESENCE_OFFLINE,
                today=queue_pb2.AgentDay(agent_id=agent_id),
                skips_last_hour=0,
                open_callbacks=open_.get(agent_id, 0),
            )
        found = self._message(known, held, await self._figures.agent_days(), now)
        found.skips_last_hour = skips.get(agent_id, 0)
        found.open_callbacks = open_.get(agent_id, 0)
        return found

    async def every(self, presence: Presence | None) -> Sequence[queue_pb2.Agent]:
        """Return every known agent, by id; only agents of one presence if it is given."""
        now = self._clock.now()
        async with self._database.statements() as tx:
            known = await agents.every(tx)
            held = await assignments.live_of_agents(tx)
            skips = await audit.skips_last_hour(tx, now)
            open_ = await callbacks.open_by_agent(tx)
        days = await self._figures.agent_days()
        found = [self._message(it, held.get(it.agent_id), days, now) for it in known]
        for it in found:
            it.skips_last_hour = skips.get(AgentId(it.agent_id), 0)
            it.open_callbacks = open_.get(AgentId(it.agent_id), 0)
        number = messages.presence_number(presence) if presence is not None else None
        return [it for it in found if number in (None, it.presence)]

    def _message(
        self,
        agent: Agent,
        held: Assignment | None,
        days: Mapping[AgentId, queue_pb2.AgentDay],
        now: datetime,
    ) -> queue_pb2.Agent:
        live = held if held is not None and held.is_live(now) else None
        silence = timedelta(seconds=self._rulebook.rules.agents.presence_seconds)
        presence = agent.presence if live is None else Presence.ON_CALL
        if agent.last_seen_at + silence <= now:
            presence = Presence.OFFLINE
        return messages.agent_message(agent, presence, live, days.get(agent.agent_id))
