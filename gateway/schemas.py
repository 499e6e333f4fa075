"""The JSON that goes in and out, and how it comes from protobuf.

64-bit ids are strings, times RFC 3339 UTC with microseconds, absent values null.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Self

from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

LARGEST_UINT64 = 2**64 - 1

_USER_ID = re.compile(r"[1-9][0-9]{0,19}")

Moment = Annotated[
    str,
    WithJsonSchema(
        {"type": "string", "format": "date-time", "examples": ["2025-06-02T09:00:00.000000Z"]}
    ),
]
Id = Annotated[str, Field(description="64-bit id or count as a decimal string.", examples=["4711"])]


class QueueName(StrEnum):
    """The three queues."""

    UNSIGNED_USERS = "unsigned_users"
    OUTSTANDING_REQUESTS = "outstanding_requests"
    CALLBACKS = "callbacks"


class EntryState(StrEnum):
    """Where a person stands with respect to being phoned."""

    READY = "ready"
    WAITING = "waiting"
    ASSIGNED = "assigned"
    SUPPRESSED = "suppressed"
    OUT = "out"


class Outcome(StrEnum):
    """How a call ended."""

    COMPLETED_FORM = "completed_form"
    GOING_TO_COMPLETE = "going_to_complete"
    MIGHT_COMPLETE = "might_complete"
    CALL_BACK = "call_back"
    NO_ANSWER = "no_answer"
    MISSED_CALL = "missed_call"
    HUNG_UP = "hung_up"
    BAD_NUMBER = "bad_number"
    NO_CLAIM = "no_claim"
    NOT_INTERESTED = "not_interested"
    DO_NOT_CONTACT = "do_not_contact"


class Hold(StrEnum):
    """Why somebody in a queue may not be called yet."""

    COOLING = "cooling"
    NEXT_CALL = "next_call"
    CALLBACK = "callback"
    DAILY_CAP = "daily_cap"
    PERIOD_CAP = "period_cap"
    SHARED_PHONE = "shared_phone"


class CallbackState(StrEnum):
    """Where a callback stands."""

    OPEN = "open"
    DONE = "done"
    MISSED = "missed"
    CANCELLED = "cancelled"
    CLOSED = "closed"
    REPLACED = "replaced"


class Conversion(StrEnum):
    """Why a person no longer owes what the queue was for."""

    SIGNATURE_OBTAINED = "signature_obtained"
    REQUIREMENTS_MET = "requirements_met"
    CLAIMS_ENDED = "claims_ended"


class ReleaseReason(StrEnum):
    """Why an agent gives a person back."""

    SKIPPED = "skipped"
    AGENT_LEAVING = "agent_leaving"


class EventType(StrEnum):
    """Kinds of events."""

    CONTEXT_CHANGED = "context_changed"
    ENTRY_MOVED = "entry_moved"
    ASSIGNMENT_STARTED = "assignment_started"
    ASSIGNMENT_ENDED = "assignment_ended"
    OUTCOME_RECORDED = "outcome_recorded"
    CONVERSION_RECORDED = "conversion_recorded"


def moment(value: Timestamp) -> str:
    """Return the time in RFC 3339, UTC, with microseconds."""
    return f"{_seconds(value.seconds)}.{value.nanos // 1000:06d}Z"


# The same contexts are read over and over.
@lru_cache(maxsize=8192)
def _seconds(value: int) -> str:
    return datetime.fromtimestamp(value, UTC).isoformat()[:19]


def moment_in(message: Any, field: str) -> str | None:
    """Return the time in a message's field, or None when it is unset."""
    return moment(getattr(message, field)) if message.HasField(field) else None


def name_in(name_of: Callable[[Any], str], prefix: str, value: int) -> str | None:
    """Return an enum value's JSON name; None for unspecified and for values newer than we are."""
    try:
        name = name_of(value)
    except ValueError:
        return None
    short = name.removeprefix(prefix)
    return None if short == "UNSPECIFIED" else short.lower()


def queue_name(value: int) -> QueueName | None:
    """Return a queue's JSON name."""
    name = name_in(call_state_pb2.Queue.Name, "QUEUE_", value)
    return QueueName(name) if name else None


def queue_number(name: QueueName) -> call_state_pb2.Queue.ValueType:
    """Return a queue's number in protobuf."""
    return call_state_pb2.Queue.Value(f"QUEUE_{name.name}")


def state_name(value: int) -> EntryState | None:
    """Return a state's JSON name."""
    name = name_in(call_state_pb2.EntryState.Name, "ENTRY_STATE_", value)
    return EntryState(name) if name else None


def outcome_name(value: int) -> Outcome | None:
    """Return an outcome's JSON name."""
    name = name_in(call_state_pb2.Outcome.Name, "OUTCOME_", value)
    return Outcome(name) if name else None


def hold_name(value: int) -> Hold | None:
    """Return a hold's JSON name."""
    name = name_in(call_state_pb2.Hold.Name, "HOLD_", value)
    return Hold(name) if name else None


