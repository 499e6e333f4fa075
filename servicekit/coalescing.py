"""One reading for several requests that wait for it.

The queue's hand-out (services/queue/calls) and the ingest's requests to SQS
(services/cdc_ingest/sqs) have schedulers of their own. Here requests share the values of their
keys. There each request has an answer of its own: the hand-out waits for more requests after each
batch, and the ingest retries single requests.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from servicekit import deadline
from servicekit.backoff import UNAVAILABLE

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Read = Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]


class _Request(NamedTuple, Generic[K, V]):
    keys: Sequence[K]
    answer: asyncio.Future[Mapping[K, V]]


class Coalescer(Generic[K, V]):
    """Joins the keys of concurrent requests into batches and reads each batch once.

    A batch begins after every request in it has arrived: no answer is older than its request. At
    most ``max_batches`` are read at a time, with ``is_exclusive`` never two that share a key; later
    requests wait for the next batch. No request is overtaken by a later one that shares a key, so a
    request for many keys waits only for the batches that are being read when its turn comes. When
    the source is unavailable, every request of the batch raises that error; after any other failure
    each request is read by itself, so that a key that cannot be read fails only the requests for
    it. A cancelled request leaves the reading to the others.
    """

    def __init__(
        self,
        read: Read[K, V],
        *,
        max_keys: int,
        max_batches: int,
        is_exclusive: bool = False,
    ) -> None:
        self._read = read
        self._max_keys = max_keys
        self._max_batches = max_batches
        self._is_exclusive = is_exclusive
        self._waiting: deque[_Request[K, V]] = deque()
        self._busy: set[K] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._is_scheduled = False

    async def get(self, keys: Sequence[K]) -> Mapping[K, V]:
        """Return the values of ``keys``, and perhaps of others, by a reading that begins later.

        A key without a value is absent. Raises what the reading raises.
        """
        if not keys:
            return {}
        answer: asyncio.Future[Mapping[K, V]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(keys, answer))
        self._schedule()
        return await answer

    async def stop(self) -> None:
        """Cancel the readings and the requests that wait for them."""
        while self._waiting:
            self._waiting.popleft().answer.cancel()
        for batch in tuple(self._batches):
            batch.cancel()
            with suppress(asyncio.CancelledError):
                await batch

    def _schedule(self) -> None:
        # Not at once: requests of the same turn of the event loop share a batch.
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_batches)

    def _begin_batches(self) -> None:
        self._is_scheduled = False
        while len(self._batches) < self._max_batches:
            requests = self._take()
            if not requests:
                return
            keys = tuple(dict.fromkeys(key for request in requests for key in request.keys))
            if self._is_exclusive:
                self._busy.update(keys)
            # A batch serves several requests: the deadline of one must not end it.
            with deadline.detached():
                batch = asyncio.create_task(self._answer(keys, requests))
            self._batches.add(batch)
            batch.add_done_callback(partial(self._ended, keys, requests))

    def _take(self) -> list[_Request[K, V]]:
        """Remove and return the requests of the next batch, oldest first."""
        taken: list[_Request[K, V]] = []
        passed: list[_Request[K, V]] = []
        # Keys of batches that are being read, and of requests that wait for them.
        barred = set(self._busy)
        count = 0
        while self._waiting:
            request = self._waiting[0]
            if taken and count + len(request.keys) > self._max_keys:
                break
            self._waiting.popleft()
            if request.answer.done():
                continue
            if barred and not barred.isdisjoint(request.keys):
                passed.append(request)
                barred.update(request.keys)
                continue
            taken.append(request)
            count += len(request.keys)
        self._waiting.extendleft(reversed(passed))
        return taken

    async def _answer(self, keys: Sequence[K], requests: Sequence[_Request[K, V]]) -> None:
        try:
            found = await self._read(keys)
        except Exception as error:
            if len(requests) > 1 and not isinstance(error, UNAVAILABLE):
                for request in requests:
                    await self._answer(request.keys, (request,))
                return
            for request in requests:
                if not request.answer.done():
                    request.answer.set_exception(error)
        else:
            for request in requests:
                if not request.answer.done():
                    request.answer.set_result(found)

    def _ended(
        self, keys: Sequence[K], requests: Sequence[_Request[K, V]], batch: asyncio.Task[None]
    ) -> None:
        self._batches.discard(batch)
        self._busy.difference_update(keys)
        # Requests without an answer: the batch was cancelled before it began, or between two of its
        # readings. Cancelling an answered request does nothing.
        for request in requests:
            request.answer.cancel()
        if self._waiting:
            self._schedule()
