"""Figures of the last hour: a ring in this process, shared between replicas through Redis."""

import logging
from collections import deque
from typing import Any

import orjson
from redis.exceptions import RedisError

from servicekit.redis_client import RedisClient

HOUR_SECONDS = 3600
KEY = "dialler:wallboard:history"

_log = logging.getLogger(__name__)

Sample = dict[str, Any]


class History:
    """Samples of the last hour, oldest first.

    A restart of this process loses none while Redis keeps them; an emptied Redis loses those that
    this process has not read. The replicas take turns: there is one sample for each period, not
    one for each replica.
    """

    def __init__(self, redis: RedisClient, seconds: float) -> None:
        self._redis = redis
        self._turn_milliseconds = max(1, round(seconds * 900))
        self._most = max(1, round(HOUR_SECONDS / seconds))
        self._ring: deque[bytes] = deque(maxlen=self._most)

    async def add(self, sample: Sample) -> list[Sample]:
        """Store the sample if it is this replica's turn, and return all samples."""
        text = orjson.dumps(sample)
        try:
            turn = await self._redis.set(f"{KEY}:turn", b"", nx=True, px=self._turn_milliseconds)
            pipe = self._redis.pipeline(transaction=False)
            if turn:
                pipe.rpush(KEY, text)
                pipe.ltrim(KEY, -self._most, -1)
                pipe.expire(KEY, HOUR_SECONDS)
            pipe.lrange(KEY, 0, -1)
            kept: list[bytes] = (await pipe.execute())[-1]
            # Redis was emptied: restore the samples of this process.
            if turn and len(kept) == 1 and len(self._ring) > 1:
                kept = [*self._ring, text]
                await self._redis.lpush(KEY, *reversed(self._ring))
            self._ring = deque(kept, maxlen=self._most)
        except (RedisError, OSError):
            _log.warning("history_not_shared")
            self._ring.append(text)
        samples = [orjson.loads(each) for each in self._ring]
        oldest = sample["at"] - HOUR_SECONDS
        return [each for each in samples if each["at"] >= oldest]
