"""A Redis that refuses writes is left; what it would still answer is not believed."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from devstack.servers import Redis
from gateway.access.person_access import FoundPeople
from servicekit.errors import Unavailable
from servicekit.redis_client import redis_client
from tests.fakes import waiting
from tests.fakes.proxy import FaultProxy

pytestmark = pytest.mark.integration


@pytest.fixture
def successor(servers_folder: Path) -> Iterator[Redis]:
    server = Redis(Path(tempfile.mkdtemp(dir=servers_folder)))
    server.start()
    yield server
    server.discard()


@pytest.fixture
async def name(own_redis: Redis) -> AsyncIterator[FaultProxy]:
    """A name that leads to `own_redis` until it is told otherwise."""
    async with FaultProxy(own_redis.host, own_redis.port) as proxy:
        yield proxy


def _demote(old: Redis, new: Redis, name: FaultProxy) -> None:
    name.lead_to(new.host, new.port)
    old.ask("REPLICAOF", new.host, str(new.port))


async def test_readiness_names_what_redis_refuses_with(start: Any, own_redis: Redis) -> None:
    gateway = await start(redis_url=own_redis.url())
    own_redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        response = await client.get("/readyz")
        told = response.json()["dependencies"]["redis"]
        assert (response.status_code, told["reachable"], told["state"]) == (
            200,
            False,
            "NOREPLICAS",
        )
        own_redis.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        assert (await client.get("/readyz")).json()["dependencies"]["redis"]["reachable"]


async def test_whom_an_agent_has_found_is_asked_of_the_server_that_leads(
    own_redis: Redis, successor: Redis, name: FaultProxy
) -> None:
    client = redis_client(f"redis://{name.host}:{name.port}/0", timeout_seconds=5.0)
    found = FoundPeople(client, 600)
    await found.remember("agent-1", [7])
    _demote(own_redis, successor, name)

    assert not await found.holds("agent-1", 7)
    await found.remember("agent-1", [8])
    assert await found.holds("agent-1", 8)
    successor.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(Unavailable):
        await found.holds("agent-1", 8)
    await client.aclose()


async def test_requests_are_counted_again_after_a_fail_over(
    start: Any, own_redis: Redis, successor: Redis, name: FaultProxy
) -> None:
    gateway = await start(redis_url=f"redis://{name.host}:{name.port}/0", rate_limit_per_second=1)
    headers = gateway.headers("agent", "agent-1")
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:

        async def is_limited() -> bool:
            return 429 in [(await client.get("/v1/queues")).status_code for _ in range(5)]

        async def until_limited() -> None:
            async with waiting.limit(15):
                while not await is_limited():
                    pass

        await until_limited()
        _demote(own_redis, successor, name)
        # Permits drawn before lapse within a second.
        await asyncio.sleep(1.1)
        await until_limited()
