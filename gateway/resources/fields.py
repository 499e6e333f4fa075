"""Fields, parameters and enumerations that several resources share.

64-bit ids are strings, times RFC 3339 UTC with microseconds, absent values null.
"""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2
from fastapi import Depends, Header, Path, Query
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
from pydantic.json_schema import SkipJsonSchema

from gateway.access.auth import Caller, caller_of
from servicekit.errors import PermissionDenied

E = TypeVar("E", bound=StrEnum)

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
    """The state of a person's queue entry."""

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
    VOICEMAIL_LEFT = "voicemail_left"
    VOICEMAIL_NOT_LEFT = "voicemail_not_left"
    WRONG_PERSON = "wrong_person"
    DECEASED = "deceased"
    LANGUAGE_BARRIER = "language_barrier"


class Hold(StrEnum):
    """Why a person in a queue may not be called yet."""

    COOLING = "cooling"
    NEXT_CALL = "next_call"
    CALLBACK = "callback"
    DAILY_CAP = "daily_cap"
    PERIOD_CAP = "period_cap"
    SHARED_PHONE = "shared_phone"
    UNREPORTED_CALL = "unreported_call"


class Conversion(StrEnum):
    """How the case that a person was called about was resolved."""

    SIGNATURE_OBTAINED = "signature_obtained"
    REQUIREMENTS_MET = "requirements_met"
    CLAIMS_ENDED = "claims_ended"


class EventType(StrEnum):
    """Kinds of events."""

    CONTEXT_CHANGED = "context_changed"
    ENTRY_MOVED = "entry_moved"
    ASSIGNMENT_STARTED = "assignment_started"
    ASSIGNMENT_ENDED = "assignment_ended"
    OUTCOME_RECORDED = "outcome_recorded"
    CONVERSION_RECORDED = "conversion_recorded"
    OBJECTION_RECORDED = "objection_recorded"


class CallDirection(StrEnum):
    """How an agent came to a person: by the queue, by the person's own call, or by choice."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"
    MANUAL = "manual"


class EnumNames(Generic[E]):
    """The JSON names of one protobuf enumeration."""

    def __init__(self, names: type[E], enum: Any) -> None:
        prefix = enum.Name(0).removesuffix("UNSPECIFIED")
        self._names = {enum.Value(f"{prefix}{each.name}"): each for each in names}
        self._numbers = {each: number for number, each in self._names.items()}

    def name(self, number: int) -> E | None:
        """Return the name; None for unspecified and for numbers newer than this gateway."""
        return self._names.get(number)

    def number(self, name: E | None) -> Any:
        """Return the number in protobuf; 0, unspecified, for None."""
        return 0 if name is None else self._numbers[name]


CALL_DIRECTIONS = EnumNames(CallDirection, queue_pb2.CallDirection)
QUEUES = EnumNames(QueueName, call_state_pb2.Queue)
ENTRY_STATES = EnumNames(EntryState, call_state_pb2.EntryState)
OUTCOMES = EnumNames(Outcome, call_state_pb2.Outcome)
HOLDS = EnumNames(Hold, call_state_pb2.Hold)
CONVERSIONS = EnumNames(Conversion, event_pb2.Conversion)
EVENT_TYPES = EnumNames(EventType, event_pb2.EventType)


def user_id_of(text: str) -> int | None:
    """Return the id that `text` is the canonical form of; None for any other text."""
    if not _USER_ID.fullmatch(text):
        return None
    value = int(text)
    return value if value <= LARGEST_UINT64 else None


# RFC 3339, section 5.6. Pydantic alone would accept numbers of seconds, even as text.
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
NOT_REPORTED = "null while the agent has not reported it."
BY_DISPOSITION = "The code of the disposition that it was reported by; null for none."
# Any text that PostgreSQL can store.
Notes = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]


class RequestBody(BaseModel):
    """The body of a request: a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# The queue's columns are signed: ids from 2^63 on are in no queue.
LARGEST_USER_ID = 2**63 - 1


def pattern_up_to(largest: int) -> str:
    """Return a pattern of the decimal numbers from 1 to ``largest`` without leading zeros."""
    digits = str(largest)
    shorter = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"] if len(digits) > 1 else []
    same_length = []
    for place, digit in enumerate(digits):
        lowest = 1 if place == 0 else 0
        if int(digit) > lowest:
            rest = len(digits) - place - 1
            same_length.append(f"{digits[:place]}[{lowest}-{int(digit) - 1}][0-9]{{{rest}}}")
    return f"^(?:{'|'.join([*shorter, *same_length, digits])})$"


USER_ID_PATTERN = pattern_up_to(LARGEST_USER_ID)
AGENT_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:|-]{0,63}$"

UserIdText = Annotated[str, StringConstraints(pattern=USER_ID_PATTERN)]
AgentIdText = Annotated[str, StringConstraints(pattern=AGENT_ID_PATTERN)]
DispositionCode = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
# Reason codes and actions.
UpperSnake = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,62}[A-Z0-9]$")]


# At least one character that is more than white space.
RequiredNotes = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=10_000,
        pattern=r"^[^\x00]*[^\x00-\x20\x7f-\xa0\s][^\x00]*$",
    ),
]

# One line as it is typed or pasted: invisible characters are accepted and ignored.
PastedText = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]

CallerOf = Annotated[Caller, Depends(caller_of)]
UserIdPath = Annotated[
    str,
    Path(
        pattern=USER_ID_PATTERN, description="The main app's id of the person.", examples=["4711"]
    ),
]
UserIdQuery = Annotated[
    UserIdText | SkipJsonSchema[None],
    Query(description="Only of this person.", examples=["4711"]),
]
AgentIdQuery = Annotated[
    AgentIdText | SkipJsonSchema[None],
    Query(description="Only of this agent.", examples=["agent-1"]),
]
PageSize = Annotated[
    int, Query(ge=1, le=200, description="The largest number of items on the page.")
]
PageToken = Annotated[
    str,
    Query(max_length=500, description="`next_page_token` of the page before; empty: the first."),
]
IdempotencyKey = Annotated[
    UUID,
    Header(
        alias="Idempotency-Key",
        description="UUID chosen by the client; a repeat of the request returns the first answer.",
    ),
]
OptionalKey = Annotated[
    UUID | SkipJsonSchema[None],
    Header(
        alias="Idempotency-Key",
        description="UUID chosen by the client; a repeat returns what the first request created.",
    ),
]
HarmlessKey = Annotated[
    UUID | SkipJsonSchema[None],
    Header(
        alias="Idempotency-Key",
        description="Accepted without effect: repeating this request is harmless.",
    ),
]


def absent(schema: dict[str, Any]) -> None:
    """Describe a field that may be absent but not empty; for `json_schema_extra`."""
    schema.pop("default", None)


def optional_in(message: Any, field: str) -> Any:
    """Return the value of an optional field, None when it is absent."""
    return getattr(message, field) if message.HasField(field) else None


def timestamp(moment: MomentIn | None) -> Timestamp | None:
    """Return the moment as a message; None for none."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def require_queues(caller: Caller, queues: list[QueueName]) -> None:
    """Raise PermissionDenied (QUEUE_NOT_ALLOWED) unless the caller may work all of them."""
    for each in queues:
        if not caller.may_work(each):
            raise PermissionDenied(
                "QUEUE_NOT_ALLOWED", f"the token does not allow {each}", queue=each
            )
