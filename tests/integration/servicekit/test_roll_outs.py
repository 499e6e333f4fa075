"""Servers behind one name are replaced while calls are made: none of them fails."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest

from devstack.names import NameServer
from servicekit import client
from servicekit.client import connect
from servicekit.errors import Unavailable
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings

pytestmark = [pytest.mark.integration, pytest.mark.fault]

METHOD = "/test.Test/Echo"


Answer = Callable[[bytes, object], Awaitable[bytes]]


async def _echo(request: bytes, context: object) -> bytes:
    return request


def _free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


class CountingServer(GrpcServer):
    """A server of one method, which counts the calls that have reached it."""

    def __init__(self, settings: ServiceSettings, answer: Answer) -> None:
        self.calls = 0
        self._answer = answer
        super().__init__(settings, "test", self._add, ())

    def _add(self, server: grpc.aio.Server) -> None:
        async def counted(request: bytes, context: object) -> bytes:
            self.calls += 1
            return await self._answer(request, context)

        handler = grpc.unary_unary_rpc_method_handler(counted)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Test", {"Echo": handler}),)
        )


async def _start(host: str, port: int, answer: Answer = _echo) -> CountingServer:
    settings = ServiceSettings(bind_host=host, grpc_port=port, drain_seconds=2.0)
    server = CountingServer(settings, answer)
    await server.start()
    return server


async def test_no_call_fails_while_every_server_is_replaced() -> None:
    """As in a roll-out: a new server is in the name before an old one leaves it and ends."""
    port = _free_port()
    calls, is_over = 0, False

    async def call() -> None:
        nonlocal calls
        while not is_over:
            assert await echo(b"x") == b"x"
            calls += 1
            await asyncio.sleep(0.01)

    async with AsyncExitStack() as servers:
        names = servers.enter_context(NameServer())

        async def begin(host: str) -> GrpcServer:
            server = await _start(host, port)
            servers.push_async_callback(server.stop)
            return server

        hosts = ["127.0.0.2", "127.0.0.3"]
        running = [await begin(host) for host in hosts]
        names.addresses = hosts
        target = names.target("service.test", port)
        async with (
            connect(target, name="test", default_timeout_seconds=5.0) as channel,
            asyncio.TaskGroup() as callers,
        ):
            echo = channel.unary_unary(METHOD, None, None)
            for _ in range(10):
                callers.create_task(call())
            await asyncio.sleep(1.0)
            for host in ("127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7"):
                running.append(await begin(host))
                hosts = [*hosts[1:], host]
                names.addresses = hosts
                await running.pop(0).stop()
                await asyncio.sleep(1.5)
            is_over = True
    assert calls > 100
    # At the start, and once for each server that ended.
    assert names.asked >= 5


async def test_a_name_that_leads_nowhere_is_asked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a service's that waits for its database: gRPC by itself asks ever less often."""
    monkeypatch.setattr(client, "REPLACE_SECONDS", 0.1)
    port = _free_port()
    async with AsyncExitStack() as stack:
        names = stack.enter_context(NameServer())
        target = names.target("service.test", port)
        channel = await stack.enter_async_context(
            connect(target, name="test", default_timeout_seconds=5.0)
        )
        echo = channel.unary_unary(METHOD, None, None)
        # By itself it would have asked four times in as many seconds, and eight in forty.
        while names.asked < 8:
            with pytest.raises(Unavailable):
                await echo(b"x")
            await asyncio.sleep(0.05)
        server = await _start("127.0.0.8", port)
        names.addresses = ["127.0.0.8"]
        async with AsyncExitStack() as stopped:
            stopped.push_async_callback(server.stop)
            while True:
                with contextlib.suppress(Unavailable):
                    assert await echo(b"x") == b"x"
                    break
                await asyncio.sleep(0.05)


UNREACHABLE = grpc.aio.AioRpcError(
    grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "no server", ""
)


async def test_calls_in_progress_outlive_the_replacement_of_their_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "REPLACE_SECONDS", 0.0)
    may_answer = asyncio.Event()

    async def answer_late(request: bytes, context: object) -> bytes:
        await may_answer.wait()
        return request

    port = _free_port()
    server = await _start("127.0.0.8", port, answer_late)
    try:
        async with connect(
            f"127.0.0.8:{port}", name="test", default_timeout_seconds=30.0
        ) as channel:
            echo: Any = channel.unary_unary(METHOD, None, None)
            asked = asyncio.create_task(echo(b"x"))
            while not server.calls:  # noqa: ASYNC110 - a counter notifies no waiter
                await asyncio.sleep(0.01)
            failing: Any = channel
            for _ in range(3):
                failing.failed(UNREACHABLE)
            after = asyncio.create_task(echo(b"y"))
            while server.calls < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            may_answer.set()
            assert (await asked, await after) == (b"x", b"y")
    finally:
        await server.stop()


async def test_a_server_that_answers_that_another_is_unreachable_keeps_its_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "REPLACE_SECONDS", 0.0)

    async def relay(request: bytes, context: object) -> bytes:
        raise Unavailable("UPSTREAM_UNAVAILABLE", "the queue cannot be reached")

    port = _free_port()
    server = await _start("127.0.0.8", port, relay)
    try:
        async with connect(
            f"127.0.0.8:{port}", name="test", default_timeout_seconds=5.0
        ) as channel:
            inner = vars(channel)["_inner"]
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await channel.unary_unary(METHOD, None, None)(b"x")
            assert vars(channel)["_inner"] is inner
    finally:
        await server.stop()
