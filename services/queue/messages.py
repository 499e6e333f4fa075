"""The contract's messages to and from the queue's own values; no rule is here."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import IntEnum
from typing import TypeVar
from uuid import UUID, uuid4

from dialler.model.v1 import call_state_pb2, change_pb2, event_pb2, facts_pb2
from dialler.queue.v1 import queue_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import InvalidArgument
from services.queue.domain.callbacks import Callback
from services.queue.domain.entries import Application, Entry, place_of
from services.queue.domain.facts import ClaimFacts, RequirementFacts, UserFacts
from services.queue.domain.terms import AgentId, Conversion, Hold, Outcome, Queue, State, UserId
from services.queue.store.assignments import Assignment, Request
from services.queue.store.reading import Attempt, DayFigures, KnownPerson, QueueFigures

PEOPLE_AT_MOST = 1_000
AGENT_ID_LONGEST = 200

_BIGINT_END = 2**63

E = TypeVar("E", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class FactsUpdate:
    """Facts of a person with the change that led to them, if one did."""

    facts: UserFacts
    timeline: change_pb2.ChangeTimeline | None = None


def user_ids_of(user_ids: Iterable[int]) -> list[UserId]:
    """Return each person once; raises InvalidArgument for too many or an impossible id."""
    distinct = list(dict.fromkeys(user_ids))
    if len(distinct) > PEOPLE_AT_MOST:
        raise InvalidArgument(
            "TOO_MANY_USERS", f"at most {PEOPLE_AT_MOST} people at once", asked=str(len(distinct))
        )
    for user_id in distinct:
        _require_user_id(user_id)
    return [UserId(user_id) for user_id in distinct]


def updates_of(request: queue_pb2.ApplyUserFactsRequest) -> list[FactsUpdate]:
    """Return the facts to apply, each person once: of repeats the latest reading counts."""
    latest: dict[int, facts_pb2.UserFacts] = {}
    for facts in request.facts:
        seen = latest.get(facts.user_id)
        if seen is None or seen.version < facts.version:
            latest[facts.user_id] = facts
    user_ids_of(latest)
    if any(not 0 < facts.version < _BIGINT_END for facts in latest.values()):
        raise InvalidArgument("FACTS_NOT_VERSIONED", "facts without a version cannot be applied")
    timelines = request.timelines
    return [
        FactsUpdate(facts_of(facts), timelines.get(user_id)) for user_id, facts in latest.items()
    ]


def facts_of(message: facts_pb2.UserFacts) -> UserFacts:
    """Return the facts in a message."""
    fingerprint = message.fingerprint
    return UserFacts(
        user_id=UserId(message.user_id),
        exists=message.exists,
        version=message.version,
        # The column is signed; only equality matters.
        fingerprint=fingerprint if fingerprint < _BIGINT_END else fingerprint - 2**64,
        is_enabled=message.is_enabled,
        status=message.status if message.HasField("status") else None,
        has_signature=message.has_signature,
        claims=tuple(map(_claim_of, message.claims)),
        phone_e164=message.phone_e164 if message.HasField("phone_e164") else None,
        created_at=moment_of(message.created_at) if message.HasField("created_at") else None,
        date_of_birth=day_of(message.date_of_birth),
    )


def day_of(text: str) -> date | None:
    """Return the day; None for one that is no day of the calendar, as MySQL may hold them."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _claim_of(message: facts_pb2.ClaimFacts) -> ClaimFacts:
    return ClaimFacts(
        status=message.status if message.HasField("status") else None,
        created_at=moment_of(message.created_at) if message.HasField("created_at") else None,
        requirements=tuple(map(_requirement_of, message.requirements)),
        lender=message.lender if message.HasField("lender") else None,
    )


def _requirement_of(message: facts_pb2.RequirementFacts) -> RequirementFacts:
    return RequirementFacts(
        type=message.type if message.HasField("type") else None,
        status=message.status if message.HasField("status") else None,
        reason=message.reason if message.HasField("reason") else None,
    )


