"""People: search without personal data in an address, explanation, calls."""

from typing import TYPE_CHECKING, Annotated, Any, Self

from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2
from fastapi import Body
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from gateway.access import Access, FoundPeople
from gateway.access_trail import AccessTrail, View
from gateway.auth import Caller, Role
from gateway.fields import AgentIdQuery, CallerOf, PageSize, PageToken, UserIdPath, optional_in
from gateway.schemas import (
    EntryState,
    Id,
    Moment,
    Outcome,
    QueueName,
    moment_in,
    outcome_name,
    queue_name,
    state_name,
)
from servicekit.errors import PermissionDenied

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub


# Printable text that is not all blank.
_Searched = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")
]


def _whole(value: object) -> object:
    """JSON's 20.0 is the same number as its 20, and some clients write it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _absent(schema: dict[str, Any]) -> None:
    """Absent is not the same as empty, which is refused."""
    schema.pop("default", None)


class SearchRequest(BaseModel):
    """What to search by: exactly one of the three."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "oneOf": [{"required": [name]} for name in ("phone", "email_address", "name")],
            "examples": [{"name": "smi jo"}],
        },
    )

    phone: _Searched = Field(
        default="",
        json_schema_extra=_absent,
        description="A whole number, however it is written.",
        examples=["07700 900123"],
    )
    email_address: _Searched = Field(
        default="",
        json_schema_extra=_absent,
        description="A whole address.",
        examples=["jo@example.com"],
    )
    name: _Searched = Field(
        default="",
        json_schema_extra=_absent,
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
    """What tells people with the same name apart, as the main app has it at this moment."""

    user_id: Id
    first_name: str | None = Field(examples=["Jo"])
    last_name: str | None = Field(examples=["Smith"])
    previous_name: str | None
    email_address: str | None = Field(examples=["jo@example.com"])
    phone_number: str | None = Field(
        description="In E.164 when valid, else as the main app has it.", examples=["+447700900123"]
    )
    date_of_birth: str | None = Field(examples=["1980-02-29"])
    is_enabled: bool
    status: str | None

    @classmethod
    def of(cls, message: user_context_pb2.FoundUser) -> Self:
        """Return what the message says."""
        texts = (
            "first_name", "last_name", "previous_name", "email_address", "phone_number",
            "date_of_birth", "status",
        )  # fmt: skip
        said = {name: optional_in(message, name) for name in texts}
        return cls(user_id=str(message.user_id), is_enabled=message.is_enabled, **said)


class Found(BaseModel):
    """People found, the newest first."""

    people: list[FoundPerson]
    is_complete: bool = Field(
        description="False when more match than are shown, or when the names of some people have "
        "not been taken up yet."
    )


class Rule(BaseModel):
    """What one rule says of a person."""

    rule: str = Field(examples=["CALLING_HOURS"])
    is_passed: bool
    inputs: dict[str, str] = Field(description="What it looked at.")
    words: str
    what_would_change_it: str | None


class Factor(BaseModel):
    """One part of a score."""

    factor: str = Field(examples=["AGEING"])
    points: float
    words: str


class Explanation(BaseModel):
    """Why somebody is called, or not."""

    user_id: Id
    summary: str
    state: EntryState | None
    queue: QueueName | None
    is_callable_now: bool
    is_live: bool = Field(description="False: by the facts last applied, not by the main app now.")
    rules: list[Rule] = Field(description="In the order in which they decide.")
    factors: list[Factor] = Field(description="They add up to the score.")
    score: float
    people_ahead: int

    @classmethod
    def of(cls, message: queue_pb2.ExplainUserResponse) -> Self:
        """Return what the message says."""
        return cls(
            user_id=str(message.user_id),
            summary=message.summary,
            state=state_name(message.state),
            queue=queue_name(message.queue),
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
        )


class Call(BaseModel):
    """One call that ended with an outcome."""

    assignment_id: str
    agent_id: str
    queue: QueueName | None
    outcome: Outcome | None
    ended_at: Moment | None
    callback_at: Moment | None
    notes: str

    @classmethod
    def of(cls, message: queue_pb2.Call) -> Self:
        """Return what the message says."""
        return cls(
            assignment_id=message.assignment_id,
            agent_id=message.agent_id,
            queue=queue_name(message.queue),
            outcome=outcome_name(message.outcome),
            ended_at=moment_in(message, "ended_at"),
            callback_at=moment_in(message, "callback_at"),
            notes=message.notes,
        )


class Calls(BaseModel):
    """One page of a person's calls, the latest first."""

    calls: list[Call]
    next_page_token: str | None = Field(description="null at the end.")


class PersonRoutes:
    """What there is to know of a person beside the context. Every view is noted."""

    def __init__(
        self,
        user_context: "UserContextServiceAsyncStub",
        queue: "QueueServiceAsyncStub",
        access: Access,
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

        An agent may then read those shown for a quarter of an hour.
        """
        wanted = body.model_dump(exclude_unset=True) | {"limit": body.limit}
        answer = await self._user_context.SearchUsers(user_context_pb2.SearchUsersRequest(**wanted))
        user_ids = [it.user_id for it in answer.users]
        if caller.role is Role.AGENT and user_ids:
            await self._found.remember(caller.subject, user_ids)
        self._trail.note_all(caller.subject, user_ids, View.SEARCH)
        return Found(
            people=[FoundPerson.of(it) for it in answer.users], is_complete=answer.is_complete
        )

    async def explanation(
        self, caller: CallerOf, user_id: UserIdPath, agent_id: AgentIdQuery = None
    ) -> Explanation:
        """Every rule about the person with its inputs and result, read live.

        With `agent_id` it also says whether that agent would be handed the person; agents may ask
        that of themselves only.
        """
        await self._access.require(caller, int(user_id))
        answer = await self._queue.ExplainUser(
            queue_pb2.ExplainUserRequest(
                user_id=int(user_id), agent_id=_as_seen_by(caller, agent_id) or ""
            )
        )
        self._trail.note(caller.subject, int(user_id), View.EXPLANATION)
        return Explanation.of(answer)

    async def calls(
        self,
        caller: CallerOf,
        user_id: UserIdPath,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> Calls:
        """Every call of the person that ended with an outcome."""
        await self._access.require(caller, int(user_id))
        answer = await self._queue.ListCalls(
            queue_pb2.ListCallsRequest(
                user_id=int(user_id), page_size=page_size, page_token=page_token
            )
        )
        self._trail.note(caller.subject, int(user_id), View.CALLS)
        return Calls(
            calls=[Call.of(it) for it in answer.calls],
            next_page_token=answer.next_page_token or None,
        )


def _as_seen_by(caller: Caller, agent_id: str | None) -> str | None:
    if caller.role is not Role.AGENT:
        return agent_id
    if agent_id not in (None, caller.subject):
        raise PermissionDenied("NOT_YOURS", "agents may ask this of themselves only")
    return caller.subject
