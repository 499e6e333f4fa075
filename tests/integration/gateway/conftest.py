"""A gateway on a free port in front of fakes, with a Redis of its own world."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.fakes.running_gateway import RunningGateway, running_gateway

Start = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """Starts gateways with changed settings; all are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def started(**changes: Any) -> RunningGateway:
            url = changes.pop("redis_url", redis_url)
            return await stack.enter_async_context(running_gateway(url, changes))

        yield started


@pytest.fixture
async def gateway(start: Start) -> RunningGateway:
    """One with the default settings."""
    return await start()


@pytest.fixture
async def http(gateway: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
        yield client


@pytest.fixture
async def agent(gateway: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of agent-1."""
    headers = gateway.headers("agent", "agent-1")
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=10) as client:
        yield client


@pytest.fixture
async def supervisor(gateway: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of supervisor-1."""
    headers = gateway.headers("supervisor", "supervisor-1")
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=10) as client:
        yield client
