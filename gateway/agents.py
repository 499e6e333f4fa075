"""Agents: their own presence, and for supervisors who is at work and holds whom."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

from dialler.queue.v1 import queue_pb2
from fastapi import Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from gateway.fields import (
    AGENT_ID_PATTERN,
    CallerOf,
    HarmlessKey,
    IdempotencyKey,
    RequiredNotes,
)
from gateway.schemas import (
    Assignment,
    CallState,
    Moment,
    Outcome,
    QueueName,
    Released,
    moment_in,
    name_in,
    outcome_name,
    queue_name,
    queue_number,
)

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


class OutcomeCount(BaseModel):
    """How many calls ended one way."""

    outcome: Outcome | None
    calls: int


class AgentDay(BaseModel):
    """What one agent has done since midnight in the company's time zone."""

    agent_id: str
    calls: int
    outcomes: list[OutcomeCount]
    conversions: int

    @classmethod
    def of(cls, message: queue_pb2.AgentDay) -> Self:
        """Return what the message says."""
        return cls(
            agent_id=message.agent_id,
            calls=sum(it.calls for it in message.outcomes),
            outcomes=outcome_counts(message.outcomes),
            conversions=message.conversions,
        )


class Agent(BaseModel):
    """An agent as the queue knows them."""

    agent_id: str
    presence: Presence | None = Field(description="offline when not heard of for too long.")
    presence_since: Moment | None
    last_seen_at: Moment | None
    allowed_queues: list[QueueName] = Field(description="Empty for no limit.")
    assignment: Assignment | None
    today: AgentDay

    @classmethod
    def of(cls, message: queue_pb2.Agent) -> Self:
        """Return what the message says."""
        presence = name_in(queue_pb2.Presence.Name, "PRESENCE_", message.presence)
        held = message.HasField("assignment")
        return cls(
            agent_id=message.agent_id,
            presence=Presence(presence) if presence else None,
            presence_since=moment_in(message, "presence_since"),
            last_seen_at=moment_in(message, "last_seen_at"),
            allowed_queues=[name for it in message.allowed_queues if (name := queue_name(it))],
            assignment=Assignment.of(message.assignment) if held else None,
            today=AgentDay.of(message.today),
        )


class Agents(BaseModel):
    """Every agent known, by id."""

    agents: list[Agent]


class Assignments(BaseModel):
    """Everybody who is with an agent, by agent."""

    assignments: list[Assignment]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PresenceRequest(_Input):
    """What the agent is doing."""

    presence: Presence


class AgentQueuesRequest(_Input):
    """Queues to be limited to."""

    allowed_queues: Annotated[list[QueueName], Field(max_length=10)] = Field(
        description="Empty lifts the limit."
    )


class ForceReleaseRequest(_Input):
    """Why somebody is taken away from an agent."""

    notes: RequiredNotes = Field(examples=["The agent's laptop is lost."])


AgentIdPath = Annotated[
    str, Path(pattern=AGENT_ID_PATTERN, description="The agent's id.", examples=["agent-1"])
]
AssignmentId = Annotated[UUID, Path(description="The assignment's id.")]


class AgentRoutes:
    """Who is at work and who holds whom."""

    def __init__(self, queue: "QueueServiceAsyncStub") -> None:
        self._queue = queue

    async def set_presence(
        self, caller: CallerOf, body: Annotated[PresenceRequest, Body()], key: HarmlessKey = None
    ) -> Agent:
        """Say what you are doing; counts as a sign of life."""
        number = queue_pb2.Presence.Value(f"PRESENCE_{body.presence.name}")
        request = queue_pb2.SetAgentPresenceRequest(agent_id=caller.subject, presence=number)
        return Agent.of((await self._queue.SetAgentPresence(request)).agent)

    async def agents(
        self,
        presence: Annotated[
            Presence | SkipJsonSchema[None], Query(description="Only agents of this one.")
        ] = None,
    ) -> Agents:
        """Every agent known, with today's figures."""
        name = "UNSPECIFIED" if presence is None else presence.name
        number = queue_pb2.Presence.Value(f"PRESENCE_{name}")
        answer = await self._queue.ListAgents(queue_pb2.ListAgentsRequest(presence=number))
        return Agents(agents=[Agent.of(it) for it in answer.agents])

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
                allowed_queues=[queue_number(it) for it in body.allowed_queues],
                actor_id=caller.subject,
            )
        )
        return Agent.of(answer.agent)

    async def assignments(self) -> Assignments:
        """Everybody who is with an agent now."""
        answer = await self._queue.ListAgents(queue_pb2.ListAgentsRequest())
        return Assignments(
            assignments=[
                Assignment.of(it.assignment) for it in answer.agents if it.HasField("assignment")
            ]
        )

    async def force_release(
        self,
        caller: CallerOf,
        assignment_id: AssignmentId,
        key: IdempotencyKey,
        body: Annotated[ForceReleaseRequest, Body()],
    ) -> Released:
        """End somebody's assignment; the person goes back to the queue."""
        answer = await self._queue.ForceReleaseAssignment(
            queue_pb2.ForceReleaseAssignmentRequest(
                assignment_id=str(assignment_id),
                actor_id=caller.subject,
                notes=body.notes,
                request_id=str(key),
            )
        )
        return Released(call_state=CallState.of(answer.call_state))


def outcome_counts(counts: "Iterable[queue_pb2.OutcomeCount]") -> list[OutcomeCount]:
    """Return what the messages say."""
    return [OutcomeCount(outcome=outcome_name(it.outcome), calls=it.calls) for it in counts]
