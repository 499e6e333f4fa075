"""The running ingest: started after everything it needs, stopped before it."""

import asyncio
import logging

from servicekit.lifecycle import Loop
from services.cdc_ingest.change_files import ChangeFiles
from services.cdc_ingest.custody import Custody
from services.cdc_ingest.receivers import Receivers
from services.cdc_ingest.worker import Pipeline

_log = logging.getLogger(__name__)

# Shares of the time allowed for stopping.
_FINISH_SHARE = 0.6
_SETTLE_SHARE = 0.2
# A poll has nothing in hand, and SQS gives no message to a caller who has hung up.
_POLL_SECONDS = 1.0


class Ingest:
    """Receives, works and settles until it is stopped; then nothing is left half done."""

    def __init__(
        self,
        receivers: Receivers,
        files: ChangeFiles,
        pipeline: Pipeline,
        custody: Custody,
        keeper: Loop,
        *,
        drain_seconds: float,
    ) -> None:
        self._receivers = receivers
        self._files = files
        self._pipeline = pipeline
        self._custody = custody
        self._keeper = keeper
        self._drain_seconds = drain_seconds

    async def start(self) -> None:
        """Begin to receive."""
        await self._keeper.start()
        self._receivers.start(self._files.accept)

    async def stop(self) -> None:
        """Receive no more, finish what is under way, give the rest back to SQS."""
        self._receivers.close()
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
