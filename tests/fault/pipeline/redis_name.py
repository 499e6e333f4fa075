"""The name of a Redis, which leads to another after a fail-over while open connections stay."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from devstack.servers import Redis
from devstack.stack import Addresses, Stack
from tests.fakes.proxy import FaultProxy


@contextlib.contextmanager
def redis_name() -> Iterator[FaultProxy]:
    """Yield a proxy that runs in a thread of its own and has no target yet."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = FaultProxy("127.0.0.1", 0)
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass
class NamedRedisStack(Stack):
    """A stack whose services connect to Redis by a name."""

    name: FaultProxy = field(kw_only=True)

    def _addresses(self) -> Addresses:
        self.lead_to(self.redis)
        url = f"redis://{self.name.host}:{self.name.port}/0"
        return dataclasses.replace(super()._addresses(), redis=url)

    def lead_to(self, redis: Redis) -> None:
        """Lead every new connection to this server."""
        self.name.lead_to(redis.host, redis.port)