def moment_of(message: Timestamp) -> datetime:
    """Return the moment; raises InvalidArgument for one no calendar has."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument("TIMESTAMP_INVALID", "a timestamp is out of range") from None


def agent_of(text: str) -> AgentId:
    """Return the agent's id; raises InvalidArgument (AGENT_ID_INVALID)."""
    if not text.strip() or len(text) > AGENT_ID_LONGEST or not text.isprintable():
        raise InvalidArgument("AGENT_ID_INVALID", "an agent's id is missing or malformed")
    return AgentId(text)


def uuid_of(text: str, field: str) -> UUID:
    """Return the UUID in a field; raises InvalidArgument, its reason named after the field."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidArgument(f"{field.upper()}_INVALID", f"{field} is not a UUID") from None


def queues_of(numbers: Sequence[int], default: tuple[Queue, ...]) -> tuple[Queue, ...]:
    """Return the queues to take from, callbacks first; queues we do not know are left out.

    A due callback comes before any score, whichever queue an agent has chosen.
    """
    if call_state_pb2.QUEUE_UNSPECIFIED in numbers:
        raise InvalidArgument("QUEUE_MISSING", "one of the queues is none")
    named = [queue for number in numbers if (queue := _member(Queue, number)) is not None]
    return tuple(dict.fromkeys((Queue.CALLBACKS, *(named if numbers else default))))


def queue_of(number: int) -> Queue:
    """Return the queue; raises InvalidArgument (QUEUE_MISSING)."""
    queue = _member(Queue, number)
    if queue is None:
        raise InvalidArgument("QUEUE_MISSING", "no queue that has entries is named")
    return queue


def state_of(number: int) -> State:
    """Return the state asked for, READY if none is; raises InvalidArgument for unknown ones."""
    if number == call_state_pb2.ENTRY_STATE_UNSPECIFIED:
        return State.READY
    state = _member(State, number)
    if state is None or state is State.RESERVED:
        raise InvalidArgument("STATE_INVALID", "not a state")
    return state


def outcome_of(number: int) -> Outcome:
    """Return the outcome; raises InvalidArgument (OUTCOME_MISSING)."""
    outcome = _member(Outcome, number)
    if outcome is None:
        raise InvalidArgument("OUTCOME_MISSING", "no outcome that we know is given")
    return outcome


def request_of(message: Message, agent_id: AgentId, request_id: str) -> Request:
    """Return what identifies a repeat of this request."""
    payload = message.SerializeToString(deterministic=True)
    return Request(
        agent_id=agent_id,
        request_id=uuid_of(request_id, "request_id"),
        method=message.DESCRIPTOR.name,
        payload_hash=hashlib.blake2b(payload, digest_size=16).digest(),
    )


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the moment as a message; None for none."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def assignment_message(assignment: Assignment) -> queue_pb2.Assignment:
    """Return the assignment as others see it."""
    return queue_pb2.Assignment(
        assignment_id=str(assignment.assignment_id),
        agent_id=assignment.agent_id,
        user_id=assignment.user_id,
        queue=queue_number(assignment.queue),
        reason=assignment.reason,
        score=assignment.score,
        started_at=timestamp(assignment.started_at),
        lease_expires_at=timestamp(assignment.lease_expires_at),
        fence=assignment.fence,
    )


def call_state_message(
    person: KnownPerson,
    score: float,
    attempts: Sequence[Attempt],
    callback: Callback | None,
    now: datetime,
) -> call_state_pb2.CallState:
    """Return the queue's side of a person's context."""
    entry = person.entry
    return call_state_pb2.CallState(
        user_id=entry.user_id,
        queue=queue_number(entry.queue),
        state=state_number(entry.state),
        reason=entry.reason,
        score=score,
        attempts=entry.attempts,
        last_outcome=outcome_number(entry.last_outcome),
        last_contact_at=timestamp(entry.last_contact_at),
        next_call_at=timestamp(_next_call_at(entry, now)),
        assigned_agent_id=entry.agent_id or "",
        recent_attempts=[
            call_state_pb2.Attempt(
                agent_id=it.agent_id,
                outcome=outcome_number(it.outcome),
                ended_at=timestamp(it.ended_at),
                notes=it.notes,
            )
            for it in attempts
        ],
        version=person.state_version,
        hold=hold_number(entry.hold),
        open_callback=None if callback is None else callback_message(callback),
    )


def callback_message(callback: Callback) -> call_state_pb2.Callback:
    """Return the callback as others see it."""
    return call_state_pb2.Callback(
        callback_id=str(callback.callback_id),
        user_id=callback.user_id,
        scheduled_for=timestamp(callback.scheduled_for),
        preferred_agent_id=callback.preferred_agent_id or "",
        state=call_state_pb2.CallbackState.ValueType(callback.state),
        misses=callback.misses,
        created_by=callback.created_by,
        created_at=timestamp(callback.created_at),
        closed_at=timestamp(callback.closed_at),
        closed_reason=callback.closed_reason or "",
        notes=callback.notes,
    )


def entry_message(entry: Entry, queue: Queue, score: float, now: datetime) -> queue_pb2.QueueEntry:
    """Return a person's place in a list of `queue`."""
    return queue_pb2.QueueEntry(
        user_id=entry.user_id,
        queue=queue_number(queue),
        state=state_number(entry.state),
        score=score,
        attempts=entry.attempts,
        last_outcome=outcome_number(entry.last_outcome),
        next_call_at=timestamp(_next_call_at(entry, now)),
        entered_at=timestamp(entry.entered_at),
        reason=entry.reason,
        assigned_agent_id=entry.agent_id or "",
        hold=hold_number(entry.hold),
    )


