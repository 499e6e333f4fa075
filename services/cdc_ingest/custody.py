"""The messages we hold: kept hidden from others while work goes on, and settled exactly once."""

import logging
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from servicekit import telemetry
from servicekit.clock import Clock
from services.cdc_ingest.domain.horizon import Horizon
from services.cdc_ingest.domain.messages import Arrival, Message
from services.cdc_ingest.domain.retries import BackOff
from services.cdc_ingest.errands import Errands
from services.cdc_ingest.intake import Intake
from services.cdc_ingest.metrics import Ledger
from services.cdc_ingest.store import Refused, SqsStore

_THREADS = 6

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    message: Message
    hidden_since: float


@dataclass(frozen=True, slots=True)
class _Hiding:
    message: Message
    seconds: int
    is_settling: bool


@dataclass(frozen=True, slots=True)
class _Deletion:
    message: Message
    was_buried: bool


_S = TypeVar("_S", _Hiding, _Deletion)


@dataclass(frozen=True, slots=True)
class Extended:
    """Result of one look at the messages held."""

    extended: int


class Custody:
    """Deletes, puts back or buries each message held; whatever fails, SQS delivers it again."""

    def __init__(
        self,
        store: SqsStore,
        intake: Intake,
        ledger: Ledger,
        clock: Clock,
        *,
        visibility_seconds: int,
        back_off: BackOff,
    ) -> None:
        self._store = store
        self._intake = intake
        self._ledger = ledger
        self._clock = clock
        self._visibility_seconds = visibility_seconds
        self._back_off = back_off
        self._held: dict[str, _Held] = {}
        self.horizon = Horizon(visibility_seconds)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sqs")
        self._deletions = Errands(self._threads, self._delete, self._deleted)
        self._hidings = Errands(self._threads, self._hide, self._hidden)
        self._burials = Errands(self._threads, self._bury, self._buried, batch=1)

    def hold(self, arrivals: Iterable[Arrival]) -> None:
        """Take responsibility for messages just received."""
        now = self._clock.monotonic()
        for arrival in arrivals:
            message = arrival.message
            self.horizon.hold(arrival)
            # One whose files were read comes a second time, hidden since the first.
            self._held.setdefault(message.receipt, _Held(message, now))

    def delete(self, message: Message) -> None:
        """The work is done: take it off the queue."""
        self._held.pop(message.receipt, None)
        self.horizon.finish(message)
        self._deletions.add(_Deletion(message, was_buried=False))

    def put_back(self, message: Message, seconds: int | None = None) -> None:
        """Leave it to a later try: after `seconds`, or after its back-off."""
        self._held.pop(message.receipt, None)
        self._ledger.put_back()
        if seconds is None:
            # Spreading retries needs no secrecy.
            luck = random.random()  # noqa: S311
            seconds = self._back_off.visibility_seconds(message.receive_count, luck)
        self.horizon.give_back(message, self._clock.monotonic() + seconds)
        self._hidings.add(_Hiding(message, seconds, is_settling=True))

    def bury(self, message: Message, reason: str) -> None:
        """Move it to the dead-letter queue; it is deleted only once it has arrived there."""
        self._burials.add((message, reason))

    async def run_once(self, _now: datetime) -> Extended:
        """Extend the time of every message that is held for long."""
        now = self._clock.monotonic()
        self.horizon.tidy(now, is_receiving=not self._intake.is_idle)
        due = [
            h for h in self._held.values() if now - h.hidden_since > self._visibility_seconds / 3
        ]
        for held in due:
            held.hidden_since = now
            self._hidings.add(_Hiding(held.message, self._visibility_seconds, is_settling=False))
        return Extended(len(due))

    async def settled(self) -> None:
        """Return once everything asked for has ended."""
        await self._burials.idle()
        await self._deletions.idle()
        await self._hidings.idle()

    def close(self) -> None:
        """End the threads once they are done."""
        self._threads.shutdown(wait=False)

    def _delete(self, deletions: Sequence[_Deletion]) -> tuple[list[_Deletion], list[_Deletion]]:
        refused = self._store.delete([deletion.message for deletion in deletions])
        return _refused_of(deletions, refused)

    def _deleted(self, deletion: _Deletion, is_done: bool) -> None:
        message = deletion.message
        self._intake.left(message)
        if not is_done:
            self._ledger.not_deleted()
            _log.warning("message_not_deleted", extra={"message_id": message.message_id})
        elif not deletion.was_buried:
            self._ledger.deleted()

    def _hide(self, hidings: Sequence[_Hiding]) -> tuple[list[_Hiding], list[_Hiding]]:
        # An extension must not undo what has been settled since it was asked for.
        wanted = [h for h in hidings if h.is_settling or h.message.receipt in self._held]
        if not wanted:
            return [], []
        refused = self._store.hide([(h.message, h.seconds) for h in wanted])
        return _refused_of(wanted, refused)

    def _hidden(self, hiding: _Hiding, is_done: bool) -> None:
        message = hiding.message
        if not is_done:
            # It becomes visible by itself; what is under way goes on, and a repeat is harmless.
            _log.info("visibility_not_changed", extra={"message_id": message.message_id})
        if hiding.is_settling:
            self._intake.left(message)

    def _bury(
        self, burials: Sequence[tuple[Message, str]]
    ) -> tuple[list[tuple[Message, str]], list[tuple[Message, str]]]:
        for message, reason in burials:
            # One that came without a trace gets one to be found by.
            with telemetry.span("bury", parent=telemetry.extract(message.traceparent)):
                self._store.send_to_dead_letters(message, reason, telemetry.inject())
        return [], []

    def _buried(self, burial: tuple[Message, str], is_done: bool) -> None:
        message, reason = burial
        extra = {"message_id": message.message_id, "dead_reason": reason}
        if is_done:
            self._ledger.buried()
            _log.warning("message_dead", extra=extra)
            self._held.pop(message.receipt, None)
            self.horizon.finish(message)
            self._deletions.add(_Deletion(message, was_buried=True))
        else:
            _log.error("dead_letter_not_sent", extra=extra)
            self.put_back(message)


def _refused_of(items: Sequence[_S], refused: Iterable[Refused]) -> tuple[list[_S], list[_S]]:
    """Return the items to ask for again, and those for which asking again does not help."""
    retryable = {each.message.receipt: each.is_retryable for each in refused}
    again = [item for item in items if retryable.get(item.message.receipt) is True]
    lost = [item for item in items if retryable.get(item.message.receipt) is False]
    return again, lost
