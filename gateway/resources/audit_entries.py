"""The audit trail: which actor saw or changed which person."""

from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Query
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from gateway.resources.fields import (
    AgentIdText,
    Id,
    Moment,
    MomentIn,
    PageSize,
    PageToken,
    UpperSnake,
    UserIdQuery,
    timestamp,
)
from servicekit.call_state_json import moment_in

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub


class AuditEntry(BaseModel):
    """An actor saw or changed a person."""

    at: Moment | None
    actor_id: str
    action: str = Field(examples=["VIEWED_CONTEXT"])
    user_id: Id | None = Field(description="null when the entry concerns no single person.")
    details: dict[str, str]
    notes: str | None = Field(
        description="The actor's notes: the reason of a forced release, for as long as the "
        "assignment is kept."
    )

    @classmethod
    def of(cls, message: queue_pb2.AuditEntry) -> Self:
        """Return what the message says."""
        return cls(
            at=moment_in(message, "at"),
            actor_id=message.actor_id,
            action=message.action,
            user_id=str(message.user_id) if message.user_id else None,
            details=dict(sorted(message.details.items())),
            notes=message.notes or None,
        )


class AuditEntries(BaseModel):
    """One page of the audit trail, the latest first."""

    entries: list[AuditEntry]
    next_page_token: str | None = Field(description="null at the end.")


class AuditRoutes:
    """The audit trail, for supervisors."""

    def __init__(self, queue: "QueueServiceAsyncStub") -> None:
        self._queue = queue

    async def entries(
        self,
        user_id: UserIdQuery = None,
        actor_id: Annotated[
            AgentIdText | SkipJsonSchema[None], Query(description="Only entries of this actor.")
        ] = None,
        action: Annotated[
            UpperSnake | SkipJsonSchema[None],
            Query(description="Only entries with this action.", examples=["VIEWED_CONTEXT"]),
        ] = None,
        since: Annotated[
            MomentIn | SkipJsonSchema[None], Query(description="Only entries from then on.")
        ] = None,
        until: Annotated[
            MomentIn | SkipJsonSchema[None], Query(description="Only entries before then.")
        ] = None,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> AuditEntries:
        """Which actor saw or changed which person, the latest first; views show up in a second."""
        answer = await self._queue.ListAuditEntries(
            queue_pb2.ListAuditEntriesRequest(
                user_id=int(user_id or 0),
                actor_id=actor_id or "",
                action=action or "",
                since=timestamp(since),
                until=timestamp(until),
                page_size=page_size,
                page_token=page_token,
            )
        )
        return AuditEntries(
            entries=[AuditEntry.of(it) for it in answer.entries],
            next_page_token=answer.next_page_token or None,
        )
