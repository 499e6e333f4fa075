"""CdcIngestService: what operators ask of this process."""

import asyncio
import logging
from typing import Any

import grpc.aio
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc

from servicekit.errors import Unavailable
from services.cdc_ingest.intake import Intake
from services.cdc_ingest.metrics import Ledger
from services.cdc_ingest.store import QueueDepths, SqsStore

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class CdcIngestServicer(cdc_ingest_pb2_grpc.CdcIngestServiceServicer):
    """Answers from the ledger; only the depths of the queues are asked of SQS."""

    def __init__(self, store: SqsStore, intake: Intake, ledger: Ledger) -> None:
        self._store = store
        self._intake = intake
        self._ledger = ledger
        self._depths = QueueDepths(0, 0)

    async def GetStatus(
        self, request: cdc_ingest_pb2.GetStatusRequest, context: Context
    ) -> cdc_ingest_pb2.GetStatusResponse:
        """Return the counts; depths are the last known while SQS does not tell them."""
        depths = await self._current_depths()
        ledger = self._ledger
        latency = ledger.change_latency()
        response = cdc_ingest_pb2.GetStatusResponse(
            paused=self._intake.is_paused,
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
        )
        if ledger.last_captured_at is not None:
            response.last_captured_at.FromDatetime(ledger.last_captured_at)
        return response

    async def PauseIngest(
        self, request: cdc_ingest_pb2.PauseIngestRequest, context: Context
    ) -> cdc_ingest_pb2.PauseIngestResponse:
        """Pause; a poll under way may still bring messages, which go straight back."""
        self._intake.pause()
        return cdc_ingest_pb2.PauseIngestResponse()

    async def ResumeIngest(
        self, request: cdc_ingest_pb2.ResumeIngestRequest, context: Context
    ) -> cdc_ingest_pb2.ResumeIngestResponse:
        """End the pause."""
        self._intake.resume()
        return cdc_ingest_pb2.ResumeIngestResponse()

    async def _current_depths(self) -> QueueDepths:
        try:
            self._depths = await asyncio.to_thread(self._store.depths)
        except Unavailable as error:
            _log.warning("depths_unknown", extra={"error": str(error)})
        return self._depths
