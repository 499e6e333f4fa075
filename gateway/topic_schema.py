"""The JSON of what a stream's topics show beside events, for the API's description."""

from pydantic import BaseModel, Field

from gateway.pipeline import Pipeline
from gateway.schemas import Assignment, Queues, QueueStats
from gateway.wallboard import AgentsNow

_UNAVAILABLE = "Reason code by part that is null because its service could not be asked."


class HeldAssignment(BaseModel):
    """`assignment`, of the topic of that name: what the agent holds when the stream begins."""

    assignment: Assignment | None


class QueueSizes(BaseModel):
    """`queues`, of the topic of that name: those the caller may see."""

    queues: list[QueueStats] | None
    unavailable: dict[str, str] = Field(description=_UNAVAILABLE)


class Wallboard(BaseModel):
    """`wallboard`, of the topic of that name: everything of this moment."""

    figures: Queues | None
    outcomes_today: dict[str, int] | None = Field(description="Calls since midnight by outcome.")
    callbacks_missed: int | None
    agents: AgentsNow | None
    unavailable: dict[str, str] = Field(description=_UNAVAILABLE)


class Sample(BaseModel):
    """A few figures of one moment; null for what was not known."""

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
