"""The change ingest's dead letters and its pause, for supervisors."""

from typing import TYPE_CHECKING, Annotated, Self

from dialler.cdc_ingest.v1 import cdc_ingest_pb2
from fastapi import Body, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from gateway.channels import configured
from gateway.fields import HarmlessKey
from gateway.schemas import Moment, moment_in

if TYPE_CHECKING:
    from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceAsyncStub

MessageId = Annotated[str, StringConstraints(max_length=100, pattern=r"^[\w-]+$")]


class DeadLetter(BaseModel):
    """A change message nobody could deal with. Its body is not shown: it holds personal data."""

    message_id: str
    reason: str = Field(description="UPPER_SNAKE; empty when SQS moved it by itself.")
    first_seen_at: Moment | None
    dead_at: Moment | None
    receive_count: int
    trace_id: str | None
    size_bytes: int
    concerns: list[str] = Field(description="Whom or what it is about, such as `users/5`.")

    @classmethod
    def of(cls, message: cdc_ingest_pb2.DeadLetter) -> Self:
        """Return what the message says."""
        return cls(
            message_id=message.message_id,
            reason=message.reason,
            first_seen_at=moment_in(message, "first_seen_at"),
            dead_at=moment_in(message, "dead_at"),
            receive_count=message.receive_count,
            trace_id=message.trace_id or None,
            size_bytes=message.size_bytes,
            concerns=list(message.concerns),
        )


class DeadLetters(BaseModel):
    """Some of what lies in the dead-letter queue, in no particular order."""

    dead_letters: list[DeadLetter]
    total: int = Field(description="Approximate, as SQS tells.")


class RedriveRequest(BaseModel):
    """Which dead letters to send again: by id, by reason, or all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message_ids: list[MessageId] = Field(default=[], max_length=100)
    reason: Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Z0-9_]*$")] = ""
    all: StrictBool = False
    dry_run: StrictBool = Field(default=False, description="Only tell what would be sent.")


class Redriven(BaseModel):
    """What was sent again."""

    matched: int
    sent: int = Field(description="0 for a dry run.")
    failed: int = Field(description="Could not be sent or deleted, and are still there.")
    complete: bool = Field(description="False when time ran out: ask again.")
    dead_letters: list[DeadLetter] = Field(description="Up to 100 of those that match.")


class IngestState(BaseModel):
    """Whether the copy that answered receives."""

    paused: bool


class DeadLetterRoutes:
    """What supervisors ask of the change ingest; without one configured, Unavailable."""

    def __init__(self, ingest: "CdcIngestServiceAsyncStub | None") -> None:
        self._ingest = ingest

    async def dead_letters(
        self, page_size: Annotated[int, Query(ge=1, le=1_000)] = 100
    ) -> DeadLetters:
        """What lies in the dead-letter queue and why."""
        request = cdc_ingest_pb2.ListDeadLettersRequest(page_size=page_size)
        answer = await self._stub().ListDeadLetters(request)
        return DeadLetters(
            dead_letters=[DeadLetter.of(each) for each in answer.dead_letters], total=answer.total
        )

    async def redrive(
        self, body: Annotated[RedriveRequest, Body()], key: HarmlessKey = None
    ) -> Redriven:
        """Send dead letters to the change queue again; a repeat is harmless."""
        answer = await self._stub().RedriveDeadLetters(
            cdc_ingest_pb2.RedriveDeadLettersRequest(
                message_ids=body.message_ids,
                reason=body.reason,
                all=body.all,
                validate_only=body.dry_run,
            )
        )
        return Redriven(
            matched=answer.matched,
            sent=answer.sent,
            failed=answer.failed,
            complete=answer.complete,
            dead_letters=[DeadLetter.of(each) for each in answer.dead_letters],
        )

    async def pause(self, key: HarmlessKey = None) -> IngestState:
        """Have the ingest receive nothing until it is resumed; what it holds it finishes."""
        await self._stub().PauseIngest(cdc_ingest_pb2.PauseIngestRequest())
        return IngestState(paused=True)

    async def resume(self, key: HarmlessKey = None) -> IngestState:
        """Have the ingest receive again, after a pause or an alarm about dead letters."""
        await self._stub().ResumeIngest(cdc_ingest_pb2.ResumeIngestRequest())
        return IngestState(paused=False)

    def _stub(self) -> "CdcIngestServiceAsyncStub":
        return configured(self._ingest)
