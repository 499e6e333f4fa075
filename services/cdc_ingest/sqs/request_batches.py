"""Gathers small requests to SQS into batches of ten and sends them in threads."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from servicekit.backoff import Backoff
from servicekit.errors import Unavailable
from services.cdc_ingest.sqs.queue import MAX_BATCH

T = TypeVar("T")

_log = logging.getLogger(__name__)

ATTEMPTS = 4
_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=2.0)


@dataclass(slots=True)
class _SqsRequest(Generic[T]):
    item: T
    attempts: int = 0


class RequestBatches(Generic[T]):
    """Performs the added items in any order, with retries, and reports the end of each once.

    `perform` runs in a thread, takes at most ten items, returns those to retry and those to give
    up, and may raise `Unavailable` to retry all. `finished` is called on the event loop with items
    that have ended together, and whether they were done.
    """

    def __init__(
        self,
        executor: Executor,
        perform: Callable[[Sequence[T]], tuple[list[T], list[T]]],
        finished: Callable[[Sequence[T], bool], None],
        *,
        concurrency: int = 2,
        batch: int = MAX_BATCH,
    ) -> None:
        self._executor = executor
        self._perform = perform
        self._finished = finished
        self._concurrency = concurrency
        self._batch = batch
        self._waiting: deque[_SqsRequest[T]] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.Task[None]] = set()

    def add(self, item: T) -> None:
        """Perform the item soon; a batch does not wait for more items."""
        self._enqueue(_SqsRequest(item))

    async def idle(self) -> None:
        """Return once all added items have ended."""
        while tasks := self._runners | self._retries:
            await asyncio.wait(tasks)

    def _enqueue(self, request: _SqsRequest[T]) -> None:
        self._waiting.append(request)
        if len(self._runners) < self._concurrency:
            runner = asyncio.create_task(self._run())
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            count = min(self._batch, len(self._waiting))
            requests = [self._waiting.popleft() for _ in range(count)]
            items = [request.item for request in requests]
            try:
                again, lost = await loop.run_in_executor(self._executor, self._perform, items)
            except Unavailable:
                again, lost = items, []
            except Exception:
                _log.exception("sqs_request_failed")
                again, lost = [], items
            repeat, drop = set(map(id, again)), set(map(id, lost))
            ended: dict[bool, list[T]] = {True: [], False: []}
            for request in requests:
                request.attempts += 1
                if id(request.item) in repeat and request.attempts < ATTEMPTS:
                    retry = asyncio.create_task(self._retry_later(request))
                    self._retries.add(retry)
                    retry.add_done_callback(self._retries.discard)
                else:
                    ended[id(request.item) not in repeat | drop].append(request.item)
            for is_done, items in ended.items():
                if items:
                    self._finished(items, is_done)

    async def _retry_later(self, request: _SqsRequest[T]) -> None:
        await asyncio.sleep(_BACKOFF.delay_seconds(request.attempts))
        self._enqueue(request)
