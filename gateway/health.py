"""Whether the gateway lives, and whether it can do its work."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc.aio
from fastapi import Request, Response
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError

from servicekit import deadline
from servicekit.errors import ServiceError

CHECK_SECONDS = 1.0


class Dependency(BaseModel):
    """One thing the gateway calls."""

    reachable: bool
    required: bool = Field(description="Whether the gateway is not ready without it.")
    state: str = Field(description="What it says of itself, or why it could not be asked.")


class Readiness(BaseModel):
    """Whether requests should be sent here."""

    ready: bool
    dependencies: dict[str, Dependency]


@dataclass(frozen=True, slots=True)
class Check:
    """A question to one dependency; returns its state or raises."""

    ask: Callable[[], Awaitable[str]]
    required: bool


class HealthRoutes:
    """The endpoints that orchestrators ask."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._draining = False

    async def drain(self) -> None:
        """Be unready from now on."""
        self._draining = True

    async def live(self) -> dict[str, str]:
        """Say that the process answers; asks nobody else."""
        return {"status": "live"}

    async def ready(self, request: Request, response: Response) -> Readiness:
        """Ask everything the gateway calls; 503 when something required does not answer."""
        names = tuple(self._checks)
        found = await asyncio.gather(*(_asked(self._checks[name]) for name in names))
        ready = not self._draining and all(d.reachable for d in found if d.required)
        response.status_code = 200 if ready else 503
        return Readiness(ready=ready, dependencies=dict(zip(names, found, strict=True)))


def service_check(channel: grpc.aio.Channel) -> Check:
    """Return a required check that a service answers; it may call itself not serving.

    One that cannot reach its database still answers reads from its cache, so only its silence
    makes the gateway unready.
    """
    stub = health_pb2_grpc.HealthStub(channel)

    async def ask() -> str:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)).lower()

    return Check(ask, required=True)


def redis_check(redis: Redis) -> Check:
    """Return a check of Redis, without which events and rate limits rest but calls go on."""

    async def ask() -> str:
        await redis.ping()
        return "serving"

    return Check(ask, required=False)


async def _asked(check: Check) -> Dependency:
    try:
        with deadline.limit(CHECK_SECONDS):
            async with asyncio.timeout(CHECK_SECONDS):
                state = await check.ask()
    except ServiceError as error:
        return Dependency(reachable=False, required=check.required, state=error.reason)
    except (RedisError, OSError, TimeoutError) as error:
        return Dependency(reachable=False, required=check.required, state=type(error).__name__)
    return Dependency(reachable=True, required=check.required, state=state)
