"""Suppressions: people nobody calls, and lists of numbers brought as CSV."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Body, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.access_trail import AccessTrail, View
from gateway.fields import (
    CallerOf,
    HarmlessKey,
    IdempotencyKey,
    PageSize,
    PageToken,
    RequiredNotes,
    UserIdQuery,
    UserIdText,
)
from gateway.problems import HttpError
from gateway.schemas import CallState, Id, Moment, moment_in
from servicekit.errors import ServiceError

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

PHONE_LISTS = "/v1/phone-lists/"
CSV = "text/csv"

ListName = Annotated[
    str,
    Path(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$",
        description="What the list is called.",
        examples=["tps"],
    ),
]


class Suppression(BaseModel):
    """A person whom nobody calls."""

    suppression_id: str
    user_id: Id
    created_by: str
    created_at: Moment | None
    notes: str
    lifted_at: Moment | None = Field(description="null while it stands.")
    lifted_by: str | None
    lift_notes: str | None

    @classmethod
    def of(cls, message: queue_pb2.Suppression) -> Self:
        """Return what the message says."""
        return cls(
            suppression_id=message.suppression_id,
            user_id=str(message.user_id),
            created_by=message.created_by,
            created_at=moment_in(message, "created_at"),
            notes=message.notes,
            lifted_at=moment_in(message, "lifted_at"),
            lifted_by=message.lifted_by or None,
            lift_notes=message.lift_notes or None,
        )


class Suppressions(BaseModel):
    """One page of suppressions, the latest first."""

    suppressions: list[Suppression]
    next_page_token: str | None = Field(description="null at the end.")


class SuppressionRequest(BaseModel):
    """Whose calls stop, or may go on, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user_id: UserIdText = Field(examples=["4711"])
    notes: RequiredNotes = Field(examples=["Asked by letter."])


class Suppressed(BaseModel):
    """The person's state afterwards."""

    call_state: CallState


class PhoneListImport(BaseModel):
    """What taking over a list came to."""

    lines: int = Field(description="Lines with something in them, the heading apart.")
    added: int
    removed: int
    invalid: int
    invalid_lines: list[int] = Field(description="The first 100, from 1.")
    people_suppressed: int
    people_released: int


class SuppressionRoutes:
    """Who is not called; for supervisors."""

    def __init__(
        self, queue: "QueueServiceAsyncStub", trail: AccessTrail, upload_seconds: float
    ) -> None:
        self._queue = queue
        self._trail = trail
        self._upload_seconds = upload_seconds

    async def suppressions(
        self,
        caller: CallerOf,
        user_id: UserIdQuery = None,
        include_lifted: Annotated[bool, Query(description="Also those that were lifted.")] = False,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> Suppressions:
        """Suppressed people, the latest first."""
        answer = await self._queue.ListSuppressions(
            queue_pb2.ListSuppressionsRequest(
                user_id=int(user_id or 0),
                include_lifted=include_lifted,
                page_size=page_size,
                page_token=page_token,
            )
        )
        seen = (it.user_id for it in answer.suppressions)
        self._trail.note_all(caller.subject, seen, View.SUPPRESSION)
        return Suppressions(
            suppressions=[Suppression.of(it) for it in answer.suppressions],
            next_page_token=answer.next_page_token or None,
        )

    async def suppress(
        self, caller: CallerOf, key: IdempotencyKey, body: Annotated[SuppressionRequest, Body()]
    ) -> Suppressed:
        """Stop every call to a person and to the person's number."""
        answer = await self._queue.SuppressUser(
            queue_pb2.SuppressUserRequest(
                user_id=int(body.user_id),
                actor_id=caller.subject,
                notes=body.notes,
                request_id=str(key),
            )
        )
        return Suppressed(call_state=CallState.of(answer.call_state))

    async def lift(
        self, caller: CallerOf, key: IdempotencyKey, body: Annotated[SuppressionRequest, Body()]
    ) -> Suppressed:
        """Lift a suppression, or a "no claim" that was reviewed; 409 when neither stands."""
        answer = await self._queue.LiftSuppression(
            queue_pb2.LiftSuppressionRequest(
                user_id=int(body.user_id),
                actor_id=caller.subject,
                notes=body.notes,
                request_id=str(key),
            )
        )
        return Suppressed(call_state=CallState.of(answer.call_state))

    async def import_phones(
        self,
        request: Request,
        caller: CallerOf,
        list_name: ListName,
        is_complete: Annotated[
            bool, Query(description="Take numbers that are missing here off the list.")
        ] = False,
        key: HarmlessKey = None,
    ) -> PhoneListImport:
        """Take over a list of numbers that must not be called: all of it, or nothing.

        The body is streamed: one number a line in any spelling, or a column headed `phone`,
        `number`, `telephone` or `phone_number`.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CSV:
            raise HttpError(415, "NOT_CSV", "the body must be text/csv")
        header = queue_pb2.ImportSuppressedPhonesRequest(
            list_name=list_name, actor_id=caller.subject, is_complete=is_complete, must_end=True
        )
        parts = _Parts(request, header)
        try:
            answer = await self._queue.ImportSuppressedPhones(
                aiter(parts), timeout=self._upload_seconds
            )
        except (asyncio.CancelledError, ServiceError):
            # So ends a call whose input fails.
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


class _Parts:
    """The messages of one upload, and why they ended too early if they did."""

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
            # Without it the queue takes over nothing.
            yield queue_pb2.ImportSuppressedPhonesRequest(is_last=True)
        except Exception as error:
            self.failure = error
            raise
