"""The gateway's reads of cached contexts, beside a bare pass-through and two Node.js servers.

One process each. All sides are driven in turn, so that the machine's moods meet them alike. What
a core is worth is told by the CPU that a request costs the process that answers it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis.asyncio

from bench.http_load import LoadConnection, request_bytes
from bench.load import CallLoad, cpu_seconds, drive
from bench.measurement import ROUNDS, BenchResult, load_average, summarise
from devstack.processes import ChildProcess, DidNotStart, find_program, free_port, wait_until
from devstack.stack import Stack
from gateway.token import development_token

IN_FLIGHT = 32
PEOPLE = 200
SECONDS = 2.0
NODE = Path(__file__).parent / "node"
# A bench asks more than any agent may; nothing is switched off.
ENVIRONMENT = {
    "GATEWAY_SERVICE_RATE_LIMIT_PER_SECOND": "1000000",
    "GATEWAY_ADDRESS_RATE_LIMIT_PER_SECOND": "1000000",
}


@dataclass
class JsonSide:
    """One server: where it listens, what is sent, what it has cost."""

    port: int
    pid: int
    requests: Sequence[bytes]
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    async def round(self) -> None:
        """Drive it for a while."""
        connections = [await LoadConnection.open(self.port) for _ in range(IN_FLIGHT)]
        idle = list(connections)

        async def one(number: int) -> None:
            connection = idle.pop()
            await connection.get(self.requests[number % len(self.requests)])
            idle.append(connection)

        before = cpu_seconds(self.pid)
        load: CallLoad = await drive(one, in_flight=IN_FLIGHT, seconds=SECONDS)
        self.rates.append(load.rate)
        self.costs.append((cpu_seconds(self.pid) - before) / load.calls * 1e6)
        for connection in connections:
            connection.close()


async def measure(stack: Stack) -> list[BenchResult]:
    """Rates and CPU of the gateway beside the bare pass-through's and Node's."""
    token = development_token(stack.addresses.jwt_secret, "service", "bench")
    headers = {"Authorization": f"Bearer {token}"}
    paths = await _warm(stack, headers)
    plain = [request_bytes(path) for path in paths]
    bare_port = free_port()
    bare = _python_peer(stack, bare_port)
    logs = stack.folder / "logs"
    peers = {
        "node_grpc": _NodeProcess("grpc_server", stack.addresses.grpc["user_context"], logs),
        "node": _NodeProcess("server", stack.addresses.redis, logs),
    }
    try:
        bare.start()
        bare.wait_ready(lambda: _answers(bare_port, paths[0]))
        for peer in peers.values():
            peer.start(paths[0])
        gateway_port = int(stack.addresses.gateway.rpartition(":")[2])
        with_token = [request_bytes(path, **headers) for path in paths]
        sides = {
            "gateway": JsonSide(gateway_port, stack.services["gateway"].pid, with_token),
            "bare": JsonSide(bare_port, bare.pid, plain),
        }
        sides |= {
            name: JsonSide(peer.port, peer.pid, plain) for name, peer in peers.items() if peer.pid
        }
        for side in sides.values():
            # Connections, caches and just-in-time compilers are not what is measured.
            await side.round()
            side.rates.clear()
            side.costs.clear()
        for _ in range(ROUNDS):
            for side in sides.values():
                await side.round()
    finally:
        for peer in peers.values():
            peer.stop()
        bare.stop()
    return _results(sides)


PEERS = {
    "bare": "a bare Starlette route making the same gRPC call",
    "node_grpc": "Node.js, fastify and @grpc/grpc-js, making the same gRPC call",
    "node": "Node.js, fastify and ioredis, the same JSON from the same Redis",
}


def _results(sides: Mapping[str, JsonSide]) -> list[BenchResult]:
    ours = sides["gateway"]
    conditions = f"{IN_FLIGHT} in flight, one process each, load {load_average()}"
    found = []
    for short, floor_name in PEERS.items():
        floor = sides.get(short)
        if floor is None:
            continue
        found += [
            summarise(
                f"context_json_{short}",
                ours.rates,
                floor.rates,
                unit="requests/s",
                conditions=conditions,
                floor_name=floor_name,
            ),
            summarise(
                f"context_json_{short}_cpu",
                ours.costs,
                floor.costs,
                unit="µs of that process's CPU a request",
                conditions=conditions,
                floor_name=floor_name,
            ),
        ]
    return found


async def _warm(stack: Stack, headers: dict[str, str]) -> list[str]:
    """Have contexts cached, and put the same JSON where Node finds it."""
    paths: list[str] = []
    async with (
        httpx.AsyncClient(base_url=stack.addresses.gateway, headers=headers) as client,
        redis.asyncio.Redis.from_url(stack.addresses.redis) as store,
    ):
        user_id = 0
        while len(paths) < PEOPLE:
            user_id += 1
            path = f"/v1/people/{user_id}/context"
            response = await client.get(path)
            if response.status_code == httpx.codes.OK:
                await store.set(f"bench:json:{user_id}", response.content, ex=3600)
                paths.append(path)
    return paths


def _python_peer(stack: Stack, port: int) -> ChildProcess:
    arguments = (str(port), stack.addresses.grpc["user_context"])
    log = stack.folder / "logs" / "bare_gateway.log"
    return ChildProcess("bare gateway", "bench.bare_gateway", log, arguments=arguments)


def _answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=2.0).is_success
    except httpx.TransportError:
        return False


class _NodeProcess:
    """A peer in Node.js; stays out of it, with pid 0, where there is no Node.js."""

    def __init__(self, script: str, address: str, logs: Path) -> None:
        self.port = free_port()
        self._command = [str(NODE / f"{script}.mjs"), str(self.port), address]
        self._log = logs / f"node_{script}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self, path: str) -> None:
        node, npm = find_program("node"), find_program("npm")
        if node is None or npm is None:
            print("Node.js or npm is not installed: measured without that peer.")
            return
        if not (NODE / "node_modules" / "@grpc").exists():
            self._install(npm)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([node, *self._command], stdout=log, stderr=log)
        wait_until(
            lambda: _answers(self.port, path), seconds=20.0, what=f"{self._log.stem} to answer"
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @staticmethod
    def _install(npm: str) -> None:
        command = [npm, "ci", "--no-audit", "--no-fund", "--prefix", str(NODE)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            shutil.rmtree(NODE / "node_modules", ignore_errors=True)
            raise DidNotStart("npm could not install the packages of bench/node")
