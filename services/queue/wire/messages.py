"""Turns the queue's own values into the contract's messages; applies no rule."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from dialler.model.v1 import call_state_pb2, change_pb2, event_pb2
from dialler.queue.v1 import queue_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from services.queue.domain.call_events import CallEvent
from services.queue.domain.callbacks import Callback
from services.queue.domain.entries import Application, Entry, place_of
from services.queue.domain.pauses import QueuePause
from services.queue.domain.phone_lists import ListInForce
from services.queue.store.agents import Agent
from services.queue.store.assignments import Assignment
from services.queue.store.audit import AuditEntry
from services.queue.store.reading import (
    AgentFigures,
    DayFigures,
    KnownPerson,
    PlaceFigures,
    RecentAttempt,
)
from services.queue.store.suppressions import Suppression
from services.queue.types import (
    QUEUED_REASONS,
    UNQUEUED_REASONS,
    AgentId,
    ContactBlock,
    Conversion,
    Direction,
    Hold,
    Outcome,
    Presence,
    Queue,
    Reason,
    State,
)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the moment as a message; None for none."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def assignment_message(assignment: Assignment) -> queue_pb2.Assignment:
    """Return the assignment as a message."""
    reason = assignment.reason
    return queue_pb2.Assignment(
        assignment_id=str(assignment.assignment_id),
        agent_id=assignment.agent_id,
        user_id=assignment.user_id,
        queue=queue_number(assignment.queue if reason in QUEUED_REASONS else None),
        reason=reason,
        score=assignment.score,
        started_at=timestamp(assignment.started_at),
        lease_expires_at=timestamp(assignment.lease_expires_at),
        fence=assignment.fence,
        direction=direction_number(assignment.direction),
        contact_block="" if reason in (*QUEUED_REASONS, *UNQUEUED_REASONS) else reason,
    )


def call_event_message(event: CallEvent) -> queue_pb2.CallEvent:
    """Return the event of a call as a message."""
    return queue_pb2.CallEvent(
        kind=queue_pb2.CallEventKind.ValueType(event.kind),
        at=timestamp(event.at),
        duration_seconds=event.duration_seconds,
        provider=event.provider,
        provider_call_id=event.provider_call_id,
        recording_reference=event.recording_reference,
    )


def call_state_message(
    person: KnownPerson,
    score: float,
    reason: Reason,
    attempts: Sequence[RecentAttempt],
    callback: Callback | None,
    now: datetime,
) -> call_state_pb2.CallState:
    """Return the call state of a user: the queue's part of the user's context."""
    entry = person.entry
    return call_state_pb2.CallState(
        user_id=entry.user_id,
        queue=queue_number(entry.queue),
        state=state_number(entry.state),
        reason=reason,
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
                disposition=it.disposition or "",
            )
            for it in attempts
        ],
        version=person.state_version,
        hold=hold_number(entry.hold),
        open_callback=None if callback is None else callback_message(callback),
    )


def callback_message(callback: Callback) -> call_state_pb2.Callback:
    """Return the callback as a message."""
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
    """Return a user's entry for a list of `queue`."""
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


def empty_message(
    figures: Sequence[PlaceFigures],
    queues: Sequence[Queue],
    begin_at: datetime | None,
    pauses: Sequence[QueuePause],
) -> queue_pb2.EmptyQueue:
    """Return why no user of these queues can be called; `begin_at` is None in calling hours."""
    asked = [it for it in figures if it.queue in queues]
    waiting = [it for it in asked if it.state is State.WAITING]
    due = [it.due_at for it in waiting if it.due_at is not None]
    return queue_pb2.EmptyQueue(
        waiting=sum(it.people for it in waiting),
        assigned=sum(it.people for it in asked if it.state is State.ASSIGNED),
        next_due_at=timestamp(min(due, default=None)),
        calling_hours_begin_at=timestamp(begin_at),
        pauses=[pause_message(it) for it in pauses if any(map(it.covers, queues))],
    )


