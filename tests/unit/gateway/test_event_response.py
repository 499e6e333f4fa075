"""A client that takes nothing is cut off, whatever is sent to it and however little."""

import asyncio
from typing import Any

import pytest

from gateway.access.auth import Caller, Role
from gateway.live.clients import EventClient
from gateway.live.events import EventView
from gateway.live.sse import EventResponse, StreamTimeouts
from servicekit.clock import SystemClock

SCOPE: dict[str, Any] = {"type": "http"}


async def never(*_: Any) -> Any:
    await asyncio.Event().wait()


async def test_client_that_takes_nothing_is_cut_off() -> None:
    client = EventClient(EventView(Caller("boss", Role.SUPERVISOR, None, 0.0)), 10, None)
    client.begin()
    left: list[bool] = []
    timeouts = StreamTimeouts(setup_seconds=1.0, heartbeat_seconds=1.0, send_seconds=0.05)
    clock = SystemClock()
    ends_at = clock.monotonic() + 60.0
    response = EventResponse(client, never, lambda: left.append(True), timeouts, clock, ends_at)
    with pytest.raises(TimeoutError):
        await response(SCOPE, never, never)
    assert client.ended == "stuck"
    assert left == [True]


async def test_who_cancels_from_outside_is_heeded() -> None:
    client = EventClient(EventView(Caller("boss", Role.SUPERVISOR, None, 0.0)), 10, None)
    client.begin()
    timeouts = StreamTimeouts(setup_seconds=1.0, heartbeat_seconds=60.0, send_seconds=60.0)
    clock = SystemClock()
    sent = asyncio.Event()

    async def take(_message: Any) -> None:
        sent.set()

    response = EventResponse(client, never, lambda: None, timeouts, clock, clock.monotonic() + 60.0)
    task = asyncio.create_task(response(SCOPE, never, take))
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
