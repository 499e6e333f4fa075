"""A real gRPC server and client in the test's own process."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc.aio

from servicekit.client import connect
from servicekit.server import GrpcServer, Readiness, Register
from servicekit.settings import ServiceSettings


@asynccontextmanager
async def serving(
    register: Register,
    *,
    service_names: Sequence[str] = (),
    settings: ServiceSettings | None = None,
    name: str = "test",
    readiness: Readiness | None = None,
    default_timeout_seconds: float = 5.0,
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve what `register` adds on a free loopback port and yield a channel to it.

    The default settings stop without draining.
    """
    chosen = settings or ServiceSettings(drain_seconds=0.0)
    server = GrpcServer(chosen, name, register, service_names, readiness)
    await server.start()
    try:
        async with connect(
            server.address, name=name, default_timeout_seconds=default_timeout_seconds
        ) as channel:
            yield channel
    finally:
        await server.stop()
