"""Threads that poll SQS, read what comes, and hand it to the event loop."""

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence

from servicekit.errors import Unavailable
from services.cdc_ingest import metrics
from services.cdc_ingest.domain.messages import Arrival, Message
from services.cdc_ingest.domain.people import PersonMap
from services.cdc_ingest.domain.retries import BackOff
from services.cdc_ingest.domain.staleness import Witness
from services.cdc_ingest.intake import Intake
from services.cdc_ingest.reading import read
from services.cdc_ingest.store import SqsStore

SMALL_BYTES = 16 * 1024
_LOOK_SECONDS = 0.05
_BACK_OFF = BackOff(first_seconds=0.2, longest_seconds=10.0)

_log = logging.getLogger(__name__)

Deliver = Callable[[Sequence[Arrival]], None]


class Receivers:
    """Polls as long as the intake admits it; `deliver` is called on the event loop.

    Large messages hold many changes of a bulk each: they are read by a thread of their own, so that
    polls go on and a lone change behind them is not kept waiting. A message that arrives after the
    intake was paused or closed, or has waited too long to be read, goes straight back to SQS.
    """

    def __init__(
        self,
        store: SqsStore,
        intake: Intake,
        people: PersonMap,
        witness: Witness,
        *,
        threads: int,
        wait_seconds: int,
        visibility_seconds: float,
    ) -> None:
        self._store = store
        self._intake = intake
        self._people = people
        self._witness = witness
        self._wait_seconds = wait_seconds
        # Nobody extends the visibility of what has not been read.
        self._patience_seconds = visibility_seconds / 2
        self._large: queue.SimpleQueue[tuple[float, Message]] = queue.SimpleQueue()
        self._count = threads
        self._threads: list[threading.Thread] = []
        self._failing = [False] * threads
        self._stopping = threading.Event()

    def start(self, deliver: Deliver) -> None:
        """Begin; call it on the event loop that `deliver` belongs to."""
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
            target=self._read_large, args=(loop, deliver), name="reader", daemon=True
        )
        self._threads.append(reader)
        reader.start()

    def close(self) -> None:
        """Begin no more polls."""
        self._stopping.set()
        self._intake.close()

    async def ended(self, seconds: float) -> None:
        """Wait at most so long for polls under way; what they still bring goes back to SQS."""
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
        while self._intake.admit():
            try:
                messages = self._store.receive(self._wait_seconds)
            except Exception as error:
                failures += 1
                self._failed(number, failures, error)
                continue
            failures = 0
            self._failing[number] = False
            self._intake.took(messages)
            if messages:
                self._hand_over(messages, loop, deliver)

    def _failed(self, number: int, failures: int, error: Exception) -> None:
        self._intake.took(())
        metrics.receive_failed()
        if not self._failing[number]:
            self._failing[number] = True
            cause = None if isinstance(error, Unavailable) else error
            _log.error("receive_failed", exc_info=cause, extra={"error": str(error)})
        # Spreading retries needs no secrecy.
        self._stopping.wait(_BACK_OFF.seconds(failures, random.random()))  # noqa: S311

    def _hand_over(
        self, messages: Sequence[Message], loop: asyncio.AbstractEventLoop, deliver: Deliver
    ) -> None:
        small, large = by_size(messages)
        now = time.monotonic()
        for message in large:
            self._large.put((now, message))
        if small:
            self._read(small, loop, deliver)

    def _read_large(self, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        """Read one after the other; at the end give back what is left, once nobody polls."""
        while True:
            try:
                taken_at, message = self._large.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._stopping.is_set() and not self._is_polling():
                    return
                continue
            if time.monotonic() - taken_at > self._patience_seconds:
                self._return([message])
            else:
                self._read([message], loop, deliver)

    def _is_polling(self) -> bool:
        here = threading.current_thread()
        return any(thread.is_alive() for thread in self._threads if thread is not here)

    def _read(
        self, messages: Sequence[Message], loop: asyncio.AbstractEventLoop, deliver: Deliver
    ) -> None:
        if not self._intake.gives_back:
            arrivals = [read(message, self._people, self._witness) for message in messages]
            try:
                loop.call_soon_threadsafe(deliver, arrivals)
            except RuntimeError:
                # The loop has been closed under us.
                _log.info("loop_closed")
            else:
                return
        self._return(messages)

    def _return(self, messages: Sequence[Message]) -> None:
        try:
            self._store.hide([(message, 0) for message in messages])
        except Exception:
            # They become visible by themselves.
            _log.info("messages_not_returned", extra={"count": len(messages)})
        for message in messages:
            self._intake.left(message)


def by_size(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Return the small messages, and the large ones in the order in which they are read."""
    small = [message for message in messages if message.size_bytes <= SMALL_BYTES]
    large = [message for message in messages if message.size_bytes > SMALL_BYTES]
    return small, sorted(large, key=lambda message: message.size_bytes)
