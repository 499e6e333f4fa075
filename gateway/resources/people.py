"""People: search without personal data in a URL, explanation, calls, complaint."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2
from fastapi import Body
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from gateway.access.audit import AccessTrail, ViewAction
from gateway.access.auth import Role
from gateway.access.person_access import FoundPeople, PersonAccess
from gateway.resources.call_events import NotedCallEvent
from gateway.resources.fields import (
    BY_DISPOSITION,
    CALL_DIRECTIONS,
    ENTRY_STATES,
    NOT_REPORTED,
    OUTCOMES,
    QUEUES,
    AgentIdQuery,
    CallDirection,
    CallerOf,
    EntryState,
    EnumNames,
    Id,
    IdempotencyKey,
    Moment,
    Outcome,
    PageSize,
    PageToken,
    PastedText,
    QueueName,
    RequestBody,
    RequiredNotes,
    UserIdPath,
    absent,
    optional_in,
)
from servicekit.call_state_json import moment_in
from servicekit.errors import PermissionDenied

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub


def _whole(value: object) -> object:
    """Return 20 for 20.0: JSON has one kind of number, and some clients send 20.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class SearchRequest(RequestBody):
    """What to search by: exactly one of the three."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [name]} for name in ("phone", "email_address", "name")],
            "examples": [{"name": "smi jo"}],
        },
    )

    phone: PastedText = Field(
        default="",
        json_schema_extra=absent,
        description="A whole phone number in any spelling; a label beside it is ignored.",
        examples=["07700 900123"],
    )
    email_address: PastedText = Field(
        default="",
        json_schema_extra=absent,
        description="A whole e-mail address.",
        examples=["jo@example.com"],
    )
    name: PastedText = Field(
        default="",
        json_schema_extra=absent,
        description="Beginnings of words of the names, in any order; two letters at least.",
        examples=["smi jo"],
    )
    limit: Annotated[int, Field(ge=1, le=50, strict=True), BeforeValidator(_whole)] = 20

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(map(bool, (self.phone, self.email_address, self.name))) != 1:
            raise ValueError("give exactly one of phone, email_address and name")
        return self


class FoundPerson(BaseModel):
    """What distinguishes people with the same name, as the main app has it at this moment."""

    user_id: Id
    first_name: str | None = Field(examples=["Jo"])
    last_name: str | None = Field(examples=["Smith"])
    previous_name: str | None
    email_address: str | None = Field(examples=["jo@example.com"])
    phone_number: str | None = Field(
        description="The first number found, in E.164; the field's own text when there is none.",
        examples=["+447700900123"],
    )
    phone_numbers: list[str] = Field(
        description="Every number found in the field, in E.164, in the order written.",
        examples=[["+447700900123"]],
    )
    phone_number_as_written: str | None = Field(
        description="The field's own text when it holds more than `phone_number`.",
        examples=["07700 900123 wife"],
    )
    date_of_birth: str | None = Field(examples=["1980-02-29"])
    is_enabled: bool
    status: str | None

    @classmethod
    def of(cls, message: user_context_pb2.FoundUser) -> Self:
        """Return what the message says."""
        texts = (
            "first_name", "last_name", "previous_name", "email_address", "phone_number",
            "phone_number_as_written", "date_of_birth", "status",
        )  # fmt: skip
        return cls(
            user_id=str(message.user_id),
            phone_numbers=list(message.phone_numbers),
            is_enabled=message.is_enabled,
            **{name: optional_in(message, name) for name in texts},
        )


class Found(BaseModel):
    """People found, the newest first."""

    people: list[FoundPerson]
    is_complete: bool = Field(
        description="False when more people match than are shown, or when the index does not have "
        "the names of all people yet."
    )


class Rule(BaseModel):
    """The result of one rule for a person."""

    rule: str = Field(examples=["CALLING_HOURS"])
    is_passed: bool
    inputs: dict[str, str] = Field(description="The rule's inputs.")
    words: str
    what_would_change_it: str | None


class Factor(BaseModel):
    """One part of a score."""

    factor: str = Field(examples=["AGEING"])
    points: float
    words: str


class Explanation(BaseModel):
    """Why a person is called, or not."""

    user_id: Id
    summary: str
    state: EntryState | None
    queue: QueueName | None
    is_callable_now: bool
    is_live: bool = Field(
        description="False: from the facts applied last, not from the main app at this moment."
    )
    rules: list[Rule] = Field(description="In the order in which they decide.")
    factors: list[Factor] = Field(description="Their points add up to the score.")
    score: float
    people_ahead: int
    people_ready_longer: int = Field(
        description="People of the queue who have been ready for longer than this person."
    )
    longest_waiting_one_in: int = Field(
        description="Of so many hand-outs of a queue, one goes to the person who has been ready "
        "longest; 0: none."
    )

    @classmethod
    def of(cls, message: queue_pb2.ExplainUserResponse) -> Self:
        """Return what the message says."""
        return cls(
            user_id=str(message.user_id),
            summary=message.summary,
            state=ENTRY_STATES.name(message.state),
            queue=QUEUES.name(message.queue),
            is_callable_now=message.is_callable_now,
            is_live=message.is_live,
            rules=[
                Rule(
                    rule=it.rule,
                    is_passed=it.is_passed,
                    inputs=dict(sorted(it.inputs.items())),
                    words=it.words,
                    what_would_change_it=it.what_would_change_it or None,
                )
                for it in message.rules
            ],
            factors=[
                Factor(factor=it.factor, points=it.points, words=it.words) for it in message.factors
            ],
            score=message.score,
            people_ahead=message.people_ahead,
            people_ready_longer=message.people_ready_longer,
            longest_waiting_one_in=message.longest_waiting_one_in,
        )


class Call(BaseModel):
    """One call."""

    assignment_id: str
    agent_id: str
    queue: QueueName | None
    outcome: Outcome | None = Field(description=NOT_REPORTED)
    ended_at: Moment | None
    callback_at: Moment | None
    notes: str
    disposition: str | None = Field(description=BY_DISPOSITION)
    direction: CallDirection | None
    events: list[NotedCallEvent] = Field(
        description="What happened to the call, the earliest first, as far as it was noted."
    )

    @classmethod
    def of(cls, message: queue_pb2.Call) -> Self:
        """Return what the message says."""
        return cls(
            assignment_id=message.assignment_id,
            agent_id=message.agent_id,
            queue=QUEUES.name(message.queue),
            outcome=OUTCOMES.name(message.outcome),
            ended_at=moment_in(message, "ended_at"),
            callback_at=moment_in(message, "callback_at"),
            notes=message.notes,
            disposition=message.disposition or None,
            direction=CALL_DIRECTIONS.name(message.direction),
            events=[NotedCallEvent.of(it) for it in message.events],
        )


class Calls(BaseModel):
    """One page of a person's calls, the latest first."""

    calls: list[Call]
    next_page_token: str | None = Field(description="null at the end.")


