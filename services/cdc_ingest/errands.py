"""Small requests to SQS, gathered into batches of ten and made in threads."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from servicekit.errors import Unavailable
from services.cdc_ingest.domain.retries import BackOff
from services.cdc_ingest.store import MAX_BATCH

T = TypeVar("T")

_log = logging.getLogger(__name__)

ATTEMPTS = 4
_BACK_OFF = BackOff(first_seconds=0.2, longest_seconds=2.0)


@dataclass(slots=True)
class _Errand(Generic[T]):
    item: T
    attempts: int = 0


class Errands(Generic[T]):
    """Performs what is added, in any order, a few times if need be, and reports each end once.

    `perform` runs in a thread, takes at most ten items, returns those to try again and those to
    give up, and may raise `Unavailable`, which means all again. `finished` is called on the event
    loop with whether it was done.
    """

    def __init__(
        self,
        executor: Executor,
        perform: Callable[[Sequence[T]], tuple[list[T], list[T]]],
        finished: Callable[[T, bool], None],
        *,
        concurrency: int = 2,
        batch: int = MAX_BATCH,
    ) -> None:
        self._executor = executor
        self._perform = perform
        self._finished = finished
        self._concurrency = concurrency
        self._batch = batch
        self._waiting: deque[_Errand[T]] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.Task[None]] = set()

    def add(self, item: T) -> None:
        """Have it done soon; nothing waits for more to come along."""
        self._enqueue(_Errand(item))

    async def idle(self) -> None:
        """Return once everything added has ended, one way or the other."""
        while tasks := self._runners | self._retries:
            await asyncio.wait(tasks)

    def _enqueue(self, errand: _Errand[T]) -> None:
        self._waiting.append(errand)
        if len(self._runners) < self._concurrency:
            runner = asyncio.create_task(self._run())
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)

    async def _run(self) -> None:
        while self._waiting:
            count = min(self._batch, len(self._waiting))
            await self._attempt([self._waiting.popleft() for _ in range(count)])

    async def _attempt(self, errands: list[_Errand[T]]) -> None:
        items = [errand.item for errand in errands]
        loop = asyncio.get_running_loop()
        try:
            again, lost = await loop.run_in_executor(self._executor, self._perform, items)
        except Unavailable:
            again, lost = items, []
        except Exception:
            _log.exception("errand_failed")
            again, lost = [], items
        repeat, drop = set(map(id, again)), set(map(id, lost))
        for errand in errands:
            errand.attempts += 1
            if id(errand.item) in repeat and errand.attempts < ATTEMPTS:
                self._retry_later(errand)
            else:
                self._finished(errand.item, id(errand.item) not in repeat | drop)

    def _retry_later(self, errand: _Errand[T]) -> None:
        task = asyncio.create_task(self._pause_and_enqueue(errand))
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    async def _pause_and_enqueue(self, errand: _Errand[T]) -> None:
        # Spreading retries needs no secrecy.
        await asyncio.sleep(_BACK_OFF.seconds(errand.attempts, random.random()))  # noqa: S311
        self._enqueue(errand)
