"""Invalidations of the queue's part, and those the cache could not be told of at the time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from servicekit.errors import DeadlineExceeded, Unavailable
from services.user_context import metrics
from services.user_context.cache import ContextCache
from services.user_context.domain import Part, UserId
from services.user_context.redis_link import RedisAway
from services.user_context.store import OwnStore

FENCES_PER_RUN = 500


@dataclass(frozen=True, slots=True)
class Raised:
    """What one run has caught up with."""

    raised: int
    has_more: bool


class Invalidations:
    """Sees that every invalidation reaches the cache, at once or as soon as it is back."""

    def __init__(self, cache: ContextCache, own: OwnStore) -> None:
        self._cache = cache
        self._own = own

    async def invalidate_call_states(self, versions: Mapping[UserId, int]) -> None:
        """Distrust what the cache has of older call states.

        Raises Unavailable (CACHE_UNAVAILABLE) when it can neither be done nor be kept for later.
        """
        try:
            await self._cache.raise_fences(Part.CALL, versions)
        except RedisAway:
            await self._keep(versions)

    async def run_once(self, now: datetime) -> Raised:
        """Raise fences that could not be raised before. Raises RedisAway, ServiceError."""
        del now
        fences = await self._own.unraised(FENCES_PER_RUN)
        for part in Part:
            versions = {one.user_id: one.version for one in fences if one.part is part}
            await self._cache.raise_fences(part, versions)
        if fences:
            await self._own.forget_raised(fences)
        return Raised(len(fences), has_more=len(fences) == FENCES_PER_RUN)

    async def _keep(self, versions: Mapping[UserId, int]) -> None:
        try:
            await self._own.remember_unraised(Part.CALL, versions)
        except (Unavailable, DeadlineExceeded) as error:
            raise Unavailable(
                "CACHE_UNAVAILABLE",
                "the cache cannot be told now, and neither can it be kept for later",
                retry_after_seconds=1.0,
            ) from error
        metrics.count_unraised(len(versions))
