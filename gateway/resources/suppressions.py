"""Suppressions: objections of people and of bare numbers, and lists of numbers sent as CSV."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Body, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from gateway.access.audit import AccessTrail, ViewAction
from gateway.access.auth import Caller
from gateway.access.person_access import PersonAccess
from gateway.http.problems import HttpError
from gateway.resources.call_states import CallState
from gateway.resources.fields import (
    CallerOf,
    EnumNames,
    HarmlessKey,
    Id,
    IdempotencyKey,
    Moment,
    PageSize,
    PageToken,
    PastedText,
    RequestBody,
    RequiredNotes,
    UserIdQuery,
    UserIdText,
    absent,
    optional_in,
)
from gateway.resources.spreadsheets import CSV, csv_line
from servicekit.call_state_json import moment_in
from servicekit.errors import PermissionDenied, ServiceError

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

PHONE_LISTS = "/v1/phone-lists/"
EXPORT_COLUMNS = ("suppression_id", "user_id", "phone", "created_by", "created_at", "notes", "kind")

ListName = Annotated[
    str,
    Path(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$",
        description="The list's name.",
        examples=["tps"],
    ),
]


SuppressionId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"),
]
IncludeLifted = Annotated[bool, Query(description="Also lifted suppressions.")]


def _day(value: object) -> object:
    """Refuse numbers, which pydantic takes for seconds since 1970."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("not a day such as 2026-10-31")
    return value


class Lifted(StrEnum):
    """What stops calls to a person until a supervisor lifts it."""

    OBJECTION = "objection"
    NO_CLAIM = "no_claim"
    DECEASED = "deceased"


class SuppressionKind(StrEnum):
    """The kinds of objections; a person can have one of each."""

    OBJECTION = "objection"
    DECEASED = "deceased"


SUPPRESSION_KINDS = EnumNames(SuppressionKind, queue_pb2.SuppressionKind)
LIFTED = EnumNames(Lifted, queue_pb2.Lifted)


class Suppression(BaseModel):
    """An objection: a person, or a bare number, that must not be called."""

    suppression_id: str
    user_id: Id | None = Field(description="null for a bare number.")
    kind: SuppressionKind | None = Field(description="null: newer than this gateway.")
    phone_number: str | None = Field(
        description="The bare number in E.164; null for a person.", examples=["+447700900123"]
    )
    created_by: str
    created_at: Moment | None
    notes: str
    lifted_at: Moment | None = Field(description="null while it is in force.")
    lifted_by: str | None
    lift_notes: str | None

    @classmethod
    def of(cls, message: queue_pb2.Suppression) -> Self:
        """Return what the message says."""
        return cls(
            suppression_id=message.suppression_id,
            user_id=str(message.user_id) if message.user_id else None,
            kind=SUPPRESSION_KINDS.name(message.kind),
            phone_number=message.phone_e164 or None,
            created_by=message.created_by,
            created_at=moment_in(message, "created_at"),
            notes=message.notes,
            lifted_at=moment_in(message, "lifted_at"),
            lifted_by=message.lifted_by or None,
            lift_notes=message.lift_notes or None,
        )


class SuppressionPage(BaseModel):
    """One page of suppressions, the latest first."""

    suppressions: list[Suppression]
    next_page_token: str | None = Field(description="null at the end.")


class SuppressionRequest(RequestBody):
    """The person or number not to be called, and why: exactly one of `user_id` and `phone`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["user_id"]}, {"required": ["phone"]}],
            "examples": [{"user_id": "4711", "notes": "Asked by letter."}],
        },
    )

    user_id: UserIdText = Field(default="", json_schema_extra=absent, examples=["4711"])
    phone: PastedText = Field(
        default="",
        json_schema_extra=absent,
        description="One phone number in any spelling; every person who has it is suppressed.",
        examples=["07700 900123"],
    )
    notes: RequiredNotes = Field(examples=["Asked by letter."])
    kind: SuppressionKind = Field(
        default=SuppressionKind.OBJECTION,
        description="`deceased` for a person who has died; an objection to a bare number is of no "
        "other kind.",
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.user_id) == bool(self.phone):
            raise ValueError("give exactly one of user_id and phone")
        return self


class Suppressed(BaseModel):
    """The objection in force, and the person's state with it."""

    suppression_id: str
    call_state: CallState | None = Field(
        description="null for a bare number, and for an agent when it could not be determined "
        "whether the agent may see the person."
    )


