"""A queue in the test's process, beside a double of user_context."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from dialler.queue.v1 import queue_pb2_grpc
from pydantic import SecretStr

from servicekit.client import connect
from servicekit.clock import Clock
from services.queue.app import build
from services.queue.settings import QueueSettings
from tests.fakes.upstreams import serving_doubles
from tests.fakes.user_context import FakeUserContext


@dataclass
class RunningQueue:
    """A queue service that serves, with the main app beside it."""

    stub: "queue_pb2_grpc.QueueServiceAsyncStub"
    main_app: FakeUserContext
    settings: QueueSettings


_PATIENT = {
    "drain_seconds": 0.0,
    "default_deadline_seconds": 10.0,
    "live_check_seconds": 5.0,
    "redis_timeout_seconds": 5.0,
    "statement_timeout_seconds": 10.0,
}


@asynccontextmanager
async def running_queue(
    postgres_url: str,
    redis_url: str,
    *,
    clock: Clock | None = None,
    main_app: FakeUserContext | None = None,
    **settings: Any,
) -> AsyncIterator[RunningQueue]:
    """Run a queue on a migrated database beside a main app, and yield a client of it.

    The client does not retry, so that a test sees the first answer. Time limits are longer than
    the service's own, so that a pause of the machine is not taken for an outage.
    """
    fake = main_app or FakeUserContext()  # type: ignore[abstract]
    async with serving_doubles(user_context=fake) as (target,):
        chosen = QueueSettings(
            postgres_url=SecretStr(postgres_url),
            redis_url=SecretStr(redis_url),
            user_context_target=target,
            **(_PATIENT | settings),
        )
        service = build(chosen, clock)
        await service.start()
        channel = connect(
            service.address, name="queue", default_timeout_seconds=10.0, retry_codes=()
        )
        try:
            yield RunningQueue(queue_pb2_grpc.QueueServiceStub(channel), fake, chosen)
        finally:
            await channel.close(None)
            await service.stop()
