"""Health, reflection and the graceful end of a server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from dialler.queue.v1 import queue_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from servicekit.client import connect
from servicekit.errors import Unavailable
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings
from tests.fakes import waiting

NAME = queue_pb2.DESCRIPTOR.services_by_name["QueueService"].full_name
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Flag:
    """A readiness check that can be turned."""

    def __init__(self) -> None:
        self.is_well = True

    async def check(self) -> None:
        if not self.is_well:
            raise ConnectionError("away")


def nothing(server: grpc.aio.Server) -> None:
    """Register no method."""


@asynccontextmanager
async def started(
    register: Callable[[grpc.aio.Server], None] = nothing,
    readiness: Mapping[str, Callable[[], Awaitable[object]]] | None = None,
    drain_seconds: float = 0.0,
) -> AsyncIterator[tuple[GrpcServer, grpc.aio.Channel]]:
    settings = ServiceSettings(drain_seconds=drain_seconds)
    server = GrpcServer(settings, "test", register, (NAME,), readiness)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield server, channel
    finally:
        await server.stop()


async def health(channel: grpc.aio.Channel, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


def watching(channel: grpc.aio.Channel, service: str) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service))


async def health_becomes(channel: grpc.aio.Channel, service: str, status: int) -> None:
    watch = watching(channel, service)
    async with waiting.limit(10):
        while (await watch.read()).status != status:
            pass
    watch.cancel()


async def test_without_checks_it_serves_at_once() -> None:
    async with started() as (_, channel):
        assert [await health(channel, name) for name in ("", NAME, "live")] == [SERVING] * 3


async def test_unknown_service_is_not_found() -> None:
    async with started() as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(channel, "no.such.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_readiness_follows_the_checks_and_liveness_does_not() -> None:
    first, second = Flag(), Flag()
    checks = {"first": first.check, "second": second.check}
    async with started(readiness=checks) as (_, channel):
        await health_becomes(channel, "", SERVING)
        second.is_well = False
        await health_becomes(channel, "", NOT_SERVING)
        assert await health(channel, NAME) == NOT_SERVING
        assert await health(channel, "live") == SERVING
        second.is_well = True
        await health_becomes(channel, NAME, SERVING)


async def test_check_that_hangs_counts_as_failed() -> None:
    hang = asyncio.Event()
    is_hanging = False

    async def check() -> None:
        if is_hanging:
            await hang.wait()

    async with started(readiness={"slow": check}) as (_, channel):
        await health_becomes(channel, "", SERVING)
        is_hanging = True
        await health_becomes(channel, "", NOT_SERVING)


async def test_reflection_lists_our_services() -> None:
    async with started() as (_, channel):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="*")])
        )
        answer = await call.read()
        call.cancel()
    names = {service.name for service in answer.list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= names


def registering(**handlers: Any) -> Callable[[grpc.aio.Server], None]:
    def register(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Bytes", handlers),)
        )

    return register


async def test_stopping_says_so_finishes_calls_and_takes_no_new_ones() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def hold(request: bytes, context: Any) -> bytes:
        entered.set()
        await release.wait()
        return b"done"

    register = registering(Hold=grpc.unary_unary_rpc_method_handler(hold))
    async with started(register, drain_seconds=10.0) as (server, channel):
        watch = watching(channel, "")
        assert (await watch.read()).status == SERVING
        held = channel.unary_unary("/test.Bytes/Hold", None, None)(b"", timeout=20)
        await entered.wait()
        stopping = asyncio.create_task(server.stop())
        assert (await watch.read()).status == NOT_SERVING
        async with grpc.aio.insecure_channel(server.address) as late:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await late.unary_unary("/test.Bytes/Hold", None, None)(b"", timeout=5)
        release.set()
        assert await held == b"done"
        async with waiting.limit(5):
            await stopping
    # CANCELLED where the connection was made just before the server said goodbye to it.
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_stopping_ends_streams_without_deadline_and_lets_others_finish() -> None:
    release = asyncio.Event()

    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await release.wait()
        yield b"second"

    register = registering(Watch=grpc.unary_stream_rpc_method_handler(watch))
    async with (
        started(register, drain_seconds=10.0) as (server, _),
        connect(server.address, name="test", default_timeout_seconds=5.0) as channel,
    ):
        method = channel.unary_stream("/test.Bytes/Watch", None, None)
        endless, finite = method(b""), method(b"", timeout=20)
        assert [await endless.read(), await finite.read()] == [b"first"] * 2
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(Unavailable, match="SERVER_STOPPING"):
            await endless.read()
        release.set()
        assert await finite.read() == b"second"
        async with waiting.limit(5):
            await stopping


async def test_stop_twice_does_nothing_more() -> None:
    async with started() as (server, _):
        await server.stop()
        await server.stop()


async def test_calls_are_spread_over_every_address_of_a_name() -> None:
    # As a headless Service's name gives them. The copies are told apart by what they say.
    flag = Flag()
    flag.is_well = False
    async with started() as (well, _), started(readiness={"it": flag.check}) as (unwell, _):
        target = f"ipv4:{well.address},{unwell.address}"
        async with connect(target, name="test", default_timeout_seconds=5.0) as channel:
            async with waiting.limit(10):
                seen: set[int] = set()
                while seen != {SERVING, NOT_SERVING}:
                    seen.add(await health(channel, ""))
            answers = [await health(channel, "") for _ in range(10)]
    assert sorted(answers) == sorted([SERVING, NOT_SERVING] * 5)
