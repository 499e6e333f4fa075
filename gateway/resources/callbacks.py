"""Callbacks: agreements to call a person at a given time."""

import logging
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2
from fastapi import Body, Path, Query
from pydantic import BaseModel, Field

from gateway.access.audit import AccessTrail, ViewAction
from gateway.access.auth import Role
from gateway.access.person_access import PersonAccess
from gateway.resources.fields import (
    AgentIdQuery,
    AgentIdText,
    CallerOf,
    EnumNames,
    Id,
    IdempotencyKey,
    Moment,
    MomentIn,
    Notes,
    PageSize,
    PageToken,
    RequestBody,
    UserIdQuery,
    UserIdText,
    optional_in,
    timestamp,
)
from servicekit.call_state_json import callback_json
from servicekit.errors import PermissionDenied, ServiceError

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub

_log = logging.getLogger(__name__)

CallbackId = Annotated[UUID, Path(description="The callback's id.")]
_WHEN = Field(
    description="In the future and within the person's calling hours; else 400 "
    "`CALLBACK_OUTSIDE_HOURS`, whose `metadata.next_open_at` is the next such moment.",
    examples=["2030-06-03T18:00:00+01:00"],
)


class CallbackState(StrEnum):
    """The state of a callback."""

    OPEN = "open"
    DONE = "done"
    MISSED = "missed"
    CANCELLED = "cancelled"
    CLOSED = "closed"
    REPLACED = "replaced"


CALLBACK_STATES = EnumNames(CallbackState, call_state_pb2.CallbackState)


class Callback(BaseModel):
    """An agreement to call a person at a given time."""

    callback_id: str
    user_id: Id
    scheduled_for: Moment | None
    preferred_agent_id: str | None = Field(
        description="The agent to whom it is offered first; null: any agent."
    )
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
        return cls(**callback_json(message))


class CallbackPerson(BaseModel):
    """Whom to call, as the person's context has it."""

    first_name: str | None = Field(examples=["Jo"])
    last_name: str | None = Field(examples=["Smith"])
    phone_number: str | None = Field(
        description="The first number found, in E.164; the field's own text when there is none.",
        examples=["+447700900123"],
    )

    @classmethod
    def of(cls, message: user_context_pb2.User) -> Self:
        """Return what the message says."""
        return cls(**{name: optional_in(message, name) for name in cls.model_fields})


class ListedCallback(Callback):
    """A callback and the person to call."""

    person: CallbackPerson | None = Field(
        description="null when the main app does not have the person, or cannot be asked now."
    )


class CallbackPage(BaseModel):
    """One page of callbacks, the earliest first."""

    callbacks: list[ListedCallback]
    next_page_token: str | None = Field(description="null at the end.")


class CallbackRequest(RequestBody):
    """Which person to call when."""

    user_id: UserIdText = Field(examples=["4711"])
    scheduled_for: MomentIn = _WHEN
    preferred_agent_id: AgentIdText | None = Field(
        default=None,
        description="The agent to whom it is offered first; absent: any agent.",
        examples=["agent-1"],
    )
    notes: Notes = Field(default="", examples=["After work, please."])


class RescheduleRequest(RequestBody):
    """The new time of the callback."""

    scheduled_for: MomentIn = _WHEN
    preferred_agent_id: AgentIdText | None = Field(
        default=None,
        description="The agent to whom it is offered first from now on; null: any agent; absent: "
        "unchanged.",
        examples=["agent-1"],
    )