def callback_state_name(value: int) -> CallbackState | None:
    """Return the JSON name of where a callback stands."""
    name = name_in(call_state_pb2.CallbackState.Name, "CALLBACK_STATE_", value)
    return CallbackState(name) if name else None


def conversion_name(value: int) -> Conversion | None:
    """Return a conversion's JSON name."""
    name = name_in(event_pb2.Conversion.Name, "CONVERSION_", value)
    return Conversion(name) if name else None


def user_id_of(text: str) -> int | None:
    """Return the id that `text` is the one way to write; None for anything else."""
    if not _USER_ID.fullmatch(text):
        return None
    value = int(text)
    return value if value <= LARGEST_UINT64 else None


# RFC 3339, section 5.6. Pydantic alone would take numbers of seconds, even as text.
_RFC_3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def _is_rfc_3339(value: object) -> object:
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("not a time with a zone as of RFC 3339")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("before the year 1 or after 9999 in UTC") from error


MomentIn = Annotated[AwareDatetime, BeforeValidator(_is_rfc_3339), AfterValidator(_in_utc)]
# Any text that PostgreSQL can store.
Notes = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClaimRequest(_Input):
    """What to claim from."""

    queues: Annotated[list[QueueName], Field(max_length=10)] | None = Field(
        default=None, description="Queues to take from, best first; absent: all the agent may."
    )


class ReleaseRequest(_Input):
    """Why the person is given back."""

    reason: ReleaseReason | None = None


class OutcomeRequest(_Input):
    """How the call ended."""

    outcome: Outcome
    notes: Notes = Field(default="", description="Required for do_not_contact.")
    callback_at: MomentIn | None = Field(
        default=None,
        description="When the person wants to be called; in the future. Allowed for call_back, "
        "going_to_complete and might_complete.",
    )


class Assignment(BaseModel):
    """A person handed to an agent."""

    assignment_id: str
    agent_id: str
    user_id: Id
    queue: QueueName | None
    reason: str = Field(description="Why this person is called; UPPER_SNAKE.")
    score: float = Field(description="0 is hottest, 200 is frozen.")
    started_at: Moment | None
    lease_expires_at: Moment | None = Field(
        description="Without a heartbeat before this the person goes back to the queue."
    )
    fence: Id

    @classmethod
    def of(cls, message: queue_pb2.Assignment) -> Self:
        """Return what the message says."""
        return cls(
            assignment_id=message.assignment_id,
            agent_id=message.agent_id,
            user_id=str(message.user_id),
            queue=queue_name(message.queue),
            reason=message.reason,
            score=message.score,
            started_at=moment_in(message, "started_at"),
            lease_expires_at=moment_in(message, "lease_expires_at"),
            fence=str(message.fence),
        )


class EmptyQueue(BaseModel):
    """Why nobody can be called now."""

    waiting: int = Field(description="People who may not be called yet.")
    assigned: int = Field(description="People whom other agents hold.")
    next_due_at: Moment | None
    calling_hours_begin_at: Moment | None = Field(
        description="When calling hours begin; null within them."
    )

    @classmethod
    def of(cls, message: queue_pb2.EmptyQueue) -> Self:
        """Return what the message says."""
        return cls(
            waiting=message.waiting,
            assigned=message.assigned,
            next_due_at=moment_in(message, "next_due_at"),
            calling_hours_begin_at=moment_in(message, "calling_hours_begin_at"),
        )


class Claimed(BaseModel):
    """The answer to a claim: an assignment, or why there is none."""

    assignment: Assignment | None
    already_held: bool = Field(description="True when the agent held it before this request.")
    empty: EmptyQueue | None
    rejected_by_live_check: int = Field(description="Wrong calls prevented by this request.")

    @classmethod
    def of(cls, message: queue_pb2.ClaimNextResponse) -> Self:
        """Return what the message says."""
        held = message.HasField("assignment")
        return cls(
            assignment=Assignment.of(message.assignment) if held else None,
            already_held=message.already_held,
            empty=None if held else EmptyQueue.of(message.empty),
            rejected_by_live_check=message.rejected_by_live_check,
        )


class Attempt(BaseModel):
    """One call that ended with an outcome."""

    agent_id: str
    outcome: Outcome | None
    ended_at: Moment | None
    notes: str


class Callback(BaseModel):
    """An agreement to call somebody at a given time."""

    callback_id: str
    user_id: Id
    scheduled_for: Moment | None
    preferred_agent_id: str | None = Field(description="Who is offered it first; null: anyone.")
    state: CallbackState | None
    misses: int
    created_by: str | None
    created_at: Moment | None
    closed_at: Moment | None
    closed_reason: str | None = Field(description="UPPER_SNAKE; null while it is open.")
    notes: str

    @classmethod
    def of(cls, message: call_state_pb2.Callback) -> Self:
        """Return what the message says."""
        return cls(
            callback_id=message.callback_id,
            user_id=str(message.user_id),
            scheduled_for=moment_in(message, "scheduled_for"),
            preferred_agent_id=message.preferred_agent_id or None,
            state=callback_state_name(message.state),
            misses=message.misses,
            created_by=message.created_by or None,
            created_at=moment_in(message, "created_at"),
            closed_at=moment_in(message, "closed_at"),
            closed_reason=message.closed_reason or None,
            notes=message.notes,
        )


