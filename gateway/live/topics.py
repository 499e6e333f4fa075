"""The topics of the event stream: which role may follow which, and the JSON of their figures."""

from collections import Counter
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Self

from dialler.queue.v1 import queue_pb2
from pydantic import BaseModel, Field

from gateway.access.auth import Caller, Role
from gateway.resources.agents import PRESENCES
from gateway.resources.assignments import Assignment
from gateway.resources.fields import Moment
from gateway.resources.pipeline import Pipeline
from gateway.resources.queues import Queues, QueueStats
from servicekit.call_state_json import moment_in
from servicekit.errors import PermissionDenied

MOST_AGENTS_LISTED = 200

_UNAVAILABLE = "Reason code by part that is null because its service could not be asked."


# Agents on a call come first: supervisors look for them.
_ORDER = ("on_call", "wrap_up", "available", "break")


class Topic(StrEnum):
    """A topic that a stream can be opened for."""

    ASSIGNMENT = "assignment"
    QUEUES = "queues"
    WALLBOARD = "wallboard"
    PIPELINE = "pipeline"


# Only agents have assignments.
_ROLES = {
    Topic.ASSIGNMENT: frozenset({Role.AGENT}),
    Topic.QUEUES: frozenset(Role),
    Topic.WALLBOARD: frozenset({Role.SUPERVISOR}),
    Topic.PIPELINE: frozenset({Role.SUPERVISOR, Role.SERVICE}),
}


def require(caller: Caller, topics: Collection[Topic]) -> None:
    """Raise PermissionDenied (TOPIC_NOT_ALLOWED) unless the caller may follow all of them."""
    for each in topics:
        if caller.role not in _ROLES[each]:
            raise PermissionDenied(
                "TOPIC_NOT_ALLOWED",
                f"the topic {each} is not allowed to role {caller.role}",
                topic=each,
                role=caller.role,
            )


class AgentNow(BaseModel):
    """One present agent."""

    agent_id: str
    presence: str
    since: Moment | None
    calls_today: int
    conversions_today: int


class UnreportedCalls(BaseModel):
    """An agent's calls of today without a report."""

    agent_id: str
    calls: int


class AgentsNow(BaseModel):
    """Agents by presence; only `unreported` includes absent agents."""

    present: int
    on_call: int
    available: int
    wrap_up: int
    on_break: int
    listed: list[AgentNow] = Field(max_length=MOST_AGENTS_LISTED)
    unreported: list[UnreportedCalls] = Field(
        max_length=MOST_AGENTS_LISTED,
        description="Agents with calls without a report, the most first; absent agents included.",
    )

    @classmethod
    def of(cls, agents: Sequence[queue_pb2.Agent]) -> Self:
        """Return what the messages say."""
        presences = [
            (each, "on_call" if each.HasField("assignment") else PRESENCES.name(each.presence))
            for each in agents
        ]
        present = [(each, name) for each, name in presences if name in _ORDER]
        present.sort(key=lambda it: (_ORDER.index(it[1]), it[0].agent_id))
        counts = Counter(name for _, name in present)
        unreported = [
            UnreportedCalls(agent_id=each.agent_id, calls=each.today.unreported_calls)
            for each in agents
            if each.today.unreported_calls
        ]
        unreported.sort(key=lambda it: (-it.calls, it.agent_id))
        return cls(
            present=len(present),
            on_call=counts["on_call"],
            available=counts["available"],
            wrap_up=counts["wrap_up"],
            on_break=counts["break"],
            listed=[
                AgentNow(
                    agent_id=each.agent_id,
                    presence=name,
                    since=moment_in(each, "presence_since"),
                    calls_today=sum(it.calls for it in each.today.outcomes),
                    conversions_today=each.today.conversions,
                )
                for each, name in present[:MOST_AGENTS_LISTED]
            ],
            unreported=unreported[:MOST_AGENTS_LISTED],
        )


class HeldAssignment(BaseModel):
    """`assignment`, of the topic of that name: the agent's assignment when the stream begins."""

    assignment: Assignment | None


class QueueSizes(BaseModel):
    """`queues`, of the topic of that name: the sizes of the queues that the caller may work."""

    queues: list[QueueStats] | None
    unavailable: dict[str, str] = Field(description=_UNAVAILABLE)


class Wallboard(BaseModel):
    """`wallboard`, of the topic of that name: the present figures."""

    figures: Queues | None
    outcomes_today: dict[str, int] | None = Field(description="Calls since midnight by outcome.")
    callbacks_missed: int | None
    agents: AgentsNow | None
    unavailable: dict[str, str] = Field(description=_UNAVAILABLE)


class Sample(BaseModel):
    """Some figures of one moment; null where they were unknown."""

    at: int = Field(description="Unix seconds.")
    ready: dict[str, int] = Field(description="People ready to be called, by queue.")
    calls: int | None = Field(description="Since midnight.")
    conversions: int | None = Field(description="Since midnight.")
    on_call: int | None
    p50: float | None = Field(description="Seconds within which half of changes were visible.")
    p99: float | None
    backlog: int | None


class LastHour(BaseModel):
    """`history`, of the topic `wallboard`: samples of the last hour, oldest first."""

    samples: list[Sample]


# By the name of the server-sent event.
SHOWN: dict[str, type[BaseModel]] = {
    "assignment": HeldAssignment,
    "queues": QueueSizes,
    "wallboard": Wallboard,
    "history": LastHour,
    "pipeline": Pipeline,
}
