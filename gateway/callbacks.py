"""Callbacks: agreements to call somebody at a given time."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from fastapi import Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.access import Access
from gateway.access_trail import AccessTrail, View
from gateway.auth import Caller, Role
from gateway.fields import (
    AgentIdQuery,
    AgentIdText,
    CallerOf,
    IdempotencyKey,
    PageSize,
    PageToken,
    UserIdQuery,
    UserIdText,
    timestamp,
)
from gateway.schemas import Callback, CallbackState, MomentIn, Notes
from servicekit.errors import PermissionDenied

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

CallbackId = Annotated[UUID, Path(description="The callback's id.")]
_WHEN = Field(description="In the future.", examples=["2030-06-02T18:00:00+01:00"])


class Callbacks(BaseModel):
    """One page of callbacks, the earliest first."""

    callbacks: list[Callback]
    next_page_token: str | None = Field(description="null at the end.")


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CallbackRequest(_Input):
    """Who is to be called when."""

    user_id: UserIdText = Field(examples=["4711"])
    scheduled_for: MomentIn = _WHEN
    preferred_agent_id: AgentIdText | None = Field(
        default=None, description="Who is offered it first; absent: anyone.", examples=["agent-1"]
    )
    notes: Notes = Field(default="", examples=["After work, please."])


class RescheduleRequest(_Input):
    """When the person is to be called instead."""

    scheduled_for: MomentIn = _WHEN
    preferred_agent_id: AgentIdText | None = Field(
        default=None,
        description="Who is offered it first from now on; null: anyone; absent: as it was.",
        examples=["agent-1"],
    )


class CallbackRoutes:
    """Agents see and move their own, and those of people they may see; supervisors all."""

    def __init__(self, queue: "QueueServiceAsyncStub", access: Access, trail: AccessTrail) -> None:
        self._queue = queue
        self._access = access
        self._trail = trail

    async def callbacks(
        self,
        caller: CallerOf,
        state: Annotated[CallbackState, Query(description="Only those in this state.")] = (
            CallbackState.OPEN
        ),
        user_id: UserIdQuery = None,
        preferred_agent_id: AgentIdQuery = None,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> Callbacks:
        """Callbacks, the earliest first; an agent's own unless they ask for a person's."""
        if caller.role is Role.AGENT:
            preferred_agent_id = await self._own_list(caller, user_id, preferred_agent_id)
        answer = await self._queue.ListCallbacks(
            queue_pb2.ListCallbacksRequest(
                preferred_agent_id=preferred_agent_id or "",
                user_id=int(user_id or 0),
                state=call_state_pb2.CallbackState.Value(f"CALLBACK_STATE_{state.name}"),
                page_size=page_size,
                page_token=page_token,
            )
        )
        seen = (it.user_id for it in answer.callbacks)
        self._trail.note_all(caller.subject, seen, View.CALLBACK)
        return Callbacks(
            callbacks=[Callback.of(it) for it in answer.callbacks],
            next_page_token=answer.next_page_token or None,
        )

    async def schedule(
        self, caller: CallerOf, key: IdempotencyKey, body: Annotated[CallbackRequest, Body()]
    ) -> Callback:
        """Agree a callback with somebody; 409 when one is open."""
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
        """Move an open or missed callback; an agent only their own, or of whom they hold."""
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
        """Call an open or missed callback off; an agent only as they may move it."""
        answer = await self._queue.CancelCallback(
            queue_pb2.CancelCallbackRequest(
                callback_id=str(callback_id),
                actor_id=caller.subject,
                request_id=str(key),
                own_only=caller.role is Role.AGENT,
            )
        )
        return Callback.of(answer.callback)

    async def _own_list(
        self, caller: Caller, user_id: str | None, preferred_agent_id: str | None
    ) -> str | None:
        if user_id is not None:
            await self._access.require(caller, int(user_id))
            return preferred_agent_id
        if preferred_agent_id not in (None, caller.subject):
            raise PermissionDenied("NOT_YOURS", "agents see their own callbacks only")
        return caller.subject
