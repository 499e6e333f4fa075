"""Turns the contract's requests into the queue's own values; applies no rule."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import IntEnum
from typing import TypeVar
from uuid import UUID

from dialler.model.v1 import call_state_pb2, change_pb2, facts_pb2
from dialler.queue.v1 import queue_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import InvalidArgument
from servicekit.phone_numbers import numbers_in
from services.queue.domain.call_events import CallEvent
from services.queue.domain.facts import ClaimFacts, RequirementFacts, UserFacts
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import (
    AgentId,
    CallbackState,
    CallEventKind,
    ContactBlock,
    Direction,
    Presence,
    Queue,
    Reason,
    State,
    UserId,
)

PEOPLE_AT_MOST = 1_000
AGENT_ID_LONGEST = 200
_REFERENCE_LONGEST = 1_000
_LONGEST_DURATION_SECONDS = 86_400.0
_BIGINT_END = 2**63
E = TypeVar("E", bound=IntEnum)
ByAgent = (
    queue_pb2.ClaimNextRequest
    | queue_pb2.AssignUserRequest
    | queue_pb2.ReleaseAssignmentRequest
    | queue_pb2.RecordOutcomeRequest
)
ByActor = (
    queue_pb2.ForceReleaseAssignmentRequest
    | queue_pb2.ScheduleCallbackRequest
    | queue_pb2.RescheduleCallbackRequest
    | queue_pb2.CancelCallbackRequest
    | queue_pb2.SuppressUserRequest
    | queue_pb2.LiftSuppressionRequest
    | queue_pb2.NoteComplaintRequest
    | queue_pb2.AddNoteRequest
    | queue_pb2.AmendOutcomeRequest
    | queue_pb2.UndoOutcomesRequest
    | queue_pb2.BeginPauseRequest
    | queue_pb2.EndPauseRequest
)


@dataclass(frozen=True, slots=True)
class FactsUpdate:
    """Facts of a user, with the timeline of the change that led to them if there is one."""

    facts: UserFacts
    timeline: change_pb2.ChangeTimeline | None = None


def user_ids_of(user_ids: Iterable[int]) -> list[UserId]:
    """Return each user id once; raises InvalidArgument for too many ids or an impossible one."""
    distinct = list(dict.fromkeys(user_ids))
    if len(distinct) > PEOPLE_AT_MOST:
        raise InvalidArgument(
            "TOO_MANY_USERS", f"at most {PEOPLE_AT_MOST} people at once", asked=str(len(distinct))
        )
    for user_id in distinct:
        if user_id <= 0:
            raise InvalidArgument("USER_ID_MISSING", "a user id is 0, or was not given")
        if user_id >= _BIGINT_END:
            raise InvalidArgument(
                "USER_ID_TOO_LARGE", "ids from 2^63 on are not kept", user_id=str(user_id)
            )
    return [UserId(user_id) for user_id in distinct]


def user_before_of(user_id: int) -> UserId:
    """Return the id above which to look: every user is above 0, no user above the last id."""
    return UserId(min(user_id, _BIGINT_END - 1))


def size_of(size: int, field: str, default: int, most: int) -> int:
    """Return how many users to look at; raises InvalidArgument for more than `most`."""
    if size > most:
        raise InvalidArgument("SIZE_TOO_LARGE", f"{field} is at most {most}", field=field)
    return size or default


def updates_of(request: queue_pb2.ApplyUserFactsRequest) -> list[FactsUpdate]:
    """Return the facts to apply, each user once: of repeats the latest reading counts."""
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
    # Releases that knew only one number do not fill `phones`.
    phones = message.phones.e164 if message.HasField("phones") else [message.phone_e164]
    return UserFacts(
        user_id=UserId(message.user_id),
        exists=message.exists,
        version=message.version,
        # The column is signed; only equality matters.
        fingerprint=fingerprint if fingerprint < _BIGINT_END else fingerprint - 2**64,
        is_enabled=message.is_enabled,
        status=message.status if message.HasField("status") else None,
        has_signature=message.has_signature,
        claims=tuple(map(claim_of, message.claims)),
        phones=tuple(dict.fromkeys(filter(None, phones))),
        created_at=moment_of(message.created_at) if message.HasField("created_at") else None,
        date_of_birth=day_of(message.date_of_birth),
        row_fingerprints=message.row_fingerprints,
    )


def day_of(text: str) -> date | None:
    """Return the day; None for a text that is no day of the calendar, which MySQL may hold."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def claim_of(message: facts_pb2.ClaimFacts) -> ClaimFacts:
    """Return the claim in a message."""
    return ClaimFacts(
        status=message.status if message.HasField("status") else None,
        created_at=moment_of(message.created_at) if message.HasField("created_at") else None,
        requirements=tuple(
            RequirementFacts(
                type=it.type if it.HasField("type") else None,
                status=it.status if it.HasField("status") else None,
                reason=it.reason if it.HasField("reason") else None,
            )
            for it in message.requirements
        ),
        lender=message.lender if message.HasField("lender") else None,
    )


