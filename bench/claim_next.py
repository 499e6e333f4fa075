"""100 agents claiming, beside bare `FOR UPDATE SKIP LOCKED` plus a primary-key read."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncmy
import asyncpg
import grpc
from dialler.model.v1 import call_state_pb2 as model
from dialler.queue.v1 import queue_pb2 as pb
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub
from sqlalchemy import make_url

from bench.load import Load, drive
from bench.measurement import ROUNDS, Result, percentile, summarise
from devstack.stack import Stack

AGENTS = 100
CONNECTIONS = 24
SECONDS = 4.0
QUEUES = (model.QUEUE_UNSIGNED_USERS, model.QUEUE_OUTSTANDING_REQUESTS)

_PREPARE = """
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.entries (user_id bigint PRIMARY KEY, state text, rank_key float8)
  WITH (fillfactor = 80);
INSERT INTO bench.entries SELECT user_id, 'READY', user_id FROM queue.entries;
CREATE INDEX ON bench.entries (rank_key, user_id DESC) WHERE state = 'READY';
ANALYZE bench.entries;
"""
_TAKE = """
SELECT user_id FROM bench.entries WHERE state = 'READY'
ORDER BY rank_key, user_id DESC LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_HOLD = "UPDATE bench.entries SET state = 'ASSIGNED' WHERE user_id = $1"
_GIVE_BACK = "UPDATE bench.entries SET state = 'READY' WHERE user_id = $1"
_READ = "SELECT id, is_enabled, status, current_signature_file_id FROM users WHERE id = %s"


@dataclass
class Claims:
    """Latencies of the claims alone, in seconds, and the rate of whole turns."""

    latencies: list[float] = field(default_factory=list)
    load: Load | None = None

    @property
    def rate(self) -> float:
        """Claims a second, the giving back between them included."""
        assert self.load is not None
        return self.load.rate


async def measure(stack: Stack) -> list[Result]:
    """Rate and latency of claims; each claimed person is given back at once, on both sides."""
    ours, floor = [], []
    async with _Floor.open(stack) as bare:
        for _ in range(ROUNDS):
            floor.append(await bare.run())
            ours.append(await _ours(stack))
    conditions = f"{AGENTS} agents, one copy, durable commits, each claim given back"
    floor_name = f"bare SKIP LOCKED + PK read, {CONNECTIONS} connections"
    rows = [
        ("claim_next", "claims/s", [o.rate for o in ours], [f.rate for f in floor]),
        *(
            (
                f"claim_next_{label}",
                "ms",
                [percentile(o.latencies, share) * 1000 for o in ours],
                [percentile(f.latencies, share) * 1000 for f in floor],
            )
            for label, share in (("p50", 0.5), ("p99", 0.99))
        ),
    ]
    return [
        summarise(name, mine, theirs, unit=unit, conditions=conditions, floor_name=floor_name)
        for name, unit, mine, theirs in rows
    ]


async def _ours(stack: Stack) -> Claims:
    claims = Claims()
    async with grpc.aio.insecure_channel(stack.addresses.grpc["queue"]) as channel:
        stub = QueueServiceStub(channel)
        agents = asyncio.Queue[str]()
        for number in range(AGENTS):
            agents.put_nowait(f"bench-{uuid.uuid4().hex[:6]}-{number}")

        async def turn(_number: int) -> None:
            agent_id = agents.get_nowait()
            began = time.perf_counter()
            answer = await stub.ClaimNext(
                pb.ClaimNextRequest(agent_id=agent_id, queues=QUEUES, request_id=str(uuid.uuid4())),
                timeout=10,
            )
            claims.latencies.append(time.perf_counter() - began)
            if not answer.HasField("assignment"):
                raise RuntimeError("the queues ran empty: start with more people")
            await stub.ReleaseAssignment(
                pb.ReleaseAssignmentRequest(
                    assignment_id=answer.assignment.assignment_id,
                    agent_id=agent_id,
                    reason=pb.RELEASE_REASON_AGENT_LEAVING,
                    request_id=str(uuid.uuid4()),
                ),
                timeout=10,
            )
            agents.put_nowait(agent_id)

        claims.load = await drive(turn, in_flight=AGENTS, seconds=SECONDS)
    return claims


class _Floor:
    """The least that any claim with a check must do, without gRPC or rules."""

    def __init__(self, postgres: asyncpg.Pool, mysql: asyncmy.Pool) -> None:
        self._postgres = postgres
        self._mysql = mysql

    @classmethod
    @asynccontextmanager
    async def open(cls, stack: Stack) -> AsyncIterator[_Floor]:
        address = stack.addresses.postgres.replace("+asyncpg", "")
        reader = make_url(stack.addresses.mysql_reader)
        async with (
            asyncpg.create_pool(address, min_size=CONNECTIONS, max_size=CONNECTIONS) as postgres,
            asyncmy.create_pool(
                host=reader.host,
                port=reader.port,
                user=reader.username,
                password=reader.password,
                db=reader.database,
                minsize=CONNECTIONS,
                maxsize=CONNECTIONS,
                autocommit=True,
            ) as mysql,
        ):
            await postgres.execute(_PREPARE)
            yield cls(postgres, mysql)
            await postgres.execute("DROP SCHEMA bench CASCADE")

    async def run(self) -> Claims:
        claims = Claims()

        async def turn(_number: int) -> None:
            began = time.perf_counter()
            user_id = await self._claim()
            claims.latencies.append(time.perf_counter() - began)
            await self._postgres.execute(_GIVE_BACK, user_id)

        claims.load = await drive(turn, in_flight=AGENTS, seconds=SECONDS)
        return claims

    async def _claim(self) -> int:
        async with self._postgres.acquire() as connection, connection.transaction():
            user_id: int = await connection.fetchval(_TAKE)
            await connection.execute(_HOLD, user_id)
        async with self._mysql.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(_READ, (user_id,))
            await cursor.fetchone()
        return user_id