def stats_message(
    figures: Sequence[QueueFigures], day: DayFigures
) -> queue_pb2.GetQueueStatsResponse:
    """Return the figures of each queue, those of an empty one too, and of the day."""
    queues = {queue: queue_pb2.QueueStats(queue=queue_number(queue)) for queue in Queue}
    for it in figures:
        stats = queues[it.queue]
        if it.state.seen_outside is State.READY:
            stats.ready += it.people
        elif it.state is State.WAITING:
            stats.waiting += it.people
        elif it.state is State.ASSIGNED:
            stats.assigned += it.people
        if it.state is State.READY and it.ready_since is not None:
            stats.oldest_ready_since.FromDatetime(it.ready_since)
    return queue_pb2.GetQueueStatsResponse(
        queues=list(queues.values()),
        agents_on_assignment=day.agents_on_assignment,
        calls_today=day.calls,
        conversions_today=day.conversions,
        wrong_calls_prevented_today=day.prevented_calls,
    )


def empty_message(
    figures: Sequence[QueueFigures], queues: Sequence[Queue], begin_at: datetime | None
) -> queue_pb2.EmptyQueue:
    """Return why nobody of these queues can be called now; `begin_at` unless hours are open."""
    asked = [it for it in figures if it.queue in queues]
    waiting = [it for it in asked if it.state is State.WAITING]
    due = [it.due_at for it in waiting if it.due_at is not None]
    return queue_pb2.EmptyQueue(
        waiting=sum(it.people for it in waiting),
        assigned=sum(it.people for it in asked if it.state is State.ASSIGNED),
        next_due_at=timestamp(min(due, default=None)),
        calling_hours_begin_at=timestamp(begin_at),
    )


def fact_events(
    application: Application,
    timeline: change_pb2.ChangeTimeline | None,
    traceparent: str | None,
    now: datetime,
) -> list[bytes]:
    """Return the events that applying facts to a person leads to, its conversion apart.

    Somebody met for the first time in a sweep is no event: a first fill is not a flood of them.
    """
    if application.before is None and timeline is None:
        return []
    types: list[event_pb2.EventType.ValueType] = []
    if application.is_context_changed:
        types.append(event_pb2.EVENT_TYPE_CONTEXT_CHANGED)
    if application.is_moved:
        types.append(event_pb2.EVENT_TYPE_ENTRY_MOVED)
    return [
        event(kind, application.before, application.after, now, traceparent, timeline)
        for kind in types
    ]