def moment_of(message: Timestamp) -> datetime:
    """Return the moment; raises InvalidArgument (TIMESTAMP_INVALID) for a time out of range."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument("TIMESTAMP_INVALID", "a timestamp is out of range") from None


def agent_of(text: str) -> AgentId:
    """Return the agent's id; raises InvalidArgument (AGENT_ID_INVALID)."""
    if not text.strip() or len(text) > AGENT_ID_LONGEST or not text.isprintable():
        raise InvalidArgument("AGENT_ID_INVALID", "an agent's id is missing or malformed")
    return AgentId(text)


def optional_agent_of(text: str) -> AgentId | None:
    """Return the agent's id, None for the empty one; raises InvalidArgument (AGENT_ID_INVALID)."""
    return agent_of(text) if text else None


def text_of(text: str, field: str, longest: int = AGENT_ID_LONGEST) -> str:
    """Return a word or a reference; raises InvalidArgument, its reason named after the field."""
    if len(text) > longest or (text and not text.isprintable()):
        raise InvalidArgument(f"{field.upper()}_INVALID", f"{field} is malformed")
    return text


def moment_in(message: Message, field: str) -> datetime | None:
    """Return the moment in a field, None when it is unset; raises as `moment_of` does."""
    return moment_of(getattr(message, field)) if message.HasField(field) else None


