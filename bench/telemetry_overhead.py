"""The same calls to one service without telemetry, at the production sampling ratio, and at 100 %.

Three processes of user_context on the same servers; each round loads one after the other, so that
the machine's moods meet all alike. What is received is thrown away by a process of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
from dialler.user_context.v1 import user_context_pb2 as pb

from bench.load import cpu_seconds, drive
from bench.measurement import BenchResult, summarise
from devstack.processes import ChildProcess, free_port
from devstack.stack import Stack, is_serving, service_environment

SERVICE = "/dialler.user_context.v1.UserContextService"
IN_FLIGHT = 16
PEOPLE = 200
SECONDS = 0.7
ROUNDS = 25
OFF = "off"
# As deploy/k8s/components/collector samples.
PRODUCTION = 0.05
RATIOS: dict[str, float | None] = {OFF: None, "production": PRODUCTION, "all": 1.0}

RawCall = Callable[[bytes], Awaitable[bytes]]


@dataclass
class TelemetrySide:
    """One process of the service and what was measured of it."""

    process: ChildProcess
    target: str
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)


async def measure(stack: Stack) -> list[BenchResult]:
    """Rate and CPU of cached reads (a span each) and refreshes (a dozen each)."""
    results: list[BenchResult] = []
    with contextlib.ExitStack() as running:
        endpoint = running.enter_context(_sink(stack.folder))
        sides = {
            name: running.enter_context(_service(stack, name, ratio, endpoint))
            for name, ratio in RATIOS.items()
        }
        user_ids = await _people(sides[OFF].target)
        reads = [
            pb.GetUserContextRequest(user_id=it, view=pb.CONTEXT_VIEW_JSON).SerializeToString()
            for it in user_ids
        ]
        refreshes = [pb.RefreshUsersRequest(user_ids=[it]).SerializeToString() for it in user_ids]
        for name, method, requests in (
            ("read", "GetUserContext", reads),
            ("refresh", "RefreshUsers", refreshes),
        ):
            results += await _workload(name, method, requests, sides)
    return results


async def _workload(
    name: str, method: str, requests: list[bytes], sides: dict[str, TelemetrySide]
) -> list[BenchResult]:
    fresh = {key: replace(side, rates=[], costs=[]) for key, side in sides.items()}
    for _ in range(ROUNDS):
        for side in fresh.values():
            async with grpc.aio.insecure_channel(side.target) as channel:
                await _round(side, _raw(channel, f"{SERVICE}/{method}"), requests)
    results = []
    for key, side in fresh.items():
        if key == OFF:
            continue
        conditions = f"{method}, {IN_FLIGHT} in flight, {RATIOS[key]:.0%} sampled, OTLP to a sink"
        for figure, unit, ours, floor in (
            ("", "calls/s", side.rates, fresh[OFF].rates),
            ("_cpu", "µs of server CPU a call", side.costs, fresh[OFF].costs),
        ):
            results.append(
                summarise(
                    f"telemetry_overhead_{name}_{key}{figure}",
                    ours,
                    floor,
                    unit=unit,
                    conditions=conditions,
                    floor_name="the same without telemetry",
                )
            )
    return results


async def _round(side: TelemetrySide, call: RawCall, requests: list[bytes]) -> None:
    for request in requests:
        await call(request)
    before = cpu_seconds(side.process.pid)
    load = await drive(
        lambda number: call(requests[number % len(requests)]),
        in_flight=IN_FLIGHT,
        seconds=SECONDS,
    )
    side.rates.append(load.rate)
    side.costs.append((cpu_seconds(side.process.pid) - before) / load.calls * 1e6)


def _raw(channel: grpc.aio.Channel, method: str) -> RawCall:
    call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)

    async def run(request: bytes) -> bytes:
        answer: bytes = await call(request)
        return answer

    return run


async def _people(target: str) -> list[int]:
    async with grpc.aio.insecure_channel(target) as channel:
        call = _raw(channel, f"{SERVICE}/ListUserIds")
        request = pb.ListUserIdsRequest(page_size=PEOPLE).SerializeToString()
        return list(pb.ListUserIdsResponse.FromString(await call(request)).user_ids)


@contextlib.contextmanager
def _sink(folder: Path) -> Iterator[str]:
    port = free_port()
    process = ChildProcess(
        "otlp sink", "devstack.otlp", folder / "logs" / "otlp_sink.log", arguments=(str(port),)
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


@contextlib.contextmanager
def _service(
    stack: Stack, name: str, ratio: float | None, endpoint: str
) -> Iterator[TelemetrySide]:
    port = free_port()
    environment = service_environment("user_context", stack.addresses)
    environment["USER_CONTEXT_GRPC_PORT"] = str(port)
    if ratio is not None:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        environment["OTEL_TRACES_SAMPLER"] = "parentbased_traceidratio"
        environment["OTEL_TRACES_SAMPLER_ARG"] = str(ratio)
    log = stack.folder / "logs" / f"user_context_{name}.log"
    process = ChildProcess(name, "services.user_context", log, environment=environment)
    target = f"127.0.0.1:{port}"
    process.start()
    try:
        process.wait_ready(lambda: is_serving(target))
        yield TelemetrySide(process, target)
    finally:
        process.stop()
