"""The running ingest: started after everything it needs, stopped before it."""

import asyncio
import contextlib
import logging

from servicekit.clock import Clock
from servicekit.lifecycle import Loop
from services.cdc_ingest.change_files import ChangeFiles
from services.cdc_ingest.custody import Custody
from services.cdc_ingest.pause import Pause
from services.cdc_ingest.receivers import Receivers
from services.cdc_ingest.worker import Pipeline

_log = logging.getLogger(__name__)

# Shares of the time allowed for stopping.
_FINISH_SHARE = 0.6
_SETTLE_SHARE = 0.2
# A poll has nothing in hand, and SQS gives no message to a caller who has hung up.
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 2.0


class Ingest:
    """Receives, works and settles until it is stopped; then nothing is left half done."""

    def __init__(
        self,
        receivers: Receivers,
        files: ChangeFiles,
        pipeline: Pipeline,
        custody: Custody,
        keeper: Loop,
        pause: Pause,
        watch: Loop,
        clock: Clock,
        *,
        drain_seconds: float,
    ) -> None:
        self._receivers = receivers
        self._files = files
        self._pipeline = pipeline
        self._custody = custody
        self._keeper = keeper
        self._pause = pause
        self._watch = watch
        self._clock = clock
        self._drain_seconds = drain_seconds

    async def start(self) -> None:
        """Begin to receive, unless an operator has paused us all."""
        await self._keeper.start()
        await self._heed_pause()
        await self._watch.start()
        self._receivers.start(self._files.accept)

    async def _heed_pause(self) -> None:
        # Not for long: an SQS that does not answer gives no messages either.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_SECONDS):
                await self._pause.run_once(self._clock.now())

    async def stop(self) -> None:
        """Receive no more, finish what is under way, give the rest back to SQS."""
        self._receivers.close()
        await self._watch.stop()
        await self._files.stop()
        await self._pipeline.stop(self._drain_seconds * _FINISH_SHARE)
        await self._receivers.ended(min(_POLL_SECONDS, self._drain_seconds * _SETTLE_SHARE))
        await self._keeper.stop()
        try:
            async with asyncio.timeout(max(1.0, self._drain_seconds * _SETTLE_SHARE)):
                await self._custody.settled()
        except TimeoutError:
            _log.warning("settling_abandoned")
        finally:
            self._custody.close()
