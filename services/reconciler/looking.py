"""Looking at single people: as MySQL, the queue and the cache have them now."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from servicekit.errors import Unavailable
from services.reconciler.domain.drift import Cached, Look
from services.reconciler.pace import Pace
from services.reconciler.patience import Patience
from services.reconciler.report import Report
from services.reconciler.upstreams import Upstreams

_PEOPLE_PER_PAGE = 500

_log = logging.getLogger(__name__)


class Looking:
    """Looks at people; without Redis the cache is left out, since it then serves nothing."""

    def __init__(
        self, upstreams: Upstreams, patience: Patience, report: Report, pace: Pace
    ) -> None:
        self._upstreams = upstreams
        self._patience = patience
        self._report = report
        self._pace = pace

    async def look(self, user_ids: Iterable[int]) -> dict[int, Look]:
        """Return each of these people as they are found."""
        found: dict[int, Look] = {}
        for page in pages(sorted(user_ids), _PEOPLE_PER_PAGE):
            found |= await self._look_at_page(page)
        return found

    async def everything_cached(self) -> AsyncGenerator[dict[int, Cached], None]:
        """Yield what the cache would serve of everybody, somebody perhaps twice."""
        with suppress(_NoCacheError):
            follow = self._patience.follow
            async for page in follow(self._everything_if_there, starts_over=True):
                yield page

    async def inspect(self, user_ids: Sequence[int]) -> dict[int, Cached]:
        """Return what the cache would serve of these people."""
        try:
            return await self._patience.ask(lambda: self._inspect_if_there(user_ids))
        except _NoCacheError:
            return {}

    async def _look_at_page(self, user_ids: Sequence[int]) -> dict[int, Look]:
        ask = self._patience.ask
        # What was applied is read first: a change that arrives in between then shows as one under
        # way, while the other way round it could hide a difference.
        applied = await ask(lambda: self._upstreams.read_applied(user_ids))
        (rows, cost), cached = await asyncio.gather(
            ask(lambda: self._upstreams.read_rows(user_ids)), self.inspect(user_ids)
        )
        self._report.spend(cost)
        await self._pace.rest(cost)
        return {
            user_id: Look(rows.get(user_id), applied.get(user_id), cached.get(user_id))
            for user_id in user_ids
        }

    async def _inspect_if_there(self, user_ids: Sequence[int]) -> dict[int, Cached]:
        with _if_there():
            return await self._upstreams.inspect(user_ids)

    async def _everything_if_there(self) -> AsyncGenerator[dict[int, Cached], None]:
        with _if_there():
            async for page in self._upstreams.stream_cached():
                yield page


class _NoCacheError(Exception):
    """There is no cache to be looked at."""


@contextmanager
def _if_there() -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        if error.reason != "CACHE_UNAVAILABLE":
            raise
        _log.warning("cache_not_checked", extra={"error": error.reason})
        raise _NoCacheError from error


def pages(user_ids: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return the people in pages of at most `size`."""
    return [user_ids[start : start + size] for start in range(0, len(user_ids), size)]
