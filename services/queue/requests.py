"""The contract's requests as the queue's own values; no rule is here."""

import hashlib
from collections.abc import Iterable, Sequence
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
from services.queue.domain.facts import ClaimFacts, RequirementFacts, UserFacts
from services.queue.domain.terms import (
    AgentId,
    CallbackState,
    Hold,
    Outcome,
    Presence,
    Queue,
    Reason,
    State,
    UserId,
)
from services.queue.store.answers import Request

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


def user_before_of(user_id: int) -> UserId:
    """Return the id above which to look; everybody is above 0, nobody above the last."""
    return UserId(min(user_id, _BIGINT_END - 1))


def size_of(size: int, field: str, default: int, most: int) -> int:
    """Return how many people to look at; raises InvalidArgument for more than `most`."""
    if size > most:
        raise InvalidArgument("SIZE_TOO_LARGE", f"{field} is at most {most}", field=field)
    return size or default


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
        claims=tuple(map(claim_of, message.claims)),
        # An empty one is none: taken for another number, it would hold up the head for ever.
        phone_e164=message.phone_e164 or None,
        created_at=moment_of(message.created_at) if message.HasField("created_at") else None,
        date_of_birth=day_of(message.date_of_birth),
        row_fingerprints=message.row_fingerprints,
    )


def day_of(text: str) -> date | None:
    """Return the day; None for one that is no day of the calendar, as MySQL may hold them."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def claim_of(message: facts_pb2.ClaimFacts) -> ClaimFacts:
    """Return the claim in a message."""
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


def optional_agent_of(text: str) -> AgentId | None:
    """Return the agent's id, None for the empty one; raises InvalidArgument (AGENT_ID_INVALID)."""
    return agent_of(text) if text else None


def text_of(text: str, field: str) -> str:
    """Return a word to search for; raises InvalidArgument, its reason named after the field."""
    if len(text) > AGENT_ID_LONGEST or (text and not text.isprintable()):
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


def hold_of(number: int) -> Hold | None:
    """Return the hold asked for, None for any."""
    return _optional(Hold, number, "HOLD_INVALID")


def optional_outcome_of(number: int) -> Outcome | None:
    """Return the outcome asked for, None for any."""
    return _optional(Outcome, number, "OUTCOME_INVALID")


def optional_presence_of(number: int) -> Presence | None:
    """Return the presence asked for, None for any."""
    return _optional(Presence, number, "PRESENCE_INVALID")


def presence_of(number: int) -> Presence:
    """Return the presence; raises InvalidArgument (PRESENCE_MISSING)."""
    presence = _member(Presence, number)
    if presence is None:
        raise InvalidArgument("PRESENCE_MISSING", "no presence that we know is given")
    return presence


def callback_state_of(number: int) -> CallbackState:
    """Return the state asked for, OPEN if none is; raises InvalidArgument for unknown ones."""
    return _optional(CallbackState, number, "CALLBACK_STATE_INVALID") or CallbackState.OPEN


def reason_of(text: str) -> Reason | None:
    """Return the reason asked for, None for any; raises InvalidArgument (REASON_INVALID)."""
    try:
        return Reason(text) if text else None
    except ValueError:
        raise InvalidArgument("REASON_INVALID", "not a reason that we give") from None


def notes_of(text: str, longest: int) -> str:
    """Return notes that must be there; raises InvalidArgument (NOTES_REQUIRED, NOTES_INVALID)."""
    if not text.strip():
        raise InvalidArgument("NOTES_REQUIRED", "this needs a reason in words")
    if len(text) > longest or "\0" in text:
        raise InvalidArgument("NOTES_INVALID", "notes are too long or hold what is no text")
    return text


def user_of(number: int) -> UserId:
    """Return the person's id; raises InvalidArgument."""
    return user_ids_of([number])[0]


def optional_user_of(number: int) -> UserId | None:
    """Return the person's id, None for 0; raises InvalidArgument."""
    return user_of(number) if number else None


ByActor = (
    queue_pb2.ForceReleaseAssignmentRequest
    | queue_pb2.ScheduleCallbackRequest
    | queue_pb2.RescheduleCallbackRequest
    | queue_pb2.CancelCallbackRequest
    | queue_pb2.SuppressUserRequest
    | queue_pb2.LiftSuppressionRequest
)


def request_of(message: Message, agent_id: AgentId, request_id: str) -> Request:
    """Return what identifies a repeat of this request."""
    payload = message.SerializeToString(deterministic=True)
    return Request(
        agent_id=agent_id,
        request_id=uuid_of(request_id, "request_id"),
        method=message.DESCRIPTOR.name,
        payload_hash=hashlib.blake2b(payload, digest_size=16).digest(),
    )


def _optional(kind: type[E], number: int, reason: str) -> E | None:
    member = _member(kind, number)
    if member is None and number:
        raise InvalidArgument(reason, "a value that we do not know")
    return member


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
