"""Cached contexts through gRPC, beside a server that answers from memory and beside bare Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import redis.asyncio
from dialler.user_context.v1 import user_context_pb2 as pb

from bench.load import cpu_seconds, drive
from bench.measurement import ROUNDS, BenchResult, summarise
from devstack.processes import ChildProcess, free_port
from devstack.stack import Stack

GET = "/dialler.user_context.v1.UserContextService/GetUserContext"
BATCH_GET = "/dialler.user_context.v1.UserContextService/BatchGetUserContexts"
IN_FLIGHT = 16
BATCH = 16
PEOPLE = 500
SECONDS = 2.0


@dataclass(frozen=True)
class Subjects:
    """The people read, as serialised requests, and what the service answers for one of them."""

    requests: list[bytes]
    batches: list[bytes]
    answer: bytes


RawCall = Callable[[bytes], Awaitable[bytes]]


def _raw(channel: grpc.aio.Channel, method: str) -> RawCall:
    """A call of bytes for bytes: what the client spends on protobuf is not what is measured."""
    call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)

    async def run(request: bytes) -> bytes:
        answer: bytes = await call(request)
        return answer

    return run


async def measure(stack: Stack) -> list[BenchResult]:
    """Rates and CPU of single reads, and the rate of batches of 16 beside bare MGET."""
    async with grpc.aio.insecure_channel(stack.addresses.grpc["user_context"]) as channel:
        subjects = await _warm(channel)
        with _memory_server(stack.folder, subjects.answer) as floor_process:
            singles = await _singles(stack, channel, floor_process, subjects)
        return [*singles, await _batches(stack, channel, subjects)]


def _each_in_turn(call: RawCall, requests: list[bytes]) -> Callable[[int], Awaitable[bytes]]:
    return lambda number: call(requests[number % len(requests)])


async def _warm(channel: grpc.aio.Channel) -> Subjects:
    listing = channel.unary_unary(
        "/dialler.user_context.v1.UserContextService/ListUserIds",
        request_serializer=pb.ListUserIdsRequest.SerializeToString,
        response_deserializer=pb.ListUserIdsResponse.FromString,
    )
    user_ids = (await listing(pb.ListUserIdsRequest(page_size=PEOPLE))).user_ids
    view = pb.CONTEXT_VIEW_JSON
    requests = [
        pb.GetUserContextRequest(user_id=each, view=view).SerializeToString() for each in user_ids
    ]
    batches = [
        pb.BatchGetUserContextsRequest(
            user_ids=user_ids[start : start + BATCH], view=view
        ).SerializeToString()
        for start in range(0, len(user_ids) - BATCH, BATCH)
    ]
    call = _raw(channel, GET)
    for request in requests:
        await call(request)
    answers = sorted([await call(request) for request in requests], key=len)
    return Subjects(requests, batches, answers[len(answers) // 2])


class _FloorProcess:
    def __init__(self, process: ChildProcess, port: int) -> None:
        self.process = process
        self.port = port

    def __enter__(self) -> _FloorProcess:
        self.process.start()
        target = f"127.0.0.1:{self.port}"

        def answers() -> bool:
            with grpc.insecure_channel(target) as channel:
                try:
                    probe = channel.unary_unary(
                        GET, request_serializer=bytes, response_deserializer=bytes
                    )
                    probe(b"", timeout=1.0)
                except grpc.RpcError:
                    return False
            return True

        self.process.wait_ready(answers)
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.stop()


def _memory_server(folder: Path, answer: bytes) -> _FloorProcess:
    path = folder / "answer.bin"
    path.write_bytes(answer)
    port = free_port()
    log = folder / "logs" / "memory_server.log"
    arguments = (str(port), str(path))
    process = ChildProcess("memory server", "bench.memory_server", log, arguments=arguments)
    return _FloorProcess(process, port)


async def _singles(
    stack: Stack, channel: grpc.aio.Channel, floor: _FloorProcess, subjects: Subjects
) -> list[BenchResult]:
    rates: dict[str, list[float]] = {"ours": [], "floor": []}
    costs: dict[str, list[float]] = {"ours": [], "floor": []}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{floor.port}") as floor_channel:
        sides = {
            "floor": (_raw(floor_channel, GET), floor.process.pid),
            "ours": (_raw(channel, GET), stack.services["user_context"].pid),
        }
        for _ in range(ROUNDS):
            for side, (call, pid) in sides.items():
                before = cpu_seconds(pid)
                load = await drive(
                    _each_in_turn(call, subjects.requests), in_flight=IN_FLIGHT, seconds=SECONDS
                )
                rates[side].append(load.rate)
                costs[side].append((cpu_seconds(pid) - before) / load.calls * 1e6)
    conditions = f"{IN_FLIGHT} in flight, JSON view, {len(subjects.answer)} bytes, all hits"
    floor_name = "grpc.aio server answering the same bytes from memory"
    return [
        summarise(
            "context_read",
            rates["ours"],
            rates["floor"],
            unit="calls/s",
            conditions=conditions,
            floor_name=floor_name,
        ),
        summarise(
            "context_read_cpu",
            costs["ours"],
            costs["floor"],
            unit="µs of server CPU a call",
            conditions=conditions,
            floor_name=floor_name,
        ),
    ]


@asynccontextmanager
async def _bare_redis(stack: Stack, subjects: Subjects) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(stack.addresses.redis, max_connections=IN_FLIGHT)
    keys = {f"bench:{number}": subjects.answer for number in range(PEOPLE)}
    await client.mset(keys)
    try:
        yield client
    finally:
        await client.delete(*keys)
        await client.aclose()


async def _batches(stack: Stack, channel: grpc.aio.Channel, subjects: Subjects) -> BenchResult:
    ours: list[float] = []
    floor: list[float] = []
    batch_get = _each_in_turn(_raw(channel, BATCH_GET), subjects.batches)
    async with _bare_redis(stack, subjects) as client:

        async def mget(number: int) -> object:
            start = number * BATCH % (PEOPLE - BATCH)
            return await client.mget([f"bench:{each}" for each in range(start, start + BATCH)])

        for _ in range(ROUNDS):
            load = await drive(mget, in_flight=IN_FLIGHT, seconds=SECONDS)
            floor.append(load.rate * BATCH)
            load = await drive(batch_get, in_flight=IN_FLIGHT, seconds=SECONDS)
            ours.append(load.rate * BATCH)
    return summarise(
        "context_read_batch_16",
        ours,
        floor,
        unit="contexts/s",
        conditions=f"{IN_FLIGHT} calls of {BATCH} in flight, JSON view, all hits",
        floor_name="MGET of 16 such values by redis-py, no gRPC",
    )