def event(
    kind: event_pb2.EventType.ValueType,
    before: Entry | None,
    after: Entry,
    now: datetime,
    traceparent: str | None,
    timeline: change_pb2.ChangeTimeline | None = None,
    *,
    agent_id: AgentId | None = None,
    assignment_id: UUID | None = None,
    outcome: Outcome | None = None,
    conversion: Conversion | None = None,
) -> bytes:
    """Return a serialised event; the agent concerned is by default the one who holds the person."""
    message = event_pb2.Event(
        event_id=str(uuid4()),
        type=kind,
        user_id=after.user_id,
        occurred_at=timestamp(now),
        queue_before=queue_number(before.queue if before else None),
        queue_after=queue_number(after.queue),
        state=state_number(after.state),
        agent_id=agent_id or after.agent_id or "",
        assignment_id=str(assignment_id or after.assignment_id or ""),
        outcome=outcome_number(outcome),
        timeline=timeline,
        traceparent=traceparent or "",
        conversion=conversion_number(conversion),
    )
    if timeline is not None:
        message.timeline.applied_at.FromDatetime(now)
    return message.SerializeToString()


def hand_out_event(assignment: Assignment, traceparent: str | None) -> bytes:
    """Return the serialised event of a person being handed out."""
    return event_pb2.Event(
        event_id=str(uuid4()),
        type=event_pb2.EVENT_TYPE_ASSIGNMENT_STARTED,
        user_id=assignment.user_id,
        occurred_at=timestamp(assignment.started_at),
        queue_before=queue_number(assignment.queue),
        queue_after=queue_number(assignment.queue),
        state=call_state_pb2.ENTRY_STATE_ASSIGNED,
        agent_id=assignment.agent_id,
        assignment_id=str(assignment.assignment_id),
        traceparent=traceparent or "",
    ).SerializeToString()


def is_moved(before: Entry, after: Entry) -> bool:
    """Return whether others see the person in another place."""
    return place_of(before) != place_of(after)


def queue_number(queue: Queue | None) -> call_state_pb2.Queue.ValueType:
    """Return the contract's number."""
    return call_state_pb2.Queue.ValueType(queue or 0)


def state_number(state: State) -> call_state_pb2.EntryState.ValueType:
    """Return the contract's number of the state as others see it."""
    return call_state_pb2.EntryState.ValueType(state.seen_outside)


def hold_number(hold: Hold | None) -> call_state_pb2.Hold.ValueType:
    """Return the contract's number."""
    return call_state_pb2.Hold.ValueType(hold or 0)


def outcome_number(outcome: Outcome | None) -> call_state_pb2.Outcome.ValueType:
    """Return the contract's number."""
    return call_state_pb2.Outcome.ValueType(outcome or 0)


def conversion_number(conversion: Conversion | None) -> event_pb2.Conversion.ValueType:
    """Return the contract's number."""
    return event_pb2.Conversion.ValueType(conversion or 0)


def _next_call_at(entry: Entry, now: datetime) -> datetime | None:
    return entry.due_at if entry.due_at is not None and entry.due_at > now else None


def _member(kind: type[E], number: int) -> E | None:
    try:
        return kind(number)
    except ValueError:
        return None


def _require_user_id(user_id: int) -> None:
    if user_id <= 0:
        raise InvalidArgument("USER_ID_MISSING", "a user id is 0, or was not given")
    if user_id >= _BIGINT_END:
        raise InvalidArgument(
            "USER_ID_TOO_LARGE", "ids from 2^63 on are not kept", user_id=str(user_id)
        )