class LiftRequest(RequestBody):
    """What to lift, and why: of `user_id`, or the objection `suppression_id`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["user_id"]}, {"required": ["suppression_id"]}],
            # An id names an objection.
            "not": {
                "required": ["suppression_id", "what"],
                "properties": {"what": {"const": Lifted.NO_CLAIM}},
            },
            "examples": [{"user_id": "4711", "notes": "Changed their mind.", "what": "objection"}],
        },
    )

    user_id: UserIdText = Field(default="", json_schema_extra=absent, examples=["4711"])
    suppression_id: SuppressionId = Field(
        default="",
        json_schema_extra=absent,
        description="An objection of a person or of a bare number.",
        examples=["b83bf13c-60f4-4166-ad09-736910c6b1cc"],
    )
    what: Lifted | None = Field(
        default=None,
        description="null: the only one in force; 409 `SEVERAL_STAND` when several are.",
    )
    notes: RequiredNotes = Field(examples=["Changed their mind by letter."])

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.user_id) == bool(self.suppression_id):
            raise ValueError("give exactly one of user_id and suppression_id")
        if self.suppression_id and self.what is Lifted.NO_CLAIM:
            raise ValueError("a suppression_id names an objection")
        return self


class SuppressionLifted(BaseModel):
    """The person's state afterwards."""

    call_state: CallState | None = Field(description="null for a bare number.")


class SuppressionSearchRequest(RequestBody):
    """The number to look for: in a body, since URLs are logged."""

    phone: PastedText = Field(
        description="One phone number in any spelling.", examples=["07700 900123"]
    )


class PhoneListImport(BaseModel):
    """The result of importing a list."""

    lines: int = Field(description="Lines that are not empty, without the heading.")
    added: int
    removed: int
    invalid: int
    invalid_lines: list[int] = Field(
        description="The numbers of the first 100 invalid lines, from 1."
    )
    people_suppressed: int
    people_released: int


class PhoneListEdition(BaseModel):
    """The content of one import of a list."""

    edition_id: Id
    is_complete: bool = Field(description="Whether it replaced all before it.")
    numbers: int = Field(description="Numbers that it added.")
    dated_on: date | None = Field(description="The day it is of; null: the import did not say.")
    source: str | None
    imported_by: str
    imported_at: Moment | None


class PhoneList(BaseModel):
    """A list of numbers that must not be called, in force."""

    list_name: str
    numbers: int
    dated_on: date = Field(description="The day it is of: that of its latest edition.")
    oldest_days: float | None = Field(
        description="Days after which it counts as old; null when the rules name none."
    )
    is_old: bool
    editions: list[PhoneListEdition] = Field(description="The oldest first.")

    @classmethod
    def of(cls, message: queue_pb2.PhoneList) -> Self:
        """Return what the message says."""
        return cls(
            list_name=message.list_name,
            numbers=message.numbers,
            dated_on=date.fromisoformat(message.dated_on),
            oldest_days=optional_in(message, "oldest_days"),
            is_old=message.is_old,
            editions=[
                PhoneListEdition(
                    edition_id=str(it.edition_id),
                    is_complete=it.is_complete,
                    numbers=it.numbers,
                    dated_on=date.fromisoformat(it.dated_on) if it.dated_on else None,
                    source=it.source or None,
                    imported_by=it.imported_by,
                    imported_at=moment_in(it, "imported_at"),
                )
                for it in message.editions
            ],
        )


class PhoneListOverview(BaseModel):
    """Every list in force, by name."""

    lists: list[PhoneList]


