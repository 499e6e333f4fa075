"""Dead letters and pause of cdc_ingest, for supervisors."""

from typing import TYPE_CHECKING, Annotated, Self

from dialler.cdc_ingest.v1 import cdc_ingest_pb2
from fastapi import Body, Query
from pydantic import BaseModel, Field, StrictBool, StringConstraints

from gateway.channels import configured
from gateway.resources.fields import CallerOf, HarmlessKey, Moment, RequestBody
from servicekit.call_state_json import moment_in

if TYPE_CHECKING:
    from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceAsyncStub

MessageId = Annotated[str, StringConstraints(max_length=100, pattern=r"^[\w-]+$")]


class DeadLetter(BaseModel):
    """A change message that could not be processed, without its body: that is personal data."""

    message_id: str
    reason: str = Field(description="UPPER_SNAKE; empty when SQS moved it by itself.")
    first_seen_at: Moment | None
    dead_at: Moment | None
    receive_count: int
    trace_id: str | None
    size_bytes: int
    concerns: list[str] = Field(description="The rows it is about, such as `users/5`.")

    @classmethod
    def of(cls, message: cdc_ingest_pb2.DeadLetter) -> Self:
        """Return what the message says."""
        return cls(
            message_id=message.message_id,
            reason=message.reason,
            first_seen_at=moment_in(message, "first_seen_at"),
            dead_at=moment_in(message, "dead_lettered_at"),
            receive_count=message.receive_count,
            trace_id=message.trace_id or None,
            size_bytes=message.size_bytes,
            concerns=list(message.concerns),
        )


class DeadLetters(BaseModel):
    """Some messages of the dead-letter queue, in no particular order."""

    dead_letters: list[DeadLetter]
    total: int = Field(description="Approximate, as SQS reports it.")


class RedriveRequest(RequestBody):
    """Which dead letters to send again: by id, by reason, or all."""

    message_ids: list[MessageId] = Field(default=[], max_length=100)
    reason: Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Z0-9_]*$")] = ""
    all: StrictBool = False
    dry_run: StrictBool = Field(default=False, description="Only report what would be sent.")


class DiscardRequest(RedriveRequest):
    """Which dead letters to delete: by id, by reason, or all."""

    dry_run: StrictBool = Field(default=False, description="Only report what would be deleted.")


class Redriven(BaseModel):
    """What was sent again."""

    matched: int
    sent: int = Field(description="0 for a dry run.")
    failed: int = Field(
        description="Could not be sent or deleted: they are still in the dead-letter queue."
    )
    complete: bool = Field(description="False when time ran out: send the request again.")
    dead_letters: list[DeadLetter] = Field(description="Up to 100 of the matching dead letters.")


class Discarded(BaseModel):
    """What was deleted."""

    matched: int
    discarded: int = Field(description="0 for a dry run.")
    failed: int = Field(description="Could not be deleted: still in the dead-letter queue.")
    complete: bool = Field(description="False when time ran out: send the request again.")
    full_run_asked: bool = Field(
        description="A full reconciliation, which finds what the deleted changes concerned, was "
        "asked for before anything was deleted."
    )
    dead_letters: list[DeadLetter] = Field(description="Up to 100 of the matching dead letters.")


class IngestState(BaseModel):
    """Whether the replica that answered receives messages."""

    paused: bool


class DeadLetterRoutes:
    """Dead letters and pause of cdc_ingest; raises Unavailable where it is not configured."""

    def __init__(self, ingest: "CdcIngestServiceAsyncStub | None") -> None:
        self._ingest = ingest

    async def dead_letters(
        self, page_size: Annotated[int, Query(ge=1, le=1_000)] = 100
    ) -> DeadLetters:
        """Messages of the dead-letter queue, with their reasons."""
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

    async def discard(
        self, caller: CallerOf, body: Annotated[DiscardRequest, Body()], key: HarmlessKey = None
    ) -> Discarded:
        """Delete dead letters for ever, after asking for a full reconciliation."""
        answer = await self._stub().DiscardDeadLetters(
            cdc_ingest_pb2.DiscardDeadLettersRequest(
                message_ids=body.message_ids,
                reason=body.reason,
                all=body.all,
                validate_only=body.dry_run,
                actor_id=caller.subject,
            )
        )
        return Discarded(
            matched=answer.matched,
            discarded=answer.discarded,
            failed=answer.failed,
            complete=answer.complete,
            full_run_asked=answer.full_run_asked,
            dead_letters=[DeadLetter.of(each) for each in answer.dead_letters],
        )

    async def pause(self, key: HarmlessKey = None) -> IngestState:
        """Pause cdc_ingest until it is resumed; messages in flight are finished."""
        await self._stub().PauseIngest(cdc_ingest_pb2.PauseIngestRequest())
        return IngestState(paused=True)

    async def resume(self, key: HarmlessKey = None) -> IngestState:
        """Resume cdc_ingest after a pause or a dead-letter alarm."""
        await self._stub().ResumeIngest(cdc_ingest_pb2.ResumeIngestRequest())
        return IngestState(paused=False)

    def _stub(self) -> "CdcIngestServiceAsyncStub":
        return configured(self._ingest)