class CallbackRoutes:
    """Agents see and move their own callbacks and those of people they may see; supervisors all."""

    def __init__(
        self,
        queue: "QueueServiceAsyncStub",
        user_context: "UserContextServiceAsyncStub",
        access: PersonAccess,
        trail: AccessTrail,
    ) -> None:
        self._queue = queue
        self._user_context = user_context
        self._access = access
        self._trail = trail

    async def callbacks(
        self,
        caller: CallerOf,
        state: Annotated[CallbackState, Query(description="Only callbacks in this state.")] = (
            CallbackState.OPEN
        ),
        user_id: UserIdQuery = None,
        preferred_agent_id: AgentIdQuery = None,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> CallbackPage:
        """Callbacks with their people, the earliest first.

        For agents without `user_id` only their own, whose people they may open as long as the
        callback is open.
        """
        if caller.role is Role.AGENT:
            if user_id is not None:
                await self._access.require(caller, int(user_id))
            elif preferred_agent_id not in (None, caller.subject):
                raise PermissionDenied("NOT_YOURS", "agents see their own callbacks only")
            else:
                preferred_agent_id = caller.subject
        answer = await self._queue.ListCallbacks(
            queue_pb2.ListCallbacksRequest(
                preferred_agent_id=preferred_agent_id or "",
                user_id=int(user_id or 0),
                state=CALLBACK_STATES.number(state),
                page_size=page_size,
                page_token=page_token,
            )
        )
        people = await self._people([it.user_id for it in answer.callbacks])
        seen = (it.user_id for it in answer.callbacks)
        self._trail.note_all(caller.subject, seen, ViewAction.CALLBACK)
        return CallbackPage(
            callbacks=[
                ListedCallback(**callback_json(it), person=people.get(it.user_id))
                for it in answer.callbacks
            ],
            next_page_token=answer.next_page_token or None,
        )

    async def _people(self, user_ids: Sequence[int]) -> dict[int, CallbackPerson]:
        """Return who they are, as far as that can be read: the list is of use without it."""
        found: dict[int, CallbackPerson] = {}
        remaining = user_ids
        while remaining:
            try:
                answer = await self._user_context.BatchGetUserContexts(
                    user_context_pb2.BatchGetUserContextsRequest(user_ids=remaining)
                )
            except ServiceError as error:
                _log.debug("people_unknown", extra={"reason": error.reason})
                break
            for each in answer.contexts:
                found[each.context.user.user_id] = CallbackPerson.of(each.context.user)
            remaining = answer.remaining_user_ids
        return found

    async def schedule(
        self, caller: CallerOf, key: IdempotencyKey, body: Annotated[CallbackRequest, Body()]
    ) -> Callback:
        """Agree a callback with a person; 409 when the person has an open one."""
        await self._access.require(caller, int(body.user_id))
        answer = await self._queue.ScheduleCallback(
            queue_pb2.ScheduleCallbackRequest(
                user_id=int(body.user_id),
                scheduled_for=timestamp(body.scheduled_for),
                preferred_agent_id=body.preferred_agent_id or "",
                notes=body.notes,
                actor_id=caller.subject,
                request_id=str(key),
            )
        )
        return Callback.of(answer.callback)

    async def reschedule(
        self,
        caller: CallerOf,
        callback_id: CallbackId,
        key: IdempotencyKey,
        body: Annotated[RescheduleRequest, Body()],
    ) -> Callback:
        """Move an open or missed callback; for agents only their own, or the assigned person's."""
        request = queue_pb2.RescheduleCallbackRequest(
            callback_id=str(callback_id),
            scheduled_for=timestamp(body.scheduled_for),
            actor_id=caller.subject,
            request_id=str(key),
            own_only=caller.role is Role.AGENT,
        )
        if "preferred_agent_id" in body.model_fields_set:
            request.preferred_agent_id = body.preferred_agent_id or ""
        return Callback.of((await self._queue.RescheduleCallback(request)).callback)

    async def cancel(
        self, caller: CallerOf, callback_id: CallbackId, key: IdempotencyKey
    ) -> Callback:
        """Cancel an open or missed callback; agents may cancel what they may move."""
        answer = await self._queue.CancelCallback(
            queue_pb2.CancelCallbackRequest(
                callback_id=str(callback_id),
                actor_id=caller.subject,
                request_id=str(key),
                own_only=caller.role is Role.AGENT,
            )
        )
        return Callback.of(answer.callback)
