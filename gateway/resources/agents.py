"""Agents: their own presence; for supervisors every agent's presence, assignment and figures."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Body, Path, Query
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from gateway.resources.assignments import Assignment
from gateway.resources.fields import (
    AGENT_ID_PATTERN,
    OUTCOMES,
    QUEUES,
    CallerOf,
    EnumNames,
    HarmlessKey,
    Moment,
    Outcome,
    QueueName,
    RequestBody,
    optional_in,
)
from servicekit.call_state_json import moment_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub


class Presence(StrEnum):
    """What an agent is doing."""

    AVAILABLE = "available"
    ON_CALL = "on_call"
    WRAP_UP = "wrap_up"
    BREAK = "break"
    OFFLINE = "offline"


PRESENCES = EnumNames(Presence, queue_pb2.Presence)


class OutcomeCount(BaseModel):
    """How many calls had one outcome."""

    outcome: Outcome | None
    calls: int


class AgentDay(BaseModel):
    """What one agent has done since midnight in the company's time zone."""

    agent_id: str
    calls: int
    outcomes: list[OutcomeCount]
    conversions: int
    unreported_calls: int = Field(
        description="Calls that the agent has not reported; `calls` does not count them."
    )

    @classmethod
    def of(cls, message: queue_pb2.AgentDay) -> Self:
        """Return what the message says."""
        return cls(
            agent_id=message.agent_id,
            calls=sum(it.calls for it in message.outcomes),
            outcomes=outcome_counts(message.outcomes),
            conversions=message.conversions,
            unreported_calls=message.unreported_calls,
        )


class Agent(BaseModel):
    """An agent with presence, assignment and today's figures."""

    agent_id: str
    presence: Presence | None = Field(
        description="offline once the agent has sent no sign of life for too long."
    )
    presence_since: Moment | None
    last_seen_at: Moment | None
    allowed_queues: list[QueueName] = Field(description="Empty: the agent is not limited.")
    assignment: Assignment | None
    today: AgentDay
    open_callbacks: int | None = Field(
        description="Open callbacks that prefer the agent; null in answers to a change."
    )
    skips_last_hour: int | None = Field(
        description="People whom the agent has skipped within the last hour; null in answers to a "
        "change."
    )

    @classmethod
    def of(cls, message: queue_pb2.Agent) -> Self:
        """Return what the message says."""
        held = message.HasField("assignment")
        return cls(
            agent_id=message.agent_id,
            presence=PRESENCES.name(message.presence),
            presence_since=moment_in(message, "presence_since"),
            last_seen_at=moment_in(message, "last_seen_at"),
            allowed_queues=[name for it in message.allowed_queues if (name := QUEUES.name(it))],
            assignment=Assignment.of(message.assignment) if held else None,
            today=AgentDay.of(message.today),
            open_callbacks=optional_in(message, "open_callbacks"),
            skips_last_hour=optional_in(message, "skips_last_hour"),
        )


class AgentList(BaseModel):
    """Every agent that the queue has seen, by id."""

    agents: list[Agent]


class PresenceRequest(RequestBody):
    """What the agent is doing."""

    presence: Presence


class AgentQueuesRequest(RequestBody):
    """The queues that an agent is limited to."""

    allowed_queues: Annotated[list[QueueName], Field(max_length=10)] = Field(
        description="An empty list lifts the limit."
    )


AgentIdPath = Annotated[
    str, Path(pattern=AGENT_ID_PATTERN, description="The agent's id.", examples=["agent-1"])
]


class AgentRoutes:
    """Presence and limits of agents."""

    def __init__(self, queue: "QueueServiceAsyncStub") -> None:
        self._queue = queue

    async def set_presence(
        self, caller: CallerOf, body: Annotated[PresenceRequest, Body()], key: HarmlessKey = None
    ) -> Agent:
        """Set the agent's presence; counts as a sign of life."""
        number = PRESENCES.number(body.presence)
        request = queue_pb2.SetAgentPresenceRequest(agent_id=caller.subject, presence=number)
        return Agent.of((await self._queue.SetAgentPresence(request)).agent)

    async def me(self, caller: CallerOf) -> Agent:
        """The agent's own presence, assignment and figures of the day."""
        request = queue_pb2.GetAgentRequest(agent_id=caller.subject)
        return Agent.of((await self._queue.GetAgent(request)).agent)

    async def agents(
        self,
        presence: Annotated[
            Presence | SkipJsonSchema[None], Query(description="Only agents with this presence.")
        ] = None,
    ) -> AgentList:
        """Every agent that the queue has seen, with today's figures."""
        request = queue_pb2.ListAgentsRequest(presence=PRESENCES.number(presence))
        answer = await self._queue.ListAgents(request)
        return AgentList(agents=[Agent.of(it) for it in answer.agents])

    async def set_queues(
        self,
        caller: CallerOf,
        agent_id: AgentIdPath,
        body: Annotated[AgentQueuesRequest, Body()],
        key: HarmlessKey = None,
    ) -> Agent:
        """Limit an agent to some queues, or lift the limit."""
        answer = await self._queue.SetAgentQueues(
            queue_pb2.SetAgentQueuesRequest(
                agent_id=agent_id,
                allowed_queues=[QUEUES.number(it) for it in body.allowed_queues],
                actor_id=caller.subject,
            )
        )
        return Agent.of(answer.agent)


def outcome_counts(counts: "Iterable[queue_pb2.OutcomeCount]") -> list[OutcomeCount]:
    """Return what the messages say."""
    return [OutcomeCount(outcome=OUTCOMES.name(it.outcome), calls=it.calls) for it in counts]
