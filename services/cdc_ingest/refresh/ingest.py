"""Starts and stops the ingest: the receivers, the files, the pipeline and its loops."""

import asyncio
import contextlib
import logging

from servicekit.clock import Clock
from servicekit.lifecycle import Loop
from services.cdc_ingest.files.change_files import ChangeFiles
from services.cdc_ingest.refresh.pipeline import RefreshPipeline
from services.cdc_ingest.sqs.in_flight import InFlight
from services.cdc_ingest.sqs.pause import Pause
from services.cdc_ingest.sqs.receivers import Receivers

_log = logging.getLogger(__name__)

# Shares of the time allowed for stopping.
_FINISH_SHARE = 0.6
_SETTLE_SHARE = 0.2
# A poll under way holds no message, and SQS gives none to a caller that has disconnected.
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 2.0


class IngestRunner:
    """Runs the ingest; `stop` finishes the batches under way and returns the other messages."""

    def __init__(
        self,
        receivers: Receivers,
        files: ChangeFiles,
        pipeline: RefreshPipeline,
        in_flight: InFlight,
        in_flight_loop: Loop,
        pause: Pause,
        pause_loop: Loop,
        clock: Clock,
        *,
        drain_seconds: float,
    ) -> None:
        self._receivers = receivers
        self._files = files
        self._pipeline = pipeline
        self._in_flight = in_flight
        self._in_flight_loop = in_flight_loop
        self._pause = pause
        self._pause_loop = pause_loop
        self._clock = clock
        self._drain_seconds = drain_seconds

    async def start(self) -> None:
        """Start receiving, unless an operator has paused the ingest."""
        await self._in_flight_loop.start()
        # Does not wait long: an SQS that does not answer gives no messages either.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_SECONDS):
                await self._pause.run_once(self._clock.now())
        await self._pause_loop.start()
        self._receivers.start(self._files.accept)

    async def stop(self) -> None:
        """Stop receiving, finish the batches under way, return all other messages to SQS."""
        self._receivers.close()
        await self._pause_loop.stop()
        await self._files.stop()
        await self._pipeline.stop(self._drain_seconds * _FINISH_SHARE)
        await self._receivers.ended(min(_POLL_SECONDS, self._drain_seconds * _SETTLE_SHARE))
        await self._in_flight_loop.stop()
        try:
            async with asyncio.timeout(max(1.0, self._drain_seconds * _SETTLE_SHARE)):
                await self._in_flight.settled()
        except TimeoutError:
            _log.warning("settling_abandoned")
        finally:
            self._in_flight.close()
