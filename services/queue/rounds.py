"""Requests that wait at the same moment, served together in a few rounds side by side."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from prometheus_client import Histogram

from servicekit import deadline, telemetry
from servicekit.errors import Internal, ServiceError

# A round that takes longer may be waiting for what others need not wait for. Not so short that a
# busy moment is taken for that: several rounds side by side are smaller, and cost more together.
PATIENCE_SECONDS = 0.25
# After a round the next one waits this long for each request that was served. The cost of a round
# hardly depends on how many it serves: in a crowd fewer and larger ones get more done, and a single
# request that comes into a silence is served at once.
GATHERING_SECONDS = 0.002
LONGEST_GATHERING_SECONDS = 0.02

_log = logging.getLogger(__name__)


class Waiting(Protocol):
    """A request that waits for its answer."""

    traceparent: str | None

    @property
    def is_waiting(self) -> bool:
        """False once answered, or when the caller has given up."""
        ...

    def fail(self, error: ServiceError) -> None:
        """Answer with an error, unless answered."""
        ...


W = TypeVar("W", bound=Waiting)


class Rounds(Generic[W]):
    """Serves requests in rounds; one waits at most for a round and the gathering after it.

    Whoever a round leaves without an answer gets what it raised, or Internal.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[Sequence[W]], Awaitable[None]],
        sizes: Histogram,
        *,
        workers: int,
        batch: int,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """At most `workers` rounds run at a time, each for at most `batch` requests.

        Another round is begun beside those under way only when none of them has begun for
        `patience_seconds`.
        """
        self._name = name
        self._serve = serve
        self._sizes = sizes
        self._workers = workers
        self._batch = batch
        self._patience_seconds = patience_seconds
        self._waiting: deque[W] = deque()
        self._active = 0
        # When the latest round began.
        self._begun_at = 0.0
        self._relief: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    def join(self, waiting: W) -> None:
        """Have a request answered."""
        self._waiting.append(waiting)
        if not self._active:
            self._begin_work()
        elif self._active < self._workers and self._relief is None:
            self._relieve_in(self._patience_seconds)

    async def stop(self) -> None:
        """Let the rounds under way end."""
        if self._running:
            await asyncio.wait(self._running)

    def _relieve_in(self, seconds: float) -> None:
        self._relief = asyncio.get_running_loop().call_later(seconds, self._relieve)

    def _relieve(self) -> None:
        """Serve beside rounds that are taking long; what quick ones leave is for the next."""
        self._relief = None
        if not self._waiting or self._active >= self._workers:
            return
        left = self._begun_at + self._patience_seconds - asyncio.get_running_loop().time()
        if left > 0:
            self._relieve_in(left)
        else:
            self._begin_work()

    def _begin_work(self) -> None:
        with deadline.detached():
            task = asyncio.create_task(self._work(), name=f"{self._name} rounds")
        # Counted apart from the tasks: one that has found nobody waiting has ended for us, while
        # its callback is still to come.
        self._active += 1
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _work(self) -> None:
        try:
            while self._waiting:
                served = await self._round()
                if served > 1:
                    await asyncio.sleep(min(LONGEST_GATHERING_SECONDS, served * GATHERING_SECONDS))
        finally:
            self._active -= 1

    async def _round(self) -> int:
        batch: list[W] = []
        while self._waiting and len(batch) < self._batch:
            waiting = self._waiting.popleft()
            if waiting.is_waiting:
                batch.append(waiting)
        if not batch:
            return 0
        self._begun_at = asyncio.get_running_loop().time()
        self._sizes.observe(len(batch))
        error: ServiceError = Internal("REQUEST_LOST", "the request was left without an answer")
        try:
            with telemetry.shared(self._name, [waiting.traceparent for waiting in batch]):
                await self._serve(batch)
        except ServiceError as raised:
            error = raised
        except Exception:
            _log.exception("round_failed", extra={"rounds": self._name})
        for waiting in batch:
            waiting.fail(error)
        return len(batch)
