"""The audit trail: who saw and changed whom."""

from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Query
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from gateway.fields import AgentIdText, PageSize, PageToken, UpperSnake, UserIdQuery, timestamp
from gateway.schemas import Id, Moment, MomentIn, moment_in

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub


class AuditEntry(BaseModel):
    """Somebody saw or changed somebody."""

    at: Moment | None
    actor_id: str
    action: str = Field(examples=["VIEWED_CONTEXT"])
    user_id: Id | None = Field(description="null when no single person is concerned.")
    details: dict[str, str]

    @classmethod
    def of(cls, message: queue_pb2.AuditEntry) -> Self:
        """Return what the message says."""
        return cls(
            at=moment_in(message, "at"),
            actor_id=message.actor_id,
            action=message.action,
            user_id=str(message.user_id) if message.user_id else None,
            details=dict(sorted(message.details.items())),
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
            AgentIdText | SkipJsonSchema[None], Query(description="Only what this one did.")
        ] = None,
        action: Annotated[
            UpperSnake | SkipJsonSchema[None],
            Query(description="Only this action.", examples=["VIEWED_CONTEXT"]),
        ] = None,
        since: Annotated[
            MomentIn | SkipJsonSchema[None], Query(description="Only from then on.")
        ] = None,
        until: Annotated[
            MomentIn | SkipJsonSchema[None], Query(description="Only before then.")
        ] = None,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> AuditEntries:
        """Who saw and changed whom, the latest first. A view is here within a second or so."""
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
