"""One event of the stream: its JSON, its position, and what one caller may see of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson
from dialler.model.v1 import event_pb2
from pydantic import BaseModel, Field

from gateway.access.auth import Caller, Role
from gateway.live.topics import Topic
from gateway.resources.fields import (
    CONVERSIONS,
    ENTRY_STATES,
    EVENT_TYPES,
    OUTCOMES,
    QUEUES,
    Conversion,
    EntryState,
    EventType,
    Id,
    Moment,
    Outcome,
    QueueName,
)
from servicekit.call_state_json import moment_in
from servicekit.event_stream import StreamPosition

_TIMELINE = ("committed_at", "captured_at", "received_at", "refreshed_at", "applied_at")


class Timeline(BaseModel):
    """The stages of the main app's change that caused an event."""

    committed_at: Moment | None
    captured_at: Moment | None
    received_at: Moment | None
    refreshed_at: Moment | None
    applied_at: Moment | None


class Event(BaseModel):
    """The data of one server-sent event: ids and states, never personal data."""

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


@dataclass(slots=True)
class Published:
    """One event at its position in the stream; each form is rendered at most once."""

    position: StreamPosition
    event: event_pb2.Event
    type: EventType | None = field(init=False)
    order: tuple[int, int] = field(init=False)
    queues: tuple[QueueName | None, QueueName | None] = field(init=False)
    _whole: bytes | None = field(init=False, default=None)
    _movement: bytes | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.type = EVENT_TYPES.name(self.event.type)
        self.order = order_of(self.position)
        self.queues = QUEUES.name(self.event.queue_before), QUEUES.name(self.event.queue_after)

    def whole(self) -> bytes:
        """Return the event as a block of server-sent events."""
        if self._whole is None:
            self._whole = self._block(event_json(self.event))
        return self._whole

    def movement(self) -> bytes:
        """Return the same without the agent and the assignment."""
        if self._movement is None:
            hidden = {"agent_id": None, "assignment_id": None}
            self._movement = self._block(event_json(self.event) | hidden)
        return self._movement

    def _block(self, body: dict[str, object]) -> bytes:
        kind = (self.type or "unknown").encode()
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (
            str(self.position).encode(),
            kind,
            orjson.dumps(body),
        )


class EventView:
    """What one caller may see of the events, limited to what the stream was opened for.

    A supervisor or service sees every event. An agent sees every event of its own and of the
    person it holds, and movements of other people in the queues it may work, without their agents.
    The topic `assignment` limits that to the former, `queues` to the latter; other topics have
    figures, not events.
    """

    def __init__(
        self,
        caller: Caller,
        user_ids: frozenset[int] = frozenset(),
        types: frozenset[EventType] = frozenset(),
        topics: frozenset[Topic] = frozenset(),
    ) -> None:
        self._caller = caller
        self._user_ids = user_ids
        self._types = types
        self._topics = topics
        self._queues = caller.queues
        self._is_agent = caller.role is Role.AGENT
        self._has_assignment = not topics or Topic.ASSIGNMENT in topics
        self._has_queues = not topics or Topic.QUEUES in topics
        self._has_events = self._has_assignment or self._has_queues
        self._held: int | None = None

    @property
    def subject(self) -> str:
        """The caller's id."""
        return self._caller.subject

    @property
    def topics(self) -> frozenset[Topic]:
        """The topics of the stream; none for all events and no figures."""
        return self._topics

    @property
    def queues(self) -> frozenset[str] | None:
        """The queues that the caller may work; None for all."""
        return self._queues

    @property
    def needs_assignment(self) -> bool:
        """Whether `begin` needs the caller's assignment."""
        return self._is_agent and self._has_assignment

    def begin(self, events: Sequence[Published], holds_now: int | None) -> None:
        """Derive the person held before `events` from the one held after or during them.

        The first start or end of an own assignment among them decides; without one nothing changed.
        """
        self._held = holds_now
        for each in events:
            if each.event.agent_id != self._caller.subject:
                continue
            if each.type is EventType.ASSIGNMENT_STARTED:
                self._held = None
                return
            if each.type is EventType.ASSIGNMENT_ENDED:
                self._held = each.event.user_id
                return

    def block(self, published: Published) -> bytes | None:
        """Return the block to send for the event; None for none."""
        if not self._has_events:
            return None
        is_whole = True
        if self._is_agent:
            event, kind = published.event, published.type
            is_own = event.agent_id == self._caller.subject
            if is_own and kind is EventType.ASSIGNMENT_STARTED:
                self._held = event.user_id
            if self._has_assignment and (is_own or event.user_id == self._held):
                if is_own and kind is EventType.ASSIGNMENT_ENDED:
                    self._held = None
            elif self._has_queues and kind is EventType.ENTRY_MOVED:
                if self._queues is not None and self._queues.isdisjoint(published.queues):
                    return None
                is_whole = False
            else:
                return None
        elif self._topics and published.type is not EventType.ENTRY_MOVED:
            return None
        if self._user_ids and published.event.user_id not in self._user_ids:
            return None
        if self._types and published.type not in self._types:
            return None
        return published.whole() if is_whole else published.movement()


def order_of(position: StreamPosition) -> tuple[int, int]:
    """Return a sort key for positions of one epoch."""
    milliseconds, _, number = position.offset.partition("-")
    return int(milliseconds), int(number)


def event_json(event: event_pb2.Event) -> dict[str, object]:
    """Return the JSON of the event."""
    has_timeline = event.HasField("timeline")
    return {
        "event_id": event.event_id,
        "type": EVENT_TYPES.name(event.type) or "unknown",
        "user_id": str(event.user_id),
        "occurred_at": moment_in(event, "occurred_at"),
        "queue_before": QUEUES.name(event.queue_before),
        "queue_after": QUEUES.name(event.queue_after),
        "state": ENTRY_STATES.name(event.state),
        "agent_id": event.agent_id or None,
        "assignment_id": event.assignment_id or None,
        "outcome": OUTCOMES.name(event.outcome),
        "conversion": CONVERSIONS.name(event.conversion),
        "timeline": {each: moment_in(event.timeline, each) for each in _TIMELINE}
        if has_timeline
        else None,
        "traceparent": event.traceparent or None,
    }
