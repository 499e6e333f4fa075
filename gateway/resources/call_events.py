"""What happens to calls: events of an assignment's call, and calls that we missed."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Body
from pydantic import BaseModel, Field

from gateway.access.auth import Role
from gateway.resources.assignments import AssignmentId
from gateway.resources.callbacks import Callback
from gateway.resources.fields import (
    CallerOf,
    EnumNames,
    HarmlessKey,
    Moment,
    MomentIn,
    PastedText,
    RequestBody,
    optional_in,
    timestamp,
)
from servicekit.call_state_json import moment_in

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub


class CallEventKind(StrEnum):
    """What happened to a call."""

    DIALLED = "dialled"
    RINGING = "ringing"
    ANSWERED = "answered"
    VOICEMAIL = "voicemail"
    ENDED = "ended"


CALL_EVENT_KINDS = EnumNames(CallEventKind, queue_pb2.CallEventKind)


class CallEventRequest(RequestBody):
    """What happened to the call of an assignment."""

    kind: CallEventKind
    at: MomentIn = Field(description="When it happened.", examples=["2030-06-03T18:00:00+01:00"])
    duration_seconds: Annotated[float, Field(ge=0, le=86_400, strict=True)] | None = None
    provider: str = Field(default="", max_length=200, examples=["twilio"])
    provider_call_id: str = Field(
        default="", max_length=200, description="The provider's id of the call."
    )
    recording_reference: str = Field(
        default="",
        max_length=1_000,
        description="Where the recording is kept, as the provider or the archive refers to it.",
    )


class NotedCallEvent(BaseModel):
    """One thing that happened to a call."""

    kind: CallEventKind | None
    at: Moment | None
    duration_seconds: float | None
    provider: str | None
    provider_call_id: str | None
    recording_reference: str | None

    @classmethod
    def of(cls, message: queue_pb2.CallEvent) -> Self:
        """Return what the message says."""
        texts = ("provider", "provider_call_id", "recording_reference")
        return cls(
            kind=CALL_EVENT_KINDS.name(message.kind),
            at=moment_in(message, "at"),
            duration_seconds=optional_in(message, "duration_seconds"),
            **{name: getattr(message, name) or None for name in texts},
        )


class CallEventNoted(BaseModel):
    """The assignment once the event is noted."""

    is_live: bool = Field(description="Whether the agent still holds the person.")
    lease_expires_at: Moment | None


class MissedCallRequest(RequestBody):
    """A call that we missed."""

    phone: PastedText = Field(
        description="The number that rang us, in any spelling.", examples=["+447700900123"]
    )
    missed_at: MomentIn = Field(description="When; within `retention.request_hours` of the rules.")


class MissedCallNoted(BaseModel):
    """The callbacks that a missed call has made."""

    callbacks: list[Callback] = Field(
        description="None for a number that no person has, for people who may not be called or "
        "were spoken with since, and where a callback is due already."
    )


class CallEventRoutes:
    """Events of calls, from the desk or from a telephony bridge."""

    def __init__(self, queue: "QueueServiceAsyncStub") -> None:
        self._queue = queue

    async def record(
        self,
        caller: CallerOf,
        assignment_id: AssignmentId,
        body: Annotated[CallEventRequest, Body()],
        key: HarmlessKey = None,
    ) -> CallEventNoted:
        """Note what happened to the call of an assignment; of agents and supervisors one's own.

        Order and repeats are harmless: events with the same kind, time, provider and id of the call
        are one, and a repeat adds the duration and the recording that were not known. From
        `answered` to `ended` the lease does not run out, for `agents.longest_call_seconds` of the
        rules at most. An event of an assignment that has ended is kept, too.
        """
        known: dict[str, Any] = body.model_dump(exclude={"kind", "at"}, exclude_none=True)
        answer = await self._queue.RecordCallEvent(
            queue_pb2.RecordCallEventRequest(
                assignment_id=str(assignment_id),
                event=queue_pb2.CallEvent(
                    kind=CALL_EVENT_KINDS.number(body.kind), at=timestamp(body.at), **known
                ),
                actor_id=caller.subject,
                own_only=caller.role is not Role.SERVICE,
            )
        )
        return CallEventNoted(
            is_live=answer.is_live,
            lease_expires_at=moment_in(answer.assignment, "lease_expires_at"),
        )

    async def missed(
        self,
        caller: CallerOf,
        body: Annotated[MissedCallRequest, Body()],
        key: HarmlessKey = None,
    ) -> MissedCallNoted:
        """Make the immediate callbacks of the people who have a number, as `missed_call` does.

        Once for each number and time: a repeat gets the first answer.
        """
        answer = await self._queue.RecordMissedCall(
            queue_pb2.RecordMissedCallRequest(
                phone=body.phone, missed_at=timestamp(body.missed_at), actor_id=caller.subject
            )
        )
        return MissedCallNoted(callbacks=[Callback.of(it) for it in answer.callbacks])
