"""Threads that poll SQS, read what comes, and hand it to the event loop."""

import asyncio
import logging
import random
import threading
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

_SMALL_BYTES = 16 * 1024
_BACK_OFF = BackOff(first_seconds=0.2, longest_seconds=10.0)

_log = logging.getLogger(__name__)

Deliver = Callable[[Sequence[Arrival]], None]


class Receivers:
    """Polls as long as the intake admits it; `deliver` is called on the event loop.

    A message that arrives after the intake was paused or closed goes straight back to SQS.
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
    ) -> None:
        self._store = store
        self._intake = intake
        self._people = people
        self._witness = witness
        self._wait_seconds = wait_seconds
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
        for portion in portions(messages):
            if not self._intake.gives_back:
                arrivals = [read(message, self._people, self._witness) for message in portion]
                try:
                    loop.call_soon_threadsafe(deliver, arrivals)
                except RuntimeError:
                    # The loop has been closed under us.
                    _log.info("loop_closed")
                else:
                    continue
            self._return(portion)

    def _return(self, messages: Sequence[Message]) -> None:
        try:
            self._store.hide([(message, 0) for message in messages])
        except Exception:
            # They become visible by themselves.
            _log.info("messages_not_returned", extra={"count": len(messages)})
        for message in messages:
            self._intake.left(message)


def portions(messages: Sequence[Message]) -> list[list[Message]]:
    """Return the messages as they are read and handed over: small ones together and at once.

    A large one holds many changes of a bulk, which a lone change need not wait to be decoded.
    """
    small = [message for message in messages if message.size_bytes <= _SMALL_BYTES]
    large = [message for message in messages if message.size_bytes > _SMALL_BYTES]
    large.sort(key=lambda message: message.size_bytes)
    return [part for part in (small, *([each] for each in large)) if part]
