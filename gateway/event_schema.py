"""The JSON of one server-sent event, for the API's description; `gateway.events` renders it."""

from typing import Literal

from pydantic import BaseModel, Field

from gateway.schemas import Conversion, EntryState, EventType, Id, Moment, Outcome, QueueName


class Timeline(BaseModel):
    """The way of the main app's change that caused an event."""

    committed_at: Moment | None
    captured_at: Moment | None
    received_at: Moment | None
    refreshed_at: Moment | None
    applied_at: Moment | None


class Event(BaseModel):
    """What one server-sent event says; ids and states, never personal data."""

    event_id: str = Field(description="Unique; a repeated delivery carries the same id.")
    type: EventType | Literal["unknown"] = Field(description="unknown: newer than this gateway.")
    user_id: Id
    occurred_at: Moment | None
    queue_before: QueueName | None
    queue_after: QueueName | None
    state: EntryState | None
    agent_id: str | None
    assignment_id: str | None
    outcome: Outcome | None
    conversion: Conversion | None
    timeline: Timeline | None
    traceparent: str | None
