"""A double of cdc_ingest: its status and its dead letters."""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc

from servicekit.errors import ServiceError
from tests.fakes.recorded_calls import RecordingDouble


@dataclass
class FakeCdcIngest(RecordingDouble, cdc_ingest_pb2_grpc.CdcIngestServiceServicer):
    """Returns `status` with the moments that a test has set; `is_alive` means alive at each call.

    `by_turns` holds the moments of several replicas, which answer in turn; `applied_by_turns` those
    through which they have applied changes.
    """

    status: cdc_ingest_pb2.GetStatusResponse = field(
        default_factory=cdc_ingest_pb2.GetStatusResponse
    )
    alive_at: datetime | None = None
    is_alive: bool = False
    by_turns: deque[datetime] = field(default_factory=deque)
    applied_through: datetime | None = None
    applied_by_turns: deque[datetime] = field(default_factory=deque)
    paused: bool = False
    failure: ServiceError | None = None

    async def GetStatus(self, request: Any, context: Any) -> Any:
        """Return the status."""
        await self.received("GetStatus", request)
        if self.failure is not None:
            raise self.failure
        answer = cdc_ingest_pb2.GetStatusResponse()
        answer.CopyFrom(self.status)
        answer.paused = self.paused
        if self.is_alive:
            self.alive_at = datetime.now(UTC)
        elif self.by_turns:
            self.alive_at = self.by_turns[0]
            self.by_turns.rotate(-1)
        if self.alive_at is not None:
            answer.capture_alive_at.FromDatetime(self.alive_at)
        if self.applied_by_turns:
            self.applied_through = self.applied_by_turns[0]
            self.applied_by_turns.rotate(-1)
        if self.applied_through is not None:
            answer.applied_through.FromDatetime(self.applied_through)
        return answer

    async def PauseIngest(self, request: Any, context: Any) -> Any:
        """Record the call."""
        await self.received("PauseIngest", request)
        return cdc_ingest_pb2.PauseIngestResponse()

    async def ResumeIngest(self, request: Any, context: Any) -> Any:
        """Record the call."""
        await self.received("ResumeIngest", request)
        return cdc_ingest_pb2.ResumeIngestResponse()

    async def ListDeadLetters(self, request: Any, context: Any) -> Any:
        """Return one."""
        await self.received("ListDeadLetters", request)
        return cdc_ingest_pb2.ListDeadLettersResponse(dead_letters=[_letter()], total=1)

    async def RedriveDeadLetters(self, request: Any, context: Any) -> Any:
        """Match one, and send it unless the request only validates."""
        await self.received("RedriveDeadLetters", request)
        return cdc_ingest_pb2.RedriveDeadLettersResponse(
            matched=1,
            sent=0 if request.validate_only else 1,
            complete=True,
            dead_letters=[_letter()],
        )

    async def DiscardDeadLetters(self, request: Any, context: Any) -> Any:
        """Match one, and delete it unless the request only validates."""
        await self.received("DiscardDeadLetters", request)
        return cdc_ingest_pb2.DiscardDeadLettersResponse(
            matched=1,
            discarded=0 if request.validate_only else 1,
            complete=True,
            full_run_asked=not request.validate_only,
            dead_letters=[_letter()],
        )


def _letter() -> cdc_ingest_pb2.DeadLetter:
    return cdc_ingest_pb2.DeadLetter(
        message_id="m-1", reason="BODY_NOT_JSON", receive_count=1, concerns=["users/5"]
    )
