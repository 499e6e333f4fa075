"""Serves requests that wait at the same moment together, in a few batches side by side."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from prometheus_client import Histogram

from servicekit import deadline, telemetry
from servicekit.errors import Internal, ServiceError

# A batch that takes longer may wait for something that other requests do not need. Not shorter, so
# that a busy moment is not taken for that: several smaller batches side by side cost more together.
RELIEF_SECONDS = 0.25
# After a batch the next one waits this long for each request that was served. The cost of a batch
# hardly depends on its size, so under load fewer and larger batches get more done, and a single
# request that arrives when no batch runs is served at once.
GATHERING_SECONDS = 0.002
LONGEST_GATHERING_SECONDS = 0.02

_log = logging.getLogger(__name__)


class WaitingRequest(Protocol):
    """A request that waits for its answer."""

    traceparent: str | None

    @property
    def is_waiting(self) -> bool:
        """True until the request is answered or its caller has given up."""
        ...

    def fail(self, error: ServiceError) -> None:
        """Answer with an error, unless answered."""
        ...


W = TypeVar("W", bound=WaitingRequest)


class Batching(Generic[W]):
    """Serves requests in batches; a request waits at most for a batch and the gathering after it.

    A request that a batch leaves without an answer gets the error of the batch, or Internal.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[Sequence[W]], Awaitable[None]],
        sizes: Histogram,
        *,
        workers: int,
        batch: int,
        relief_seconds: float = RELIEF_SECONDS,
    ) -> None:
        """At most `workers` batches run at a time, each for at most `batch` requests.

        Another batch begins beside those in progress only when none of them has begun for
        `relief_seconds`.
        """
        self._name = name
        self._serve = serve
        self._sizes = sizes
        self._workers = workers
        self._batch = batch
        self._relief_seconds = relief_seconds
        self._waiting: deque[W] = deque()
        self._active = 0
        # When the latest batch began.
        self._begun_at = 0.0
        self._relief: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    def join(self, waiting: W) -> None:
        """Have a request answered."""
        self._waiting.append(waiting)
        if not self._active:
            self._begin_work()
        elif self._active < self._workers and self._relief is None:
            self._relieve_in(self._relief_seconds)

    async def stop(self) -> None:
        """Let the batches in progress end."""
        if self._running:
            await asyncio.wait(self._running)

    def _relieve_in(self, seconds: float) -> None:
        def relieve() -> None:
            self._relief = None
            if not self._waiting or self._active >= self._workers:
                return
            left = self._begun_at + self._relief_seconds - asyncio.get_running_loop().time()
            if left > 0:
                # A batch has begun meanwhile: quick ones need no relief.
                self._relieve_in(left)
            else:
                self._begin_work()

        self._relief = asyncio.get_running_loop().call_later(seconds, relieve)

    def _begin_work(self) -> None:
        with deadline.detached():
            task = asyncio.create_task(self._work(), name=f"{self._name} batches")
        # Counted apart from the tasks: a task that has found no request waiting has ended for us,
        # while its callback is still to come.
        self._active += 1
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _work(self) -> None:
        """Serve batch after batch until no request waits."""
        try:
            while self._waiting:
                batch: list[W] = []
                while self._waiting and len(batch) < self._batch:
                    waiting = self._waiting.popleft()
                    if waiting.is_waiting:
                        batch.append(waiting)
                if not batch:
                    continue
                self._begun_at = asyncio.get_running_loop().time()
                self._sizes.observe(len(batch))
                error: ServiceError = Internal(
                    "REQUEST_LOST", "the request was left without an answer"
                )
                try:
                    with telemetry.shared(self._name, [it.traceparent for it in batch]):
                        await self._serve(batch)
                except ServiceError as raised:
                    error = raised
                except Exception:
                    _log.exception("batch_failed", extra={"batching": self._name})
                for waiting in batch:
                    waiting.fail(error)
                if len(batch) > 1:
                    gathering = len(batch) * GATHERING_SECONDS
                    await asyncio.sleep(min(LONGEST_GATHERING_SECONDS, gathering))
        finally:
            self._active -= 1