class ComplaintRequest(RequestBody):
    """Whether a complaint of the person is open."""

    is_open: Annotated[bool, Field(strict=True)] = Field(
        description="false once the last complaint is closed, by an ombudsman as well."
    )


class Complaint(BaseModel):
    """The person's latest complaint on record."""

    is_open: bool
    opened_at: Moment | None = Field(
        description="When it was recorded; null when there is none on record."
    )
    closed_at: Moment | None = Field(description="null while it is open.")


class NoteRequest(RequestBody):
    """A note of the person, outside a call."""

    text: RequiredNotes


class Note(BaseModel):
    """The note that was made."""

    note_id: str
    noted_at: Moment | None


class PersonHistoryKind(StrEnum):
    """What an entry of a person's history is of."""

    CALL = "call"
    NOTE = "note"
    CALLBACK_AGREED = "callback_agreed"
    CALLBACK_ENDED = "callback_ended"
    OBJECTION = "objection"
    OBJECTION_LIFTED = "objection_lifted"
    COMPLAINT_OPENED = "complaint_opened"
    COMPLAINT_CLOSED = "complaint_closed"
    AMENDMENT = "amendment"
    CONVERSION = "conversion"


_HISTORY_KINDS = EnumNames(PersonHistoryKind, queue_pb2.HistoryKind)


class PersonHistoryEntry(BaseModel):
    """Something that happened to the person."""

    at: Moment | None
    kind: PersonHistoryKind | None
    actor_id: str | None = Field(
        description="Of a conversion the agent it is credited to; null when none is kept."
    )
    notes: str = Field(description="The actor's words: of an amendment the reason.")
    details: dict[str, str] = Field(
        description="More of it: ids, times, and the names that other answers have for outcomes, "
        "queues and states."
    )

    @classmethod
    def of(cls, message: queue_pb2.HistoryEntry) -> Self:
        """Return what the message says."""
        return cls(
            at=moment_in(message, "at"),
            kind=_HISTORY_KINDS.name(message.kind),
            actor_id=message.actor_id or None,
            notes=message.notes,
            details=dict(sorted(message.details.items())),
        )


class PersonHistory(BaseModel):
    """One page of a person's history, the latest first."""

    entries: list[PersonHistoryEntry]
    next_page_token: str | None = Field(description="null at the end.")


