"""CdcIngestService: what operators ask of this process."""

import asyncio
import logging
from datetime import datetime
from typing import Any

import grpc.aio
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit import telemetry
from servicekit.errors import InvalidArgument, Unavailable
from services.cdc_ingest.dead_letters import DeadLetters
from services.cdc_ingest.domain.backlog import Lane
from services.cdc_ingest.domain.dead_letters import DeadLetter, Selection
from services.cdc_ingest.domain.horizon import Horizon
from services.cdc_ingest.intake import Intake, Stop
from services.cdc_ingest.metrics import Ledger
from services.cdc_ingest.pause import Pause
from services.cdc_ingest.store import QueueDepths, SqsStore
from services.cdc_ingest.worker import Pipeline

_log = logging.getLogger(__name__)

_PAGE_SIZE = 100
_MAX_PAGE_SIZE = 1_000

Context = grpc.aio.ServicerContext[Any, Any]


class CdcIngestServicer(cdc_ingest_pb2_grpc.CdcIngestServiceServicer):
    """Answers from the ledger; only the depths of the queues are asked of SQS."""

    def __init__(
        self,
        store: SqsStore,
        intake: Intake,
        ledger: Ledger,
        horizon: Horizon,
        pipeline: Pipeline,
        dead_letters: DeadLetters,
        pause: Pause,
    ) -> None:
        self._store = store
        self._intake = intake
        self._ledger = ledger
        self._horizon = horizon
        self._pipeline = pipeline
        self._dead_letters = dead_letters
        self._pause = pause
        self._depths = QueueDepths(0, 0)

    async def GetStatus(
        self, request: cdc_ingest_pb2.GetStatusRequest, context: Context
    ) -> cdc_ingest_pb2.GetStatusResponse:
        """Return the counts; depths are the last known while SQS does not tell them."""
        depths = await self._current_depths()
        ledger = self._ledger
        latency = ledger.change_latency()
        response = cdc_ingest_pb2.GetStatusResponse(
            paused=self._intake.is_stopped(Stop.OPERATOR),
            messages_received=ledger.received,
            messages_done=ledger.done,
            messages_retried=ledger.retried,
            messages_dead=ledger.dead,
            records=ledger.records,
            users_refreshed=ledger.users_refreshed,
            records_ignored=ledger.records_ignored,
            change_latency=cdc_ingest_pb2.LatencySummary(
                count=latency.count,
                p50_seconds=latency.p50_seconds,
                p99_seconds=latency.p99_seconds,
            ),
            backlog_messages=depths.backlog,
            dead_letter_messages=depths.dead_letter,
            downstream_away=self._intake.is_stopped(Stop.DOWNSTREAM),
            dead_letter_alarm=self._intake.is_stopped(Stop.DEAD_LETTERS),
            messages_held=max(0, self._intake.messages),
            waiting_fresh=self._pipeline.waiting(Lane.FRESH),
            waiting_bulk=self._pipeline.waiting(Lane.BULK),
            readings_stale=ledger.readings_stale,
        )
        for field, moment in (
            (response.last_captured_at, ledger.last_captured_at),
            (response.capture_alive_at, self._horizon.alive_at),
            (response.applied_through, self._horizon.applied_through),
        ):
            if moment is not None:
                field.FromDatetime(moment)
        return response

    async def PauseIngest(
        self, request: cdc_ingest_pb2.PauseIngestRequest, context: Context
    ) -> cdc_ingest_pb2.PauseIngestResponse:
        """Pause; a poll under way may still bring messages, which go straight back."""
        await self._pause.begin()
        return cdc_ingest_pb2.PauseIngestResponse()

    async def ResumeIngest(
        self, request: cdc_ingest_pb2.ResumeIngestRequest, context: Context
    ) -> cdc_ingest_pb2.ResumeIngestResponse:
        """End the pause, or the one that an alarm about dead letters began."""
        await self._pause.end()
        return cdc_ingest_pb2.ResumeIngestResponse()

    async def ListDeadLetters(
        self, request: cdc_ingest_pb2.ListDeadLettersRequest, context: Context
    ) -> cdc_ingest_pb2.ListDeadLettersResponse:
        """Return what lies in the dead-letter queue, without the bodies."""
        limit = min(request.page_size or _PAGE_SIZE, _MAX_PAGE_SIZE)
        letters = await self._dead_letters.look(limit)
        depths = await self._current_depths()
        return cdc_ingest_pb2.ListDeadLettersResponse(
            dead_letters=[self._letter(each) for each in letters],
            total=max(depths.dead_letter, len(letters)),
        )

    async def RedriveDeadLetters(
        self, request: cdc_ingest_pb2.RedriveDeadLettersRequest, context: Context
    ) -> cdc_ingest_pb2.RedriveDeadLettersResponse:
        """Send dead letters again, or tell which would be."""
        selection = Selection(frozenset(request.message_ids), request.reason)
        if request.all == (selection != Selection()):
            raise InvalidArgument("SELECTION_UNCLEAR", "name message ids or a reason, or say all")
        look = await self._dead_letters.redrive(selection, validate_only=request.validate_only)
        return cdc_ingest_pb2.RedriveDeadLettersResponse(
            matched=look.matched,
            sent=look.sent,
            failed=0 if request.validate_only else look.matched - look.sent,
            complete=look.is_complete,
            dead_letters=[self._letter(each) for each in look.letters],
        )

    def _letter(self, letter: DeadLetter) -> cdc_ingest_pb2.DeadLetter:
        trace = telemetry.extract(letter.attributes.get("traceparent"))
        return cdc_ingest_pb2.DeadLetter(
            message_id=letter.message_id,
            reason=letter.reason,
            first_seen_at=_timestamp(letter.first_seen_at),
            dead_at=_timestamp(letter.dead_at),
            receive_count=letter.receive_count,
            trace_id=trace.traceparent.split("-")[1] if trace else "",
            size_bytes=len(letter.body.encode()),
            concerns=self._dead_letters.concerns(letter),
        )

    async def _current_depths(self) -> QueueDepths:
        try:
            self._depths = await asyncio.to_thread(self._store.depths)
        except Unavailable as error:
            _log.warning("depths_unknown", extra={"error": str(error)})
        return self._depths


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
