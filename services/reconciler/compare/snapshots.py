"""Reads single users as MySQL, the queue and the cache have them now."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence

from services.reconciler.domain.drift import CachedUser, UserSnapshot
from services.reconciler.run_context import RunContext
from services.reconciler.upstreams import CacheUnavailableError

_USERS_PER_PAGE = 500

_log = logging.getLogger(__name__)


class SnapshotReader:
    """Reads snapshots; without Redis it leaves the cache out, which then serves no user."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    async def read(self, user_ids: Iterable[int]) -> dict[int, UserSnapshot]:
        """Return the snapshot of each of these users."""
        upstreams, call = self._context.upstreams, self._context.retry.call
        found: dict[int, UserSnapshot] = {}
        for page in pages(sorted(user_ids), _USERS_PER_PAGE):
            # The queue is read first: a change that arrives in between then shows as in flight,
            # while the other order could hide a difference.
            applied = await call(upstreams.read_applied, page)
            (rows, cost), cached = await asyncio.gather(
                call(upstreams.read_rows, page), self._inspect_cache(page)
            )
            await self._context.spend(cost)
            for user_id in page:
                found[user_id] = UserSnapshot(
                    rows.get(user_id), applied.get(user_id), cached.get(user_id)
                )
        return found

    async def _inspect_cache(self, user_ids: Sequence[int]) -> dict[int, CachedUser]:
        try:
            return await self._context.retry.call(self._context.upstreams.inspect, user_ids)
        except CacheUnavailableError:
            _log.warning("cache_not_checked")
            return {}

    async def everything_cached(self) -> AsyncGenerator[dict[int, CachedUser], None]:
        """Yield every user of whom the cache would serve a context; a user may come twice."""
        stream = self._context.retry.stream
        try:
            async for page in stream(self._context.upstreams.stream_cached, starts_over=True):
                yield page
        except CacheUnavailableError:
            _log.warning("cache_not_checked")


def pages(user_ids: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return the users in pages of at most `size`."""
    return [user_ids[start : start + size] for start in range(0, len(user_ids), size)]
