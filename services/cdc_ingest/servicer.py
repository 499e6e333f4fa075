"""The RPCs of CdcIngestService, for operators."""

import asyncio
import logging
from typing import Any

import grpc.aio
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc

from servicekit import telemetry
from servicekit.clock import Clock
from servicekit.errors import InvalidArgument, Unavailable
from servicekit.paging import page_size
from services.cdc_ingest.domain.backlog import Lane
from services.cdc_ingest.domain.dead_letters import DeadLetter, Selection
from services.cdc_ingest.domain.watermark import Watermark
from services.cdc_ingest.metrics import PipelineMetrics
from services.cdc_ingest.refresh.pipeline import RefreshPipeline
from services.cdc_ingest.refresh.upstreams import timestamp
from services.cdc_ingest.sqs.dead_letters import DeadLetterQueue
from services.cdc_ingest.sqs.pause import Pause
from services.cdc_ingest.sqs.queue import QueueDepths, SqsStore
from services.cdc_ingest.sqs.receive_gate import CloseReason, ReceiveGate

_log = logging.getLogger(__name__)

_PAGE_SIZE = 100
_MAX_PAGE_SIZE = 1_000

Context = grpc.aio.ServicerContext[Any, Any]


class CdcIngestServicer(cdc_ingest_pb2_grpc.CdcIngestServiceServicer):
    """Answers from the metrics of this process; only the depths of the queues come from SQS."""

    def __init__(
        self,
        store: SqsStore,
        gate: ReceiveGate,
        pipeline_metrics: PipelineMetrics,
        watermark: Watermark,
        pipeline: RefreshPipeline,
        dead_letters: DeadLetterQueue,
        pause: Pause,
        clock: Clock,
    ) -> None:
        self._store = store
        self._gate = gate
        self._metrics = pipeline_metrics
        self._watermark = watermark
        self._pipeline = pipeline
        self._dead_letters = dead_letters
        self._pause = pause
        self._clock = clock
        self._depths = QueueDepths(0, 0)

    async def GetStatus(
        self, request: cdc_ingest_pb2.GetStatusRequest, context: Context
    ) -> cdc_ingest_pb2.GetStatusResponse:
        """Return the counts; while SQS does not answer, the depths are the last known."""
        depths = await self._current_depths()
        counts = self._metrics
        latency = counts.latencies.summary()
        return cdc_ingest_pb2.GetStatusResponse(
            paused=self._gate.is_closed_for(CloseReason.OPERATOR),
            messages_received=counts.received,
            messages_done=counts.done,
            messages_retried=counts.retried,
            messages_dead=counts.dead,
            records=counts.records,
            users_refreshed=counts.users_refreshed,
            records_ignored=counts.records_ignored,
            change_latency=cdc_ingest_pb2.LatencySummary(
                count=latency.count,
                p50_seconds=latency.p50_seconds,
                p99_seconds=latency.p99_seconds,
            ),
            backlog_messages=depths.backlog,
            dead_letter_messages=depths.dead_letter,
            downstream_unavailable=self._gate.is_closed_for(CloseReason.DOWNSTREAM),
            dead_letter_alarm=self._gate.is_closed_for(CloseReason.DEAD_LETTERS),
            messages_held=max(0, self._gate.messages),
            waiting_fresh=self._pipeline.waiting(Lane.FRESH),
            waiting_bulk=self._pipeline.waiting(Lane.BULK),
            readings_stale=counts.readings_stale,
            capture_ahead_seconds=counts.skew.ahead(self._clock.now()).total_seconds(),
            last_captured_at=timestamp(counts.last_captured_at),
            capture_alive_at=timestamp(self._watermark.alive_at),
            applied_through=timestamp(self._watermark.applied_through),
        )

    async def PauseIngest(
        self, request: cdc_ingest_pb2.PauseIngestRequest, context: Context
    ) -> cdc_ingest_pb2.PauseIngestResponse:
        """Pause; messages of a poll under way go back to SQS at once."""
        await self._pause.begin()
        return cdc_ingest_pb2.PauseIngestResponse()

    async def ResumeIngest(
        self, request: cdc_ingest_pb2.ResumeIngestRequest, context: Context
    ) -> cdc_ingest_pb2.ResumeIngestResponse:
        """Resume after a pause or a dead-letter alarm."""
        await self._pause.end()
        return cdc_ingest_pb2.ResumeIngestResponse()

    async def ListDeadLetters(
        self, request: cdc_ingest_pb2.ListDeadLettersRequest, context: Context
    ) -> cdc_ingest_pb2.ListDeadLettersResponse:
        """Return the dead letters without their bodies."""
        limit = page_size(request.page_size, default=_PAGE_SIZE, largest=_MAX_PAGE_SIZE)
        letters = await self._dead_letters.list_letters(limit)
        depths = await self._current_depths()
        return cdc_ingest_pb2.ListDeadLettersResponse(
            dead_letters=[self._letter(each) for each in letters],
            total=max(depths.dead_letter, len(letters)),
        )

    async def RedriveDeadLetters(
        self, request: cdc_ingest_pb2.RedriveDeadLettersRequest, context: Context
    ) -> cdc_ingest_pb2.RedriveDeadLettersResponse:
        """Send dead letters again, or return which ones would be sent."""
        search = await self._dead_letters.redrive(
            _selection(request), validate_only=request.validate_only
        )
        return cdc_ingest_pb2.RedriveDeadLettersResponse(
            matched=search.matched,
            sent=search.done,
            failed=0 if request.validate_only else search.matched - search.done,
            complete=search.is_complete,
            dead_letters=[self._letter(each) for each in search.letters],
        )

    async def DiscardDeadLetters(
        self, request: cdc_ingest_pb2.DiscardDeadLettersRequest, context: Context
    ) -> cdc_ingest_pb2.DiscardDeadLettersResponse:
        """Ask for a full run and delete dead letters, or return which ones would be deleted."""
        search = await self._dead_letters.discard(
            _selection(request), request.actor_id, validate_only=request.validate_only
        )
        return cdc_ingest_pb2.DiscardDeadLettersResponse(
            matched=search.matched,
            discarded=search.done,
            failed=0 if request.validate_only else search.matched - search.done,
            complete=search.is_complete,
            full_run_asked=search.is_full_run_asked,
            dead_letters=[self._letter(each) for each in search.letters],
        )

    def _letter(self, letter: DeadLetter) -> cdc_ingest_pb2.DeadLetter:
        trace = telemetry.extract(letter.attributes.get("traceparent"))
        return cdc_ingest_pb2.DeadLetter(
            message_id=letter.message_id,
            reason=letter.reason,
            first_seen_at=timestamp(letter.first_seen_at),
            dead_lettered_at=timestamp(letter.dead_lettered_at),
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


def _selection(
    request: cdc_ingest_pb2.RedriveDeadLettersRequest | cdc_ingest_pb2.DiscardDeadLettersRequest,
) -> Selection:
    selection = Selection(frozenset(request.message_ids), request.reason)
    if request.all == (selection != Selection()):
        raise InvalidArgument("SELECTION_UNCLEAR", "name message ids or a reason, or say all")
    return selection