class CallState(BaseModel):
    """The dialler's own side of a person's context."""

    user_id: Id
    queue: QueueName | None
    state: EntryState | None = Field(description="null: the dialler has never heard of the person.")
    reason: str
    score: float
    attempts: int
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
        return cls(
            user_id=str(message.user_id),
            queue=queue_name(message.queue),
            state=state_name(message.state),
            reason=message.reason,
            score=message.score,
            attempts=message.attempts,
            last_outcome=outcome_name(message.last_outcome),
            last_contact_at=moment_in(message, "last_contact_at"),
            next_call_at=moment_in(message, "next_call_at"),
            assigned_agent_id=message.assigned_agent_id or None,
            recent_attempts=[
                Attempt(
                    agent_id=each.agent_id,
                    outcome=outcome_name(each.outcome),
                    ended_at=moment_in(each, "ended_at"),
                    notes=each.notes,
                )
                for each in message.recent_attempts
            ],
            version=str(message.version),
            hold=hold_name(message.hold),
            open_callback=Callback.of(message.open_callback)
            if message.HasField("open_callback")
            else None,
        )


class Released(BaseModel):
    """The person's state after a release."""

    call_state: CallState


class Recorded(BaseModel):
    """The person's state after an outcome."""

    call_state: CallState
    conversion: Conversion | None


class QueueStats(BaseModel):
    """How many people of one queue are where."""

    queue: QueueName | None
    ready: int
    waiting: int
    assigned: int
    oldest_ready_since: Moment | None
    holds: dict[Hold, int] = Field(description="Those who wait, by what holds them.")
    blocked: dict[str, int] = Field(
        description="Those whose matter is open and who are kept from being called, by reason."
    )

    @classmethod
    def of(cls, message: queue_pb2.QueueStats) -> Self:
        """Return what the message says."""
        return cls(
            queue=queue_name(message.queue),
            ready=message.ready,
            waiting=message.waiting,
            assigned=message.assigned,
            oldest_ready_since=moment_in(message, "oldest_ready_since"),
            holds={hold: it.people for it in message.holds if (hold := hold_name(it.hold))},
            blocked={it.reason: it.people for it in message.blocked},
        )


class Queues(BaseModel):
    """All queues at this moment, and today's figures."""

    queues: list[QueueStats]
    agents_on_assignment: int
    calls_today: int
    conversions_today: int
    wrong_calls_prevented_today: int
    outcomes_today: dict[Outcome, int] = Field(description="Calls since midnight by outcome.")
    callbacks_missed: int = Field(description="Callbacks on the supervisors' list.")

    @classmethod
    def of(cls, message: queue_pb2.GetQueueStatsResponse) -> Self:
        """Return what the message says."""
        return cls(
            queues=[QueueStats.of(each) for each in message.queues],
            agents_on_assignment=message.agents_on_assignment,
            calls_today=message.calls_today,
            conversions_today=message.conversions_today,
            wrong_calls_prevented_today=message.wrong_calls_prevented_today,
            outcomes_today={
                outcome: it.calls
                for it in message.outcomes_today
                if (outcome := outcome_name(it.outcome))
            },
            callbacks_missed=message.callbacks_missed,
        )


class QueueEntry(BaseModel):
    """One person's place in a queue."""

    user_id: Id
    queue: QueueName | None
    state: EntryState | None
    score: float
    attempts: int
    last_outcome: Outcome | None
    next_call_at: Moment | None
    entered_at: Moment | None
    reason: str
    assigned_agent_id: str | None
    hold: Hold | None = Field(description="What keeps the person from being called now.")

    @classmethod
    def of(cls, message: queue_pb2.QueueEntry) -> Self:
        """Return what the message says."""
        return cls(
            user_id=str(message.user_id),
            queue=queue_name(message.queue),
            state=state_name(message.state),
            score=message.score,
            attempts=message.attempts,
            last_outcome=outcome_name(message.last_outcome),
            next_call_at=moment_in(message, "next_call_at"),
            entered_at=moment_in(message, "entered_at"),
            reason=message.reason,
            assigned_agent_id=message.assigned_agent_id or None,
            hold=hold_name(message.hold),
        )


class QueueEntries(BaseModel):
    """One page of a queue, in the order of handing out."""

    entries: list[QueueEntry]
    next_page_token: str | None = Field(description="null at the end.")


class Ticket(BaseModel):
    """Opens one event stream once, for clients that cannot send an Authorization header."""

    ticket: str
    expires_at: Moment
