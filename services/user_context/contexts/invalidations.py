"""Invalidations of call states, and those that Redis could not take when they were made."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from servicekit.backoff import UNAVAILABLE
from servicekit.clock import Clock
from servicekit.errors import Unavailable
from services.user_context import metrics
from services.user_context.cache.context_cache import ContextCache, Grant
from services.user_context.cache.links import RedisUnavailable
from services.user_context.domain import Part, UserId
from services.user_context.store import FenceStore

FENCES_PER_RUN = 500
# A look may come late by two before its process stops trusting the cache.
LOOKS_TRUSTED = 3


@dataclass(frozen=True, slots=True)
class RaisedFences:
    """The fences that one run has raised; `is_held_up` while Redis is unavailable."""

    raised: int
    has_more: bool = False
    is_held_up: bool = False


class Invalidations:
    """Brings every invalidation into the cache, at once or as soon as Redis is available.

    One that Redis does not take is kept in PostgreSQL for all processes. Each of them looks for
    these every `look_seconds`, and serves no copy as fresh when its latest look is LOOKS_TRUSTED
    times that ago. So after as long a wait no process serves as fresh what was kept, even if Redis
    is unavailable to one of them only.
    """

    def __init__(
        self, cache: ContextCache, fences: FenceStore, clock: Clock, *, look_seconds: float
    ) -> None:
        self._cache = cache
        self._fences = fences
        self._clock = clock
        self._trusted_seconds = LOOKS_TRUSTED * look_seconds

    async def invalidate_contexts(
        self, user_ids: Sequence[UserId], version: int
    ) -> Mapping[UserId, Grant]:
        """Stop serving older readings of the main app as fresh, and announce one of that version.

        Without Redis there are no grants, and it takes as long as looks are trusted. Raises
        Unavailable or DeadlineExceeded when PostgreSQL has to keep the invalidation and does not
        answer.
        """
        try:
            return await self._cache.invalidate(Part.MAIN, user_ids, version)
        except RedisUnavailable:
            await self._keep(Part.MAIN, dict.fromkeys(user_ids, version))
        await asyncio.sleep(self._trusted_seconds)
        return {}

    async def invalidate_call_states(self, versions: Mapping[UserId, int]) -> None:
        """Stop serving older call states as fresh, without Redis as soon as processes look.

        Raises Unavailable (CACHE_UNAVAILABLE) when neither Redis nor PostgreSQL takes the
        invalidation.
        """
        try:
            await self._cache.raise_fences(Part.CALL, versions)
        except RedisUnavailable:
            try:
                await self._keep(Part.CALL, versions)
            except UNAVAILABLE as error:
                raise Unavailable(
                    "CACHE_UNAVAILABLE",
                    "neither the cache nor the dialler's database takes the invalidation now",
                    retry_after_seconds=1.0,
                ) from error

    async def run_once(self, now: datetime) -> RaisedFences:
        """Raise fences that could not be raised before; when none is left the cache is trusted.

        Raises ServiceError when PostgreSQL does not answer. An unavailable cache is no failure: the
        next run is not delayed, as nothing is served from the cache until a run succeeds.
        """
        del now
        started = self._clock.monotonic()
        try:
            # Before the look-up: a fence that is remembered later follows a later loss of Redis.
            await self._cache.confirm_raised()
            losses = self._cache.losses
            fences = await self._fences.unraised(FENCES_PER_RUN)
            for part in Part:
                versions = {one.user_id: one.version for one in fences if one.part is part}
                await self._cache.raise_fences(part, versions)
        except RedisUnavailable:
            return RaisedFences(0, is_held_up=True)
        except UNAVAILABLE:
            # No process can keep an invalidation either.
            self._cache.trust_on(started)
            raise
        if fences:
            await self._fences.forget_raised(fences)
        has_more = len(fences) == FENCES_PER_RUN
        if not has_more:
            self._cache.trust(losses, started + self._trusted_seconds)
        return RaisedFences(len(fences), has_more=has_more)

    async def _keep(self, part: Part, versions: Mapping[UserId, int]) -> None:
        await self._fences.remember_unraised(part, versions)
        metrics.FENCES_UNRAISED.inc(len(versions))
