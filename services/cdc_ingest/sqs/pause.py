"""The operators' pause: a tag of the queue that every replica follows and that outlives restarts.

The ingest has no store of its own.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.cdc_ingest.sqs.queue import SqsStore
from services.cdc_ingest.sqs.receive_gate import CloseReason, ReceiveGate

_log = logging.getLogger(__name__)

# SQS shows a tag after a delay; until then the last request to this replica counts.
_PROPAGATION_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class PauseChecked:
    """The result of one run: whether this replica is paused."""

    is_paused: bool


class Pause:
    """Pauses and resumes all replicas: this one at once, the others when they next read the tag."""

    def __init__(
        self, store: SqsStore, gate: ReceiveGate, resume: Callable[[], None], clock: Clock
    ) -> None:
        self._store = store
        self._gate = gate
        self._resume = resume
        self._clock = clock
        self._requested_at: float | None = None
        self._was_paused = False
        self._is_tag_missing = False

    async def begin(self) -> None:
        """Pause this replica, then tag the queue for the others.

        When SQS refuses the tag, the error is raised and each run tries again: without its tag a
        pause would end by itself.
        """
        self._note_request(is_paused=True)
        self._gate.close(CloseReason.OPERATOR)
        self._is_tag_missing = True
        await asyncio.to_thread(self._store.mark_paused)
        self._is_tag_missing = False

    async def end(self) -> None:
        """Resume, also after an alarm; when SQS keeps the tag, nothing is resumed."""
        await asyncio.to_thread(self._store.unmark_paused)
        self._is_tag_missing = False
        self._note_request(is_paused=False)
        self._resume()

    async def run_once(self, _now: datetime) -> PauseChecked:
        """Pause or resume by the tag, unless an operator has just paused or resumed this replica.

        A dead-letter alarm of this replica pauses the others too.
        """
        try:
            is_alarmed = self._gate.is_closed_for(CloseReason.DEAD_LETTERS)
            if self._is_tag_missing or (is_alarmed and not self._was_paused):
                await self.begin()
            asked_at = self._clock.monotonic()
            is_paused = await asyncio.to_thread(self._store.is_marked_paused)
        except ServiceError as error:
            # A replica without permission to read tags can only be paused by its own RPC.
            _log.debug("pause_unknown", extra={"error": str(error)})
            return PauseChecked(self._was_paused)
        is_recent = (
            self._requested_at is not None and asked_at < self._requested_at + _PROPAGATION_SECONDS
        )
        if is_paused != self._was_paused and not is_recent:
            _log.warning("paused" if is_paused else "resumed")
            self._was_paused = is_paused
            if is_paused:
                self._gate.close(CloseReason.OPERATOR)
            else:
                self._resume()
        return PauseChecked(self._was_paused)

    def _note_request(self, *, is_paused: bool) -> None:
        self._requested_at = self._clock.monotonic()
        self._was_paused = is_paused
