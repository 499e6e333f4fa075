"""The operators' pause, kept as a tag of the queue so that every copy obeys and a restart keeps it.

The ingest has no store of its own; the tag is where the messages are, and outlives all of us.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime

from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.cdc_ingest.intake import Intake, Stop
from services.cdc_ingest.store import SqsStore
from services.cdc_ingest.worker import Pipeline

_log = logging.getLogger(__name__)

# SQS may show a tag only after a while; until then what this copy was told stands.
_PROPAGATION_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Looked:
    """Result of one look at the tag."""

    is_paused: bool


class Pause:
    """Pauses and resumes every copy: this one at once, the others within a poll or SQS's delay."""

    def __init__(self, store: SqsStore, intake: Intake, pipeline: Pipeline, clock: Clock) -> None:
        self._store = store
        self._intake = intake
        self._pipeline = pipeline
        self._clock = clock
        self._told_at: float | None = None
        self._was_paused = False
        self._is_tag_owed = False

    async def begin(self) -> None:
        """Pause; when SQS does not take the tag it is raised, and only this copy has paused so far.

        Each look tries again: without its tag a pause would end by itself.
        """
        self._told(is_paused=True)
        self._intake.stop(Stop.OPERATOR)
        self._is_tag_owed = True
        await asyncio.to_thread(self._store.mark_paused)
        self._is_tag_owed = False

    async def end(self) -> None:
        """Resume, also after an alarm; when SQS does not drop the tag nothing is resumed."""
        await asyncio.to_thread(self._store.unmark_paused)
        self._is_tag_owed = False
        self._told(is_paused=False)
        self._pipeline.resume()

    async def run_once(self, _now: datetime) -> Looked:
        """Do as the tag says, unless this copy was told something else just now.

        A copy that has raised an alarm pauses the others too.
        """
        try:
            is_alarmed = self._intake.is_stopped(Stop.DEAD_LETTERS)
            if self._is_tag_owed or (is_alarmed and not self._was_paused):
                await self.begin()
            asked_at = self._clock.monotonic()
            is_paused = await asyncio.to_thread(self._store.is_marked_paused)
        except ServiceError as error:
            # Whoever may not read tags is paused by calls of his own only.
            _log.debug("pause_unknown", extra={"error": str(error)})
            return Looked(self._was_paused)
        if self._told_at is None or asked_at >= self._told_at + _PROPAGATION_SECONDS:
            self._follow(is_paused=is_paused)
        return Looked(self._was_paused)

    def _follow(self, *, is_paused: bool) -> None:
        if is_paused == self._was_paused:
            return
        _log.warning("paused" if is_paused else "resumed")
        self._was_paused = is_paused
        if is_paused:
            self._intake.stop(Stop.OPERATOR)
        else:
            self._pipeline.resume()

    def _told(self, *, is_paused: bool) -> None:
        self._told_at = self._clock.monotonic()
        self._was_paused = is_paused