class SuppressionRoutes:
    """Suppressions. Agents may record objections; the rest is for supervisors."""

    def __init__(
        self,
        queue: "QueueServiceAsyncStub",
        access: PersonAccess,
        trail: AccessTrail,
        upload_seconds: float,
    ) -> None:
        self._queue = queue
        self._access = access
        self._trail = trail
        self._upload_seconds = upload_seconds

    async def suppressions(
        self,
        caller: CallerOf,
        user_id: UserIdQuery = None,
        include_lifted: IncludeLifted = False,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> SuppressionPage:
        """Objections of people and of bare numbers, the latest first."""
        request = queue_pb2.ListSuppressionsRequest(
            user_id=int(user_id or 0),
            include_lifted=include_lifted,
            page_size=page_size,
            page_token=page_token,
        )
        return await self._page(caller, request)

    async def search(
        self,
        caller: CallerOf,
        body: Annotated[SuppressionSearchRequest, Body()],
        include_lifted: IncludeLifted = False,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> SuppressionPage:
        """Objections that stop calls to a number, the latest first."""
        request = queue_pb2.ListSuppressionsRequest(
            phone=body.phone,
            include_lifted=include_lifted,
            page_size=page_size,
            page_token=page_token,
        )
        return await self._page(caller, request)

    async def suppress(
        self, caller: CallerOf, key: IdempotencyKey, body: Annotated[SuppressionRequest, Body()]
    ) -> Suppressed:
        """Record an objection: stop every call to a person and their numbers, or to a bare number.

        An agent may record one of a person the agent may see, and of any number. It takes effect
        with the next claim; the event `objection_recorded` notifies the agent who holds the
        person.
        """
        may_see = True
        if body.user_id:
            # Refused only when the person certainly is not the agent's: an objection is not lost
            # because another service is unavailable.
            try:
                await self._access.require(caller, int(body.user_id))
            except PermissionDenied:
                raise
            except ServiceError:
                may_see = False
        answer = await self._queue.SuppressUser(
            queue_pb2.SuppressUserRequest(
                user_id=int(body.user_id or 0),
                phone=body.phone,
                actor_id=caller.subject,
                notes=body.notes,
                request_id=str(key),
                kind=SUPPRESSION_KINDS.number(body.kind),
            )
        )
        return Suppressed(
            suppression_id=answer.suppression_id,
            call_state=_call_state(answer) if may_see else None,
        )

    async def lift(
        self, caller: CallerOf, key: IdempotencyKey, body: Annotated[LiftRequest, Body()]
    ) -> SuppressionLifted:
        """Lift an objection, a "no claim" that was reviewed, or a report of a death; others stay.

        409 `NOT_SUPPRESSED` when it is not in force, `SEVERAL_STAND` when several are and `what`
        does not say which.
        """
        answer = await self._queue.LiftSuppression(
            queue_pb2.LiftSuppressionRequest(
                user_id=int(body.user_id or 0),
                suppression_id=body.suppression_id,
                what=LIFTED.number(body.what),
                actor_id=caller.subject,
                notes=body.notes,
                request_id=str(key),
            )
        )
        return SuppressionLifted(call_state=_call_state(answer))

    async def import_phones(
        self,
        request: Request,
        caller: CallerOf,
        list_name: ListName,
        is_complete: Annotated[
            bool, Query(description="Remove numbers that the body lacks from the list.")
        ] = False,
        allow_shrink: Annotated[
            bool,
            Query(description="Let a complete list remove any number of entries."),
        ] = False,
        dated_on: Annotated[
            date | None,
            BeforeValidator(_day),
            Query(description="The day that the list is of; absent: today."),
        ] = None,
        source: Annotated[
            str, Query(max_length=200, description="Where it comes from, such as a file's name.")
        ] = "",
        dry_run: Annotated[
            bool, Query(description="Only count whom the list would concern.")
        ] = False,
        key: HarmlessKey = None,
    ) -> PhoneListImport:
        """Import a list of numbers that must not be called: all of it, or nothing.

        409 LIST_SHRINKS, with `numbers` and `removed`, for a complete list that lacks more than the
        usual share of the numbers on it; 409 LIST_IMPORT_UNDER_WAY while another import runs.
        The body is streamed: one number a line in any spelling, or a column headed `phone`,
        `number`, `telephone` or `phone_number`.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CSV:
            raise HttpError(415, "NOT_CSV", "the body must be text/csv")
        header = queue_pb2.ImportSuppressedPhonesRequest(
            list_name=list_name,
            actor_id=caller.subject,
            is_complete=is_complete,
            must_end=True,
            allow_shrink=allow_shrink,
            dated_on=dated_on.isoformat() if dated_on else "",
            source=source,
            dry_run=dry_run,
        )
        parts = _Parts(request, header)
        try:
            answer = await self._queue.ImportSuppressedPhones(
                aiter(parts), timeout=self._upload_seconds
            )
        except (asyncio.CancelledError, ServiceError):
            # gRPC cancels a call whose input raises.
            if parts.failure is None:
                raise
            raise parts.failure from None
        return PhoneListImport(
            lines=answer.lines,
            added=answer.added,
            removed=answer.removed,
            invalid=answer.invalid,
            invalid_lines=list(answer.invalid_lines),
            people_suppressed=answer.people_suppressed,
            people_released=answer.people_released,
        )

    async def phone_lists(self) -> PhoneListOverview:
        """Lists of numbers in force: of which day each is, whether it is old, and its editions."""
        answer = await self._queue.ListPhoneLists(queue_pb2.ListPhoneListsRequest())
        return PhoneListOverview(lists=[PhoneList.of(it) for it in answer.lists])

    async def export(self, caller: CallerOf) -> StreamingResponse:
        """Every objection in force as CSV, one line for each of its numbers; the audit has it.

        `PUT /v1/phone-lists/{list_name}` takes the file, so that its numbers are not called while
        objections are entered again after a loss. It is whole when the response ends as HTTP has
        it: an export that fails midway breaks the connection.
        """
        call = self._queue.ExportObjections(
            queue_pb2.ExportObjectionsRequest(actor_id=caller.subject), timeout=self._upload_seconds
        )
        parts = aiter(call)
        # Refusals come before the response begins.
        first = await anext(parts, None)

        async def lines() -> AsyncIterator[str]:
            yield csv_line(EXPORT_COLUMNS)
            part = first
            while part is not None:
                yield "".join(_csv_lines(part))
                part = await anext(parts, None)

        headers = {"content-disposition": 'attachment; filename="objections.csv"'}
        return StreamingResponse(lines(), media_type=CSV, headers=headers)

    async def _page(
        self, caller: Caller, request: queue_pb2.ListSuppressionsRequest
    ) -> SuppressionPage:
        answer = await self._queue.ListSuppressions(request)
        seen = (it.user_id for it in answer.suppressions if it.user_id)
        self._trail.note_all(caller.subject, seen, ViewAction.SUPPRESSION)
        return SuppressionPage(
            suppressions=[Suppression.of(it) for it in answer.suppressions],
            next_page_token=answer.next_page_token or None,
        )


def _call_state(
    answer: queue_pb2.SuppressUserResponse | queue_pb2.LiftSuppressionResponse,
) -> CallState | None:
    return CallState.of(answer.call_state) if answer.HasField("call_state") else None


def _csv_lines(part: queue_pb2.ExportObjectionsResponse) -> Iterator[str]:
    """Yield a line for each number of each objection, and one for an objection without any."""
    for it in part.objections:
        made = it.suppression
        created_at = moment_in(made, "created_at")
        for phone in it.phones or ("",):
            yield csv_line(
                (
                    made.suppression_id,
                    str(made.user_id or ""),
                    phone,
                    made.created_by,
                    created_at or "",
                    made.notes,
                    SUPPRESSION_KINDS.name(made.kind) or "",
                )
            )


class _Parts:
    """The messages of one upload, and the error that ended them early, if any."""

    def __init__(self, request: Request, header: queue_pb2.ImportSuppressedPhonesRequest) -> None:
        self._request = request
        self._header = header
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest]:
        yield self._header
        try:
            async for part in self._request.stream():
                if part:
                    yield queue_pb2.ImportSuppressedPhonesRequest(csv=part)
            # Without it the queue imports nothing.
            yield queue_pb2.ImportSuppressedPhonesRequest(is_last=True)
        except Exception as error:
            self.failure = error
            raise
