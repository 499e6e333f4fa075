"""The call state of a person: the part of the context that the queue owns."""

from typing import Self

from dialler.model.v1 import call_state_pb2
from pydantic import BaseModel, Field

from gateway.resources.callbacks import Callback
from gateway.resources.fields import (
    BY_DISPOSITION,
    NOT_REPORTED,
    EntryState,
    Hold,
    Id,
    Moment,
    Outcome,
    QueueName,
)
from servicekit.call_state_json import call_state_json


class Attempt(BaseModel):
    """One call."""

    agent_id: str
    outcome: Outcome | None = Field(description=NOT_REPORTED)
    ended_at: Moment | None
    notes: str
    disposition: str | None = Field(default=None, description=BY_DISPOSITION)


class CallState(BaseModel):
    """The call state of a person: the part of the context that the queue owns."""

    user_id: Id
    queue: QueueName | None
    state: EntryState | None = Field(description="null: the queue does not know the person.")
    reason: str
    score: float
    attempts: int = Field(description="Calls, including those without a report.")
    last_outcome: Outcome | None
    last_contact_at: Moment | None
    next_call_at: Moment | None = Field(description="null: now.")
    assigned_agent_id: str | None
    recent_attempts: list[Attempt]
    version: Id
    hold: Hold | None = Field(description="What keeps the person from being called now.")
    open_callback: Callback | None

    @classmethod
    def of(cls, message: call_state_pb2.CallState) -> Self:
        """Return what the message says."""
        return cls(**call_state_json(message))
