"""Readings shared by the requests that wait for them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, Unavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Read = Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]


class _Request(NamedTuple, Generic[K, V]):
    keys: Sequence[K]
    answer: asyncio.Future[Mapping[K, V]]


class Coalescer(Generic[K, V]):
    """Joins the keys of concurrent requests into batches and reads each batch once.

    A batch begins after every request in it has arrived, so nobody is answered from a reading
    older than the question. At most ``max_batches`` are under way, and with ``is_exclusive`` never
    two with a key in common; what arrives meanwhile waits for the next. When the source is away
    every request of the batch is told; after any other failure each is read by itself, so that
    one key that cannot be read fails only those who asked for it. Cancelling a request leaves the
    reading to the others.
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
        """Return what a reading that begins after this call finds for ``keys``, maybe more.

        A key without a value is absent. Raises what the reading raises.
        """
        if not keys:
            return {}
        answer: asyncio.Future[Mapping[K, V]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(keys, answer))
        self._schedule()
        return await answer

    async def stop(self) -> None:
        """Cancel the readings under way and whoever waits for one."""
        while self._waiting:
            self._waiting.popleft().answer.cancel()
        for batch in tuple(self._batches):
            batch.cancel()
            with suppress(asyncio.CancelledError):
                await batch

    def _schedule(self) -> None:
        # Not at once: requests of the same turn of the loop belong together.
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
            # The batch belongs to no single request, so none's deadline may end it.
            with deadline.detached():
                batch = asyncio.create_task(self._run(keys, requests))
            self._batches.add(batch)
            batch.add_done_callback(self._ended)

    def _take(self) -> list[_Request[K, V]]:
        """Remove the requests of the next batch from those waiting, oldest first."""
        taken: list[_Request[K, V]] = []
        passed: list[_Request[K, V]] = []
        count = 0
        while self._waiting:
            request = self._waiting[0]
            if taken and count + len(request.keys) > self._max_keys:
                break
            self._waiting.popleft()
            if request.answer.done():
                continue
            if self._busy and not self._busy.isdisjoint(request.keys):
                passed.append(request)
                continue
            taken.append(request)
            count += len(request.keys)
        self._waiting.extendleft(reversed(passed))
        return taken

    async def _run(self, keys: Sequence[K], requests: Sequence[_Request[K, V]]) -> None:
        try:
            await self._answer(keys, requests)
        finally:
            self._busy.difference_update(keys)

    async def _answer(self, keys: Sequence[K], requests: Sequence[_Request[K, V]]) -> None:
        try:
            found = await self._read(keys)
        except asyncio.CancelledError:
            for request in requests:
                request.answer.cancel()
            raise
        except Exception as error:
            if len(requests) > 1 and not isinstance(error, Unavailable | DeadlineExceeded):
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

    def _ended(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if self._waiting:
            self._schedule()