class PeopleRoutes:
    """What the services know about a person beside the context. The audit trail has every view."""

    def __init__(
        self,
        user_context: "UserContextServiceAsyncStub",
        queue: "QueueServiceAsyncStub",
        access: PersonAccess,
        found: FoundPeople,
        trail: AccessTrail,
    ) -> None:
        self._user_context = user_context
        self._queue = queue
        self._access = access
        self._found = found
        self._trail = trail

    async def search(self, caller: CallerOf, body: Annotated[SearchRequest, Body()]) -> Found:
        """Find people by number, e-mail address or name.

        An agent may then read the people shown for a quarter of an hour.
        """
        wanted = body.model_dump(exclude_unset=True) | {"limit": body.limit}
        answer = await self._user_context.SearchUsers(user_context_pb2.SearchUsersRequest(**wanted))
        user_ids = [it.user_id for it in answer.users]
        if caller.role is Role.AGENT and user_ids:
            await self._found.remember(caller.subject, user_ids)
        self._trail.note_all(caller.subject, user_ids, ViewAction.SEARCH)
        return Found(
            people=[FoundPerson.of(it) for it in answer.users], is_complete=answer.is_complete
        )

    async def explanation(
        self, caller: CallerOf, user_id: UserIdPath, agent_id: AgentIdQuery = None
    ) -> Explanation:
        """Every rule about the person with its inputs and result, read live.

        With `agent_id` it also says whether the person would be handed to that agent; agents may
        name only themselves.
        """
        await self._access.require(caller, int(user_id))
        if caller.role is Role.AGENT:
            if agent_id not in (None, caller.subject):
                raise PermissionDenied("NOT_YOURS", "agents may ask this only about themselves")
            agent_id = caller.subject
        answer = await self._queue.ExplainUser(
            queue_pb2.ExplainUserRequest(user_id=int(user_id), agent_id=agent_id or "")
        )
        self._trail.note(caller.subject, int(user_id), ViewAction.EXPLANATION)
        return Explanation.of(answer)

    async def calls(
        self,
        caller: CallerOf,
        user_id: UserIdPath,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> Calls:
        """Every call of the person, the latest first, calls without a report included."""
        await self._access.require(caller, int(user_id))
        answer = await self._queue.ListCalls(
            queue_pb2.ListCallsRequest(
                user_id=int(user_id), page_size=page_size, page_token=page_token
            )
        )
        self._trail.note(caller.subject, int(user_id), ViewAction.CALLS)
        return Calls(
            calls=[Call.of(it) for it in answer.calls],
            next_page_token=answer.next_page_token or None,
        )

    async def note(
        self,
        caller: CallerOf,
        user_id: UserIdPath,
        key: IdempotencyKey,
        body: Annotated[NoteRequest, Body()],
    ) -> Note:
        """Note something of the person outside a call; agents of those they may read."""
        await self._access.require(caller, int(user_id))
        answer = await self._queue.AddNote(
            queue_pb2.AddNoteRequest(
                user_id=int(user_id), text=body.text, actor_id=caller.subject, request_id=str(key)
            )
        )
        return Note(note_id=answer.note_id, noted_at=moment_in(answer, "noted_at"))

    async def history(
        self,
        caller: CallerOf,
        user_id: UserIdPath,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> PersonHistory:
        """Calls and their amendments, notes, callbacks, objections, complaints and conversions.

        The latest first. Each is shown for as long as it is kept.
        """
        await self._access.require(caller, int(user_id))
        answer = await self._queue.ListHistory(
            queue_pb2.ListHistoryRequest(
                user_id=int(user_id), page_size=page_size, page_token=page_token
            )
        )
        self._trail.note(caller.subject, int(user_id), ViewAction.HISTORY)
        return PersonHistory(
            entries=[PersonHistoryEntry.of(it) for it in answer.entries],
            next_page_token=answer.next_page_token or None,
        )

    async def complaint(
        self,
        caller: CallerOf,
        user_id: UserIdPath,
        key: IdempotencyKey,
        body: Annotated[ComplaintRequest, Body()],
    ) -> Complaint:
        """Record that a complaint of the person is open, or that the last one is closed.

        The person's calls are not deleted while a complaint is open, nor for the retention period
        after its end. Recording the present state again changes nothing.
        """
        answer = await self._queue.NoteComplaint(
            queue_pb2.NoteComplaintRequest(
                user_id=int(user_id),
                is_open=body.is_open,
                actor_id=caller.subject,
                request_id=str(key),
            )
        )
        return Complaint(
            is_open=answer.is_open,
            opened_at=moment_in(answer, "opened_at"),
            closed_at=moment_in(answer, "closed_at"),
        )