def uuid_of(text: str, field: str) -> UUID:
    """Return the UUID in a field; raises InvalidArgument, its reason named after the field."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidArgument(f"{field.upper()}_INVALID", f"{field} is not a UUID") from None


def queues_of(numbers: Sequence[int], default: tuple[Queue, ...]) -> tuple[Queue, ...]:
    """Return the queues to take from, callbacks first; unknown queues are left out.

    A due callback comes before any score, whichever queue the agent has chosen.
    """
    if call_state_pb2.QUEUE_UNSPECIFIED in numbers:
        raise InvalidArgument("QUEUE_MISSING", "one of the queues is none")
    named = [queue for number in numbers if (queue := _member(Queue, number)) is not None]
    return tuple(dict.fromkeys((Queue.CALLBACKS, *(named if numbers else default))))


def optional_queue_of(number: int) -> Queue | None:
    """Return the queue, None for 0; raises InvalidArgument (QUEUE_MISSING) for an unknown one."""
    return queue_of(number) if number else None


def queue_of(number: int) -> Queue:
    """Return the queue; raises InvalidArgument (QUEUE_MISSING)."""
    return _required(Queue, number, "QUEUE_MISSING", "no queue that has entries is named")


def state_of(number: int) -> State:
    """Return the state asked for, READY if none is; raises InvalidArgument for unknown ones."""
    if number == call_state_pb2.ENTRY_STATE_UNSPECIFIED:
        return State.READY
    state = _member(State, number)
    if state is None or state is State.RESERVED:
        raise InvalidArgument("STATE_INVALID", "not a state")
    return state


def direction_of(number: int) -> Direction:
    """Return how the agent gets a person that it names; raises InvalidArgument."""
    direction = _member(Direction, number)
    if direction in (None, Direction.OUTBOUND):
        raise InvalidArgument("DIRECTION_MISSING", "neither inbound nor manual")
    return direction


def call_event_of(message: queue_pb2.CallEvent) -> CallEvent:
    """Return the event of a call; raises InvalidArgument for what is missing or malformed."""
    at = moment_in(message, "at")
    if at is None:
        raise InvalidArgument("EVENT_TIME_MISSING", "an event needs a time")
    seconds = message.duration_seconds if message.HasField("duration_seconds") else None
    if seconds is not None and not 0 <= seconds <= _LONGEST_DURATION_SECONDS:
        raise InvalidArgument("DURATION_INVALID", "a duration is from 0 to 86,400 seconds")
    kind = _required(CallEventKind, message.kind, "EVENT_KIND_MISSING", "no kind that we know")
    return CallEvent(
        kind=kind,
        at=at,
        provider=text_of(message.provider, "provider"),
        provider_call_id=text_of(message.provider_call_id, "provider_call_id"),
        duration_seconds=seconds,
        recording_reference=text_of(
            message.recording_reference, "recording_reference", _REFERENCE_LONGEST
        ),
    )


def presence_of(number: int) -> Presence:
    """Return the presence; raises InvalidArgument (PRESENCE_MISSING)."""
    return _required(Presence, number, "PRESENCE_MISSING", "no presence that we know is given")


def optional_of(kind: type[E], number: int, reason: str) -> E | None:
    """Return the member asked for, None for 0; raises InvalidArgument for an unknown number."""
    member = _member(kind, number)
    if member is None and number:
        raise InvalidArgument(reason, "a value that we do not know")
    return member


def callback_state_of(number: int) -> CallbackState:
    """Return the state asked for, OPEN if none is; raises InvalidArgument for unknown ones."""
    return optional_of(CallbackState, number, "CALLBACK_STATE_INVALID") or CallbackState.OPEN


def reason_of(text: str) -> Reason | None:
    """Return the reason asked for, None for any; raises InvalidArgument (REASON_INVALID)."""
    try:
        return Reason(text) if text else None
    except ValueError:
        raise InvalidArgument("REASON_INVALID", "not a reason that we give") from None


def notes_of(text: str, longest: int) -> str:
    """Return required notes; raises InvalidArgument (NOTES_REQUIRED, NOTES_INVALID)."""
    if not text.strip():
        raise InvalidArgument("NOTES_REQUIRED", "this needs a reason in words")
    if len(text) > longest or "\0" in text:
        raise InvalidArgument("NOTES_INVALID", "notes are too long or hold what is no text")
    return text


def user_of(number: int) -> UserId:
    """Return the user's id; raises InvalidArgument."""
    return user_ids_of([number])[0]


def optional_user_of(number: int) -> UserId | None:
    """Return the user's id, None for 0; raises InvalidArgument."""
    return user_of(number) if number else None


def lifted_of(number: int) -> ContactBlock | None:
    """Return what is lifted, None for the only block there is; raises InvalidArgument."""
    blocks = {
        queue_pb2.LIFTED_UNSPECIFIED: None,
        queue_pb2.LIFTED_OBJECTION: ContactBlock.DO_NOT_CONTACT,
        queue_pb2.LIFTED_NO_CLAIM: ContactBlock.NO_CLAIM,
        queue_pb2.LIFTED_DECEASED: ContactBlock.DECEASED,
    }
    if number not in blocks:
        raise InvalidArgument("LIFTED_INVALID", "a value that we do not know")
    return blocks[number]  # type: ignore[index]


