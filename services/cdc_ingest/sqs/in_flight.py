"""Messages in flight: their visibility timeout is extended during the work; each ends once."""

import logging
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from servicekit import telemetry
from servicekit.backoff import Backoff
from servicekit.clock import Clock
from services.cdc_ingest.domain.messages import Arrival, Message
from services.cdc_ingest.domain.watermark import Watermark
from services.cdc_ingest.metrics import PipelineMetrics
from services.cdc_ingest.sqs.queue import RefusedEntry, SqsStore
from services.cdc_ingest.sqs.receive_gate import ReceiveGate
from services.cdc_ingest.sqs.request_batches import RequestBatches

_LONGEST_VISIBILITY_SECONDS = 43_200
_THREADS = 6

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _HeldMessage:
    message: Message
    hidden_since: float


@dataclass(frozen=True, slots=True)
class _VisibilityChange:
    message: Message
    seconds: int
    is_settling: bool


@dataclass(frozen=True, slots=True)
class _Deletion:
    message: Message
    is_dead_lettered: bool


_S = TypeVar("_S", _VisibilityChange, _Deletion)


@dataclass(frozen=True, slots=True)
class Extended:
    """Result of one run: how many visibility timeouts were extended."""

    extended: int


class InFlight:
    """Deletes, puts back or dead-letters each message; after a failure SQS delivers it again."""

    def __init__(
        self,
        store: SqsStore,
        gate: ReceiveGate,
        pipeline_metrics: PipelineMetrics,
        clock: Clock,
        *,
        visibility_seconds: int,
        backoff: Backoff,
    ) -> None:
        self._store = store
        self._gate = gate
        self._metrics = pipeline_metrics
        self._clock = clock
        self._visibility_seconds = visibility_seconds
        self._backoff = backoff
        self._held: dict[str, _HeldMessage] = {}
        self.watermark = Watermark(visibility_seconds)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sqs")
        self._deletions = RequestBatches(
            self._threads,
            lambda deletions: _refused_of(
                deletions, store.delete([deletion.message for deletion in deletions])
            ),
            self._deleted,
        )
        self._visibility_changes = RequestBatches(
            self._threads, self._change_visibility, self._visibility_changed
        )
        self._dead_letter_sends = RequestBatches(
            self._threads, self._dead_letter, self._dead_lettered, batch=1
        )

    def hold(self, arrivals: Iterable[Arrival]) -> None:
        """Add messages just received."""
        now = self._clock.monotonic()
        for arrival in arrivals:
            message = arrival.message
            self.watermark.hold(arrival)
            # A message whose files were read is added again: its timeout runs from the first time.
            self._held.setdefault(message.receipt, _HeldMessage(message, now))

    def delete(self, message: Message) -> None:
        """Delete a message whose work is done."""
        self._held.pop(message.receipt, None)
        self.watermark.finish(message)
        self._deletions.add(_Deletion(message, is_dead_lettered=False))

    def put_back(self, message: Message, seconds: int | None = None) -> None:
        """Make a message visible again after `seconds`, or after its backoff."""
        self._held.pop(message.receipt, None)
        self._metrics.put_back()
        if seconds is None:
            seconds = visibility_seconds(self._backoff, message.receive_count)
        self.watermark.release(message, self._clock.monotonic() + seconds)
        self._visibility_changes.add(_VisibilityChange(message, seconds, is_settling=True))

    def dead_letter(self, message: Message, reason: str) -> None:
        """Send a message to the dead-letter queue, then delete it."""
        self._dead_letter_sends.add((message, reason))

    async def run_once(self, _now: datetime) -> Extended:
        """Extend the visibility timeout of every message of which a third has passed."""
        now = self._clock.monotonic()
        self.watermark.forget_expired(now, is_receiving=not self._gate.is_closed)
        due = [
            h for h in self._held.values() if now - h.hidden_since > self._visibility_seconds / 3
        ]
        for held in due:
            held.hidden_since = now
            self._visibility_changes.add(
                _VisibilityChange(held.message, self._visibility_seconds, is_settling=False)
            )
        return Extended(len(due))

    async def settled(self) -> None:
        """Return once every request to SQS has ended."""
        await self._dead_letter_sends.idle()
        await self._deletions.idle()
        await self._visibility_changes.idle()

    def close(self) -> None:
        """End the threads after their requests."""
        self._threads.shutdown(wait=False)

    def _deleted(self, deletions: Sequence[_Deletion], is_done: bool) -> None:
        self._gate.release([deletion.message for deletion in deletions])
        if is_done:
            self._metrics.deleted(sum(not each.is_dead_lettered for each in deletions))
            return
        for deletion in deletions:
            self._metrics.not_deleted()
            _log.warning("message_not_deleted", extra={"message_id": deletion.message.message_id})

    def _change_visibility(
        self, changes: Sequence[_VisibilityChange]
    ) -> tuple[list[_VisibilityChange], list[_VisibilityChange]]:
        # An extension must not hide a message again that has been settled in the meantime.
        wanted = [h for h in changes if h.is_settling or h.message.receipt in self._held]
        if not wanted:
            return [], []
        refused = self._store.change_visibility([(h.message, h.seconds) for h in wanted])
        return _refused_of(wanted, refused)

    def _visibility_changed(self, changes: Sequence[_VisibilityChange], is_done: bool) -> None:
        for change in () if is_done else changes:
            # It becomes visible after its timeout; the work goes on, and a repeat is harmless.
            _log.info("visibility_not_changed", extra={"message_id": change.message.message_id})
        self._gate.release([change.message for change in changes if change.is_settling])

    def _dead_letter(
        self, requests: Sequence[tuple[Message, str]]
    ) -> tuple[list[tuple[Message, str]], list[tuple[Message, str]]]:
        for message, reason in requests:
            # A message without a trace gets one, by which it can be found.
            with telemetry.span("dead_letter", parent=telemetry.extract(message.traceparent)):
                self._store.send_to_dead_letters(message, reason, telemetry.inject())
        return [], []

    def _dead_lettered(self, requests: Sequence[tuple[Message, str]], is_done: bool) -> None:
        for message, reason in requests:
            extra = {"message_id": message.message_id, "dead_reason": reason}
            if is_done:
                self._metrics.dead_lettered()
                _log.warning("message_dead", extra=extra)
                self._held.pop(message.receipt, None)
                self.watermark.finish(message)
                self._deletions.add(_Deletion(message, is_dead_lettered=True))
            else:
                _log.error("dead_letter_not_sent", extra=extra)
                self.put_back(message)


def _refused_of(items: Sequence[_S], refused: Iterable[RefusedEntry]) -> tuple[list[_S], list[_S]]:
    """Return the refused items that may be retried, and those that may not."""
    retryable = {each.message.receipt: each.is_retryable for each in refused}
    again = [item for item in items if retryable.get(item.message.receipt) is True]
    lost = [item for item in items if retryable.get(item.message.receipt) is False]
    return again, lost


def visibility_seconds(backoff: Backoff, receive_count: int) -> int:
    """Return the delay for SQS: whole seconds, rounded up, at most 12 hours."""
    return min(_LONGEST_VISIBILITY_SECONDS, math.ceil(backoff.delay_seconds(receive_count)))
