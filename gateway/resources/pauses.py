"""Pauses: times in which no person is handed out from one queue, or from any."""

from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

from dialler.queue.v1 import queue_pb2
from fastapi import Body, Path
from pydantic import BaseModel, Field

from gateway.resources.fields import (
    QUEUES,
    CallerOf,
    IdempotencyKey,
    Moment,
    MomentIn,
    QueueName,
    RequestBody,
    RequiredNotes,
    timestamp,
)
from servicekit.call_state_json import moment_in

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

PauseId = Annotated[UUID, Path(description="The pause's id.")]


class QueuePause(BaseModel):
    """A time in which no person is handed out."""

    pause_id: str
    queue: QueueName | None = Field(description="null for all queues.")
    begins_at: Moment | None
    ends_at: Moment | None = Field(
        description="The moment itself is no part of it. Of one that was ended early, that moment."
    )
    reason: str
    created_by: str
    created_at: Moment | None
    ended_by: str | None = Field(description="Who ended it early; null otherwise.")

    @classmethod
    def of(cls, message: queue_pb2.Pause) -> Self:
        """Return what the message says."""
        return cls(
            pause_id=message.pause_id,
            queue=QUEUES.name(message.queue),
            begins_at=moment_in(message, "begins_at"),
            ends_at=moment_in(message, "ends_at"),
            reason=message.reason,
            created_by=message.created_by,
            created_at=moment_in(message, "created_at"),
            ended_by=message.ended_by or None,
        )


class PauseList(BaseModel):
    """The pauses in force and those that lie ahead, the earliest first."""

    pauses: list[QueuePause]


class PauseRequest(RequestBody):
    """What to pause, why, and until when."""

    queue: QueueName | None = Field(
        default=None, description="absent or null: all queues, as on a closed day."
    )
    begins_at: MomentIn | None = Field(
        default=None,
        description="absent, null or past: now.",
        examples=["2030-12-24T12:00:00+00:00"],
    )
    ends_at: MomentIn = Field(
        description="In the future; the rules say how many days a pause lasts at most.",
        examples=["2030-12-27T08:00:00+00:00"],
    )
    reason: RequiredNotes = Field(examples=["Closed between the holidays."])


class PauseRoutes:
    """Pauses, for supervisors."""

    def __init__(self, queue: "QueueServiceAsyncStub") -> None:
        self._queue = queue

    async def pauses(self) -> PauseList:
        """The pauses in force and those that lie ahead, the earliest first."""
        answer = await self._queue.ListPauses(queue_pb2.ListPausesRequest())
        return PauseList(pauses=[QueuePause.of(it) for it in answer.pauses])

    async def begin(
        self, caller: CallerOf, key: IdempotencyKey, body: Annotated[PauseRequest, Body()]
    ) -> QueuePause:
        """Pause hand-outs of a queue or of all, from the next claim on.

        Calls under way go on. Callbacks cannot be agreed for a time in which all queues, or the
        callbacks, are paused.
        """
        answer = await self._queue.BeginPause(
            queue_pb2.BeginPauseRequest(
                queue=QUEUES.number(body.queue),
                begins_at=timestamp(body.begins_at),
                ends_at=timestamp(body.ends_at),
                reason=body.reason,
                actor_id=caller.subject,
                request_id=str(key),
            )
        )
        return QueuePause.of(answer.pause)

    async def end(self, caller: CallerOf, pause_id: PauseId, key: IdempotencyKey) -> QueuePause:
        """End a pause now; one that has not begun never does. 409 `PAUSE_ENDED` when it is over."""
        answer = await self._queue.EndPause(
            queue_pb2.EndPauseRequest(
                pause_id=str(pause_id), actor_id=caller.subject, request_id=str(key)
            )
        )
        return QueuePause.of(answer.pause)
