"""Liveness and readiness of the gateway."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc.aio
from fastapi import Request, Response
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import BaseModel, Field
from redis.exceptions import RedisError

from servicekit import deadline
from servicekit.errors import ServiceError
from servicekit.redis_client import WRITE_CHECK, RedisClient, failure_code

CHECK_SECONDS = 1.0


class Dependency(BaseModel):
    """One service or store that the gateway calls."""

    reachable: bool
    required: bool = Field(description="Whether the gateway is not ready without it.")
    state: str = Field(description="Its own status, or why it did not answer.")


class Readiness(BaseModel):
    """Whether requests should be sent here."""

    ready: bool
    dependencies: dict[str, Dependency]


@dataclass(frozen=True, slots=True)
class Check:
    """A check of one dependency; `ask` returns its state or raises."""

    ask: Callable[[], Awaitable[str]]
    required: bool

    async def run(self) -> Dependency:
        """Return what the check finds, within `CHECK_SECONDS`."""
        try:
            with deadline.limit(CHECK_SECONDS):
                async with asyncio.timeout(CHECK_SECONDS):
                    state = await self.ask()
        except ServiceError as error:
            return Dependency(reachable=False, required=self.required, state=error.reason)
        except (RedisError, OSError, TimeoutError) as error:
            return Dependency(reachable=False, required=self.required, state=failure_code(error))
        return Dependency(reachable=True, required=self.required, state=state)


class HealthRoutes:
    """The endpoints for Kubernetes and load balancers."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._draining = False

    async def drain(self) -> None:
        """Answer that the gateway is not ready from now on."""
        self._draining = True

    async def live(self) -> dict[str, str]:
        """Say that the process answers; calls no dependency."""
        return {"status": "live"}

    async def ready(self, request: Request, response: Response) -> Readiness:
        """Check every dependency; 503 when a required one does not answer."""
        names = tuple(self._checks)
        found = await asyncio.gather(*(self._checks[name].run() for name in names))
        ready = not self._draining and all(d.reachable for d in found if d.required)
        response.status_code = 200 if ready else 503
        return Readiness(ready=ready, dependencies=dict(zip(names, found, strict=True)))


def service_check(channel: grpc.aio.Channel) -> Check:
    """Return a required check that a service answers, with whatever status.

    A service that cannot reach its database still answers reads from its cache, so only a missing
    answer makes the gateway unready.
    """
    stub = health_pb2_grpc.HealthStub(channel)

    async def ask() -> str:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)).lower()

    return Check(ask, required=True)


def redis_check(redis: RedisClient) -> Check:
    """Return a check of Redis; without Redis events and rate limits stop, calls go on."""

    async def ask() -> str:
        # A demoted or a full server still answers PING.
        await redis.lpushx(WRITE_CHECK[1], WRITE_CHECK[2])
        return "serving"

    return Check(ask, required=False)