def stats_message(
    figures: Sequence[PlaceFigures],
    day: DayFigures,
    by_agent: Sequence[AgentFigures],
    pauses: Sequence[QueuePause],
) -> queue_pb2.GetQueueStatsResponse:
    """Return the figures of every queue, also of empty ones, and of the day."""
    queues = {queue: queue_pb2.QueueStats(queue=queue_number(queue)) for queue in Queue}
    for it in figures:
        stats = queues[it.queue]
        if it.state.seen_outside is State.READY:
            stats.ready += it.people
            if it.state is State.READY and it.ready_since is not None:
                stats.oldest_ready_since.FromDatetime(it.ready_since)
        elif it.state is State.WAITING:
            stats.waiting += it.people
            stats.holds.add(hold=hold_number(it.hold), people=it.people)
        elif it.state is State.ASSIGNED:
            stats.assigned += it.people
        else:
            stats.blocked.add(reason=it.reason or "", people=it.people)
    calls = [it for it in by_agent if it.outcome is not None]
    unreported = [it for it in by_agent if it.is_unreported]
    return queue_pb2.GetQueueStatsResponse(
        queues=list(queues.values()),
        agents_on_assignment=day.agents_on_assignment,
        calls_today=sum(it.number for it in calls),
        conversions_today=sum(it.number for it in by_agent if it.is_conversion),
        unreported_calls_today=sum(it.number for it in unreported),
        wrong_calls_prevented_today=day.prevented_calls,
        outcomes_today=_outcome_counts(calls),
        dispositions_today=_disposition_counts(calls),
        agents_today=agent_day_messages(by_agent).values(),
        callbacks_missed=day.callbacks_missed,
        pauses=[pause_message(it) for it in pauses],
    )


def agent_day_messages(by_agent: Sequence[AgentFigures]) -> dict[AgentId, queue_pb2.AgentDay]:
    """Return what each agent has done, by id; conversions credited to no agent are left out."""
    days: dict[AgentId, queue_pb2.AgentDay] = {}
    for agent_id in sorted({it.agent_id for it in by_agent if it.agent_id is not None}):
        of_agent = [it for it in by_agent if it.agent_id == agent_id]
        days[agent_id] = queue_pb2.AgentDay(
            agent_id=agent_id,
            outcomes=_outcome_counts([it for it in of_agent if it.outcome is not None]),
            conversions=sum(it.number for it in of_agent if it.is_conversion),
            unreported_calls=sum(it.number for it in of_agent if it.is_unreported),
        )
    return days


def _outcome_counts(calls: Sequence[AgentFigures]) -> list[queue_pb2.OutcomeCount]:
    counts: Counter[Outcome] = Counter()
    for it in calls:
        if it.outcome is not None:
            counts[it.outcome] += it.number
    return [
        queue_pb2.OutcomeCount(outcome=outcome_number(outcome), calls=number)
        for outcome, number in sorted(counts.items())
    ]


def _disposition_counts(calls: Sequence[AgentFigures]) -> list[queue_pb2.DispositionCount]:
    counts: Counter[str] = Counter()
    for it in calls:
        if it.disposition is not None:
            counts[it.disposition] += it.number
    return [
        queue_pb2.DispositionCount(code=code, calls=number)
        for code, number in sorted(counts.items())
    ]


def agent_message(
    agent: Agent,
    presence: Presence,
    held: Assignment | None,
    day: queue_pb2.AgentDay | None,
) -> queue_pb2.Agent:
    """Return the agent as a message."""
    return queue_pb2.Agent(
        agent_id=agent.agent_id,
        presence=presence_number(presence),
        presence_since=timestamp(agent.presence_since),
        last_seen_at=timestamp(agent.last_seen_at),
        allowed_queues=[queue_number(it) for it in sorted(agent.allowed_queues or ())],
        assignment=None if held is None else assignment_message(held),
        today=day or queue_pb2.AgentDay(agent_id=agent.agent_id),
    )


def suppression_message(suppression: Suppression) -> queue_pb2.Suppression:
    """Return the objection as a message; only that of a bare number shows the number."""
    return queue_pb2.Suppression(
        suppression_id=str(suppression.suppression_id),
        user_id=suppression.user_id or 0,
        phone_e164="" if suppression.user_id is not None else ",".join(suppression.lines),
        created_by=suppression.created_by,
        created_at=timestamp(suppression.created_at),
        notes=suppression.notes,
        lifted_at=timestamp(suppression.lifted_at),
        lifted_by=suppression.lifted_by or "",
        lift_notes=suppression.lift_notes or "",
        kind=_KINDS[suppression.kind],
    )


