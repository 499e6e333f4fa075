"""2,000 event streams on one gateway process, beside a bare Starlette loop that does the same."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio
from dialler.model.v1 import call_state_pb2, event_pb2

from bench.load import cpu_seconds
from bench.measurement import ROUNDS, BenchResult, load_average, percentile, summarise
from bench.sse_crowd import Crowd
from devstack.processes import ChildProcess, free_port
from devstack.stack import Stack, wait_until
from gateway.token import development_token
from servicekit.event_stream import EventStream

CLIENTS = 2_000
BURST = 40
# Of a steady trickle: far below what either can bear, so that waiting does not hide the rest.
PACED_PER_SECOND = 2.0
PACED = 6
BARE_STREAM = "bench:events"


@dataclass
class StreamSide:
    """One server, the streams open to it, and what was measured."""

    pid: int
    stream: EventStream
    crowd: Crowd = field(default_factory=Crowd)
    bytes_per_client: float = 0.0
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


async def measure(stack: Stack) -> list[BenchResult]:
    """Deliveries a second of bursts, CPU for each, delays at a trickle, memory for each client."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port = int(stack.addresses.gateway.rpartition(":")[2])
    async with redis.asyncio.Redis.from_url(stack.addresses.redis) as client, _bare(stack) as bare:
        ours = StreamSide(stack.services["gateway"].pid, EventStream(client))
        floor = StreamSide(bare.pid, EventStream(client, BARE_STREAM))
        sides = ((floor, int(bare.arguments[0])), (ours, port))
        try:
            for side, number in sides:
                await _open(side, number, stack)
            for _ in range(ROUNDS):
                for side, _port in sides:
                    await _burst(side)
                    await _trickle(side)
        finally:
            for side, _port in sides:
                side.crowd.close()
    return _results(ours, floor)


async def _open(side: StreamSide, port: int, stack: Stack) -> None:
    before = _memory(side.pid)
    # Several subjects, since a token may open only so many streams a second.
    tokens = [
        development_token(stack.addresses.jwt_secret, "supervisor", f"wall-{n}") for n in range(50)
    ]
    head = "GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n"
    requests = (head.format(tokens[n % len(tokens)]).encode() for n in range(CLIENTS))
    await side.crowd.open(port, requests)
    # A first event finds whatever is made when it is first needed.
    await _publish(side, 1)
    side.bytes_per_client = (_memory(side.pid) - before) / CLIENTS


async def _burst(side: StreamSide) -> None:
    cpu = cpu_seconds(side.pid)
    began = time.monotonic()
    ended = await _publish(side, BURST)
    deliveries = CLIENTS * BURST
    side.rates.append(deliveries / (ended - began))
    side.costs.append((cpu_seconds(side.pid) - cpu) / deliveries * 1e6)


async def _trickle(side: StreamSide) -> None:
    side.crowd.expect(CLIENTS * PACED)
    for _ in range(PACED):
        await side.stream.publish([_event()])
        await asyncio.sleep(1 / PACED_PER_SECOND)
    await side.crowd.arrived()
    side.p50.append(percentile(side.crowd.delays, 0.5) * 1000)
    side.p99.append(percentile(side.crowd.delays, 0.99) * 1000)


async def _publish(side: StreamSide, events: int) -> float:
    side.crowd.expect(CLIENTS * events)
    for _ in range(events):
        await side.stream.publish([_event()])
    ended = await side.crowd.arrived()
    assert side.crowd.lost == 0, f"{side.crowd.lost} streams ended"
    return ended


def _event() -> event_pb2.Event:
    event = event_pb2.Event(
        event_id=f"at-{time.monotonic_ns()}",
        type=event_pb2.EVENT_TYPE_ENTRY_MOVED,
        user_id=4711,
        queue_before=call_state_pb2.QUEUE_UNSIGNED_USERS,
        state=call_state_pb2.ENTRY_STATE_OUT,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    event.timeline.committed_at.GetCurrentTime()
    event.timeline.applied_at.GetCurrentTime()
    return event


def _memory(pid: int) -> int:
    """Return the private memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise ValueError("the kernel does not tell the process's memory")


@asynccontextmanager
async def _bare(stack: Stack) -> AsyncIterator[ChildProcess]:
    arguments = (str(free_port()), stack.addresses.redis)
    log = stack.folder / "logs" / "bare_sse.log"
    process = ChildProcess("bare SSE", "bench.bare_sse", log, arguments=arguments)
    process.start()
    try:
        await asyncio.to_thread(
            wait_until, lambda: _listens(int(arguments[0])), 30.0, "the bare SSE server"
        )
        yield process
    finally:
        process.stop()


def _listens(port: int) -> bool:
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return any(it.split()[1].endswith(wanted) and it.split()[3] == "0A" for it in lines)


def _results(ours: StreamSide, floor: StreamSide) -> list[BenchResult]:
    load = load_average()
    burst = f"{CLIENTS} clients of one process, {BURST} events at once; load {load}"
    trickle = f"{CLIENTS} clients, {PACED_PER_SECOND:g} events a second; load {load}"
    bare = "Starlette's StreamingResponse on uvicorn, a queue for each client"
    rows = (
        ("sse_clients", ours.rates, floor.rates, "deliveries/s", burst),
        ("sse_clients_cpu", ours.costs, floor.costs, "µs of server CPU a delivery", burst),
        ("sse_clients_p50", ours.p50, floor.p50, "ms", trickle),
        ("sse_clients_p99", ours.p99, floor.p99, "ms", trickle),
        (
            "sse_clients_memory",
            [ours.bytes_per_client / 1024],
            [floor.bytes_per_client / 1024],
            "KiB a client",
            f"{CLIENTS} clients, one event sent",
        ),
    )
    return [
        summarise(name, mine, theirs, unit=unit, conditions=conditions, floor_name=bare)
        for name, mine, theirs, unit, conditions in rows
    ]
