"""Rate limits: requests a second of one caller, counted in Redis for all replicas together."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from prometheus_client import Counter
from redis.exceptions import RedisError

from servicekit.clock import Clock
from servicekit.errors import Exhausted
from servicekit.redis_client import RedisClient

# After a failure Redis is not called for so long.
PAUSE_SECONDS = 1.0
DRAW_SECONDS = 1.0
# A replica draws at most a tenth of the limit at once, so that replicas do not starve each other.
LARGEST_DRAW_SHARE = 10
MOST_CALLERS = 10_000

_REFUSED = Counter("dialler_gateway_rate_limited", "Requests refused with 429.")
_UNCOUNTED = Counter(
    "dialler_gateway_rate_limit_failed_open", "Requests admitted because Redis did not answer."
)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Draw:
    """Permits of one caller that were drawn from Redis and are not used yet."""

    left: int = 0
    size: int = 0
    expires_at: float = 0.0
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Storage(RedisStorage):
    """Counts through the given client, of a cluster too: the keys of a caller have one tag."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        super().__init__("async+redis://", implementation="redispy", key_prefix="dialler:rate")

    def configure_bridge(self) -> None:
        bridge: Any = self.bridge
        bridge.connection_getter = lambda _: self._redis


class RateLimiter:
    """Refuses callers above their rate; admits every caller while Redis does not answer.

    A busy caller's permits are drawn several at a time, twice as many each time, so that Redis is
    not called for each request; drawn permits expire after a second.
    """

    def __init__(
        self,
        redis: RedisClient,
        clock: Clock,
        *,
        per_second: int,
        service_per_second: int,
        address_per_second: int,
    ) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(_Storage(redis))
        self._limits = {
            False: RateLimitItemPerSecond(per_second),
            True: RateLimitItemPerSecond(service_per_second),
        }
        self._address_limit = RateLimitItemPerSecond(address_per_second)
        self._clock = clock
        self._draws: dict[str, _Draw] = {}
        self._silent_until = 0.0

    async def take_address(self, address: str) -> None:
        """Count one request of an address, of any caller; raises Exhausted as `take` does."""
        # No subject begins with @.
        await self._take(f"@{address}", self._address_limit)

    async def take(self, subject: str, *, is_service: bool) -> None:
        """Count one request; raises Exhausted (RATE_LIMITED) if it is one too many."""
        await self._take(subject, self._limits[is_service])

    async def _take(self, subject: str, limit: RateLimitItemPerSecond) -> None:
        draw = self._draws.get(subject)
        if draw is None:
            if len(self._draws) >= MOST_CALLERS:
                self._draws.clear()
            draw = self._draws[subject] = _Draw()
        if draw.left > 0 and draw.expires_at > self._clock.monotonic():
            draw.left -= 1
            return
        async with draw.drawing:
            now = self._clock.monotonic()
            if draw.left > 0 and draw.expires_at > now:
                draw.left -= 1
                return
            if now < self._silent_until:
                _UNCOUNTED.inc()
                return
            try:
                await self._from_redis(subject, draw, limit)
            except (RedisError, OSError, TimeoutError) as error:
                _UNCOUNTED.inc()
                if self._clock.monotonic() >= self._silent_until:
                    _log.warning("rate_limit_unavailable", extra={"error": type(error).__name__})
                self._silent_until = self._clock.monotonic() + PAUSE_SECONDS

    async def _from_redis(self, subject: str, draw: _Draw, limit: RateLimitItemPerSecond) -> None:
        now = self._clock.monotonic()
        busy = draw.expires_at > now
        size = min(draw.size * 2, limit.amount // LARGEST_DRAW_SHARE) if busy else 1
        for cost in sorted({max(1, size), 1}, reverse=True):
            if await self._limiter.hit(limit, subject, cost=cost):
                draw.left, draw.size = cost - 1, cost
                draw.expires_at = now + DRAW_SECONDS
                return
        draw.left = draw.size = 0
        _REFUSED.inc()
        raise Exhausted(
            "RATE_LIMITED",
            f"more than {limit.amount} requests a second",
            retry_after_seconds=1.0,
            limit_per_second=str(limit.amount),
        )
