"""Threads that poll SQS, read the messages, and deliver them on the event loop."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from servicekit.backoff import Backoff
from servicekit.errors import Unavailable
from services.cdc_ingest import metrics
from services.cdc_ingest.domain.messages import Arrival, Message
from services.cdc_ingest.domain.people import PersonMap
from services.cdc_ingest.domain.staleness import RowObserver
from services.cdc_ingest.sqs.message_reader import read_message
from services.cdc_ingest.sqs.queue import SqsStore
from services.cdc_ingest.sqs.receive_gate import ReceiveGate

_QUEUE_WAIT_SECONDS = 0.05
_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=10.0)

_log = logging.getLogger(__name__)

Deliver = Callable[[Sequence[Arrival]], None]


class Receivers:
    """Polls while the gate is open; `deliver` is called on the event loop.

    A thread of its own reads messages of bulk changes, so that polls go on and a small change
    behind them does not wait. A message goes back to SQS at once when the gate is closed for an
    operator or an alarm, or shut down, or when it has waited too long.
    """

    def __init__(
        self,
        store: SqsStore,
        gate: ReceiveGate,
        people: PersonMap,
        observer: RowObserver,
        *,
        threads: int,
        wait_seconds: int,
        visibility_seconds: float,
    ) -> None:
        self._store = store
        self._gate = gate
        self._people = people
        self._observer = observer
        self._wait_seconds = wait_seconds
        # The visibility timeout of a message that has not been read is not extended.
        self._longest_wait_seconds = visibility_seconds / 2
        self._bulk: queue.SimpleQueue[tuple[float, Message]] = queue.SimpleQueue()
        self._count = threads
        self._threads: list[threading.Thread] = []
        self._failing = [False] * threads
        self._stopping = threading.Event()

    def start(self, deliver: Deliver) -> None:
        """Start the threads; to be called on the event loop of `deliver`."""
        loop = asyncio.get_running_loop()
        for number in range(self._count):
            thread = threading.Thread(
                target=self._run,
                args=(number, loop, deliver),
                name=f"receiver-{number}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()
        reader = threading.Thread(
            target=self._read_bulk, args=(loop, deliver), name="reader", daemon=True
        )
        self._threads.append(reader)
        reader.start()

    def close(self) -> None:
        """Begin no further poll."""
        self._stopping.set()
        self._gate.shut_down()

    async def ended(self, seconds: float) -> None:
        """Wait at most `seconds` for polls under way; their messages go back to SQS."""
        deadline = asyncio.get_running_loop().time() + seconds
        while any(thread.is_alive() for thread in self._threads):
            if asyncio.get_running_loop().time() >= deadline:
                _log.info("polls_abandoned")
                return
            await asyncio.sleep(0.02)

    async def check(self) -> None:
        """Raise `Unavailable` while no receiver gets an answer from SQS."""
        if all(self._failing):
            raise Unavailable("SQS_UNAVAILABLE", "no receiver gets an answer from SQS")

    def _run(self, number: int, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        failures = 0
        while self._gate.reserve():
            try:
                messages = self._store.receive(self._wait_seconds)
            except Exception as error:
                failures += 1
                self._gate.fill_reservation(())
                metrics.receive_failed()
                if not self._failing[number]:
                    self._failing[number] = True
                    cause = None if isinstance(error, Unavailable) else error
                    _log.error("receive_failed", exc_info=cause, extra={"error": str(error)})
                self._stopping.wait(_BACKOFF.delay_seconds(failures))
                continue
            failures = 0
            self._failing[number] = False
            self._gate.fill_reservation(messages)
            small, bulk = by_lane(messages)
            received_at = time.monotonic()
            for message in bulk:
                self._bulk.put((received_at, message))
            if small:
                self._read(small, loop, deliver)

    def _read_bulk(self, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        """Read bulk changes message by message; return the rest once no thread polls any more."""
        while True:
            try:
                taken_at, message = self._bulk.get(timeout=_QUEUE_WAIT_SECONDS)
            except queue.Empty:
                receivers = self._threads[: self._count]
                if self._stopping.is_set() and not any(each.is_alive() for each in receivers):
                    return
                continue
            if time.monotonic() - taken_at > self._longest_wait_seconds:
                self._return([message])
            else:
                self._read([message], loop, deliver)

    def _read(
        self, messages: Sequence[Message], loop: asyncio.AbstractEventLoop, deliver: Deliver
    ) -> None:
        if not self._gate.returns_messages:
            arrivals = [read_message(message, self._people, self._observer) for message in messages]
            try:
                loop.call_soon_threadsafe(deliver, arrivals)
            except RuntimeError:
                # The event loop is already closed.
                _log.info("loop_closed")
            else:
                return
        self._return(messages)

    def _return(self, messages: Sequence[Message]) -> None:
        try:
            self._store.change_visibility([(message, 0) for message in messages])
        except Exception:
            # They become visible after their timeout.
            _log.info("messages_not_returned", extra={"count": len(messages)})
        self._gate.release(messages)


def by_lane(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Return the messages of few changes, and those of bulk changes by size, the smallest first."""
    small = [message for message in messages if not message.is_bulk]
    bulk = [message for message in messages if message.is_bulk]
    return small, sorted(bulk, key=lambda message: message.size_bytes)