def suppression_kind_of(number: int) -> ContactBlock:
    """Return the kind of an objection; raises InvalidArgument (SUPPRESSION_KIND_INVALID)."""
    kinds = {
        queue_pb2.SUPPRESSION_KIND_UNSPECIFIED: ContactBlock.DO_NOT_CONTACT,
        queue_pb2.SUPPRESSION_KIND_OBJECTION: ContactBlock.DO_NOT_CONTACT,
        queue_pb2.SUPPRESSION_KIND_DECEASED: ContactBlock.DECEASED,
    }
    if number not in kinds:
        raise InvalidArgument("SUPPRESSION_KIND_INVALID", "a value that we do not know")
    return kinds[number]  # type: ignore[index]


def phone_of(text: str) -> str:
    """Return the one number in a text in E.164; raises InvalidArgument (PHONE_NOT_VALID)."""
    found = numbers_in(text)
    if len(found) != 1:
        raise InvalidArgument("PHONE_NOT_VALID", "not exactly one valid phone number")
    return found[0]


def by_agent(request: ByAgent) -> IdempotentRequest:
    """Return what identifies a repeat of an agent's request."""
    return _identified(request, agent_of(request.agent_id), request.request_id)


def by_actor(request: ByActor) -> IdempotentRequest:
    """Return what identifies a repeat of a request by an agent or a supervisor."""
    return _identified(request, agent_of(request.actor_id), request.request_id)


async def csv_parts(
    first: queue_pb2.ImportSuppressedPhonesRequest,
    others: AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest],
) -> AsyncIterator[bytes]:
    """Yield the parts of a list's CSV; raises InvalidArgument (LIST_TRUNCATED) at its end."""
    yield first.csv
    is_ended = first.is_last
    async for message in others:
        yield message.csv
        is_ended |= message.is_last
    # A complete list takes off the numbers that it lacks, which only its end shows.
    if (first.must_end or first.is_complete) and not is_ended:
        raise InvalidArgument("LIST_TRUNCATED", "the list ends too early")


def dated_on_of(request: queue_pb2.ImportSuppressedPhonesRequest) -> date | None:
    """Return the day that a list is of; raises InvalidArgument (LIST_DATE_INVALID)."""
    if not request.dated_on:
        return None
    try:
        return date.fromisoformat(request.dated_on)
    except ValueError:
        raise InvalidArgument("LIST_DATE_INVALID", "the list's date is no day") from None


def time_range_of(request: queue_pb2.UndoOutcomesRequest) -> tuple[datetime, datetime]:
    """Return the time that is meant; raises InvalidArgument (TIME_RANGE_MISSING)."""
    since, until = moment_in(request, "since"), moment_in(request, "until")
    if since is None or until is None:
        raise InvalidArgument("TIME_RANGE_MISSING", "both ends of the time are needed")
    return since, until


def scheduled_for_of(
    request: queue_pb2.ScheduleCallbackRequest | queue_pb2.RescheduleCallbackRequest,
) -> datetime:
    """Return the time of a callback; raises InvalidArgument (CALLBACK_TIME_MISSING)."""
    scheduled_for = moment_in(request, "scheduled_for")
    if scheduled_for is None:
        raise InvalidArgument("CALLBACK_TIME_MISSING", "a callback needs a time")
    return scheduled_for


def _identified(request: Message, agent_id: AgentId, request_id: str) -> IdempotentRequest:
    payload = request.SerializeToString(deterministic=True)
    return IdempotentRequest(
        agent_id=agent_id,
        request_id=uuid_of(request_id, "request_id"),
        method=request.DESCRIPTOR.name,
        payload_hash=hashlib.blake2b(payload, digest_size=16).digest(),
    )


def _required(kind: type[E], number: int, reason: str, message: str) -> E:
    member = _member(kind, number)
    if member is None:
        raise InvalidArgument(reason, message)
    return member


def _member(kind: type[E], number: int) -> E | None:
    try:
        return kind(number)
    except ValueError:
        return None