def pause_message(pause: QueuePause) -> queue_pb2.Pause:
    """Return the pause as a message."""
    return queue_pb2.Pause(
        pause_id=str(pause.pause_id),
        queue=queue_number(pause.queue),
        begins_at=timestamp(pause.begins_at),
        ends_at=timestamp(pause.ends_at),
        reason=pause.reason,
        created_by=pause.created_by,
        created_at=timestamp(pause.created_at),
        ended_by=pause.ended_by or "",
    )


_KINDS = {
    ContactBlock.DO_NOT_CONTACT: queue_pb2.SUPPRESSION_KIND_OBJECTION,
    ContactBlock.DECEASED: queue_pb2.SUPPRESSION_KIND_DECEASED,
}


def phone_list_message(it: ListInForce) -> queue_pb2.PhoneList:
    """Return the list in force as a message."""
    return queue_pb2.PhoneList(
        list_name=it.list_name,
        numbers=sum(edition.numbers for edition in it.editions),
        dated_on=it.dated_on.isoformat(),
        oldest_days=it.oldest_days,
        is_old=it.is_old,
        editions=[
            queue_pb2.PhoneListEdition(
                edition_id=edition.edition_id,
                is_complete=edition.is_complete,
                numbers=edition.numbers,
                dated_on=edition.dated_on.isoformat() if edition.dated_on else "",
                source=edition.source or "",
                imported_by=edition.actor_id,
                imported_at=timestamp(edition.became_current_at),
            )
            for edition in it.editions
        ],
    )


def audit_message(entry: AuditEntry) -> queue_pb2.AuditEntry:
    """Return the audit entry as a message."""
    return queue_pb2.AuditEntry(
        at=timestamp(entry.at),
        actor_id=entry.actor_id,
        action=entry.action,
        user_id=entry.user_id or 0,
        details=entry.details,
        notes=entry.notes or "",
    )


def fact_events(
    application: Application,
    timeline: change_pb2.ChangeTimeline | None,
    traceparent: str | None,
    now: datetime,
) -> list[bytes]:
    """Return the events of applying facts to a user, without the event of a conversion.

    A user first seen in a full run is no event: the first run would flood the stream.
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
    """Return a serialised event; its agent is by default the one that holds the user."""
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
    """Return the serialised event of a hand-out."""
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
    """Return whether the user's place as the contract shows it differs."""
    return place_of(before) != place_of(after)


def queue_number(queue: Queue | None) -> call_state_pb2.Queue.ValueType:
    """Return the contract's number."""
    return call_state_pb2.Queue.ValueType(queue or 0)


def state_number(state: State) -> call_state_pb2.EntryState.ValueType:
    """Return the contract's number of the state that the contract shows."""
    return call_state_pb2.EntryState.ValueType(state.seen_outside)


def hold_number(hold: Hold | None) -> call_state_pb2.Hold.ValueType:
    """Return the contract's number."""
    return call_state_pb2.Hold.ValueType(hold or 0)


def presence_number(presence: Presence | None) -> queue_pb2.Presence.ValueType:
    """Return the contract's number."""
    return queue_pb2.Presence.ValueType(presence or 0)


def direction_number(direction: Direction) -> queue_pb2.CallDirection.ValueType:
    """Return the contract's number."""
    return queue_pb2.CallDirection.ValueType(direction)


def outcome_number(outcome: Outcome | None) -> call_state_pb2.Outcome.ValueType:
    """Return the contract's number."""
    return call_state_pb2.Outcome.ValueType(outcome or 0)


def conversion_number(conversion: Conversion | None) -> event_pb2.Conversion.ValueType:
    """Return the contract's number."""
    return event_pb2.Conversion.ValueType(conversion or 0)


def _next_call_at(entry: Entry, now: datetime) -> datetime | None:
    return entry.due_at if entry.due_at is not None and entry.due_at > now else None
