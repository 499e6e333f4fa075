"""Facts of 1, 100 and 10,000 people applied, beside a bare upsert of the same rows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import grpc
from dialler.model.v1 import facts_pb2
from dialler.queue.v1 import queue_pb2 as pb
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub

from bench.measurement import BenchResult, interleave, load_average
from devstack.stack import Stack

if TYPE_CHECKING:
    # In the stubs only.
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

# People, and calls in a round: a call of one is too short to be told by itself.
SIZES = ((1, 50), (100, 10), (10_000, 1))
# What the contract allows in a call: so many people are a transaction, on both sides.
PEOPLE_PER_CALL = 1_000
# No user of the main app, so that neither change capture nor the reconciler interferes.
FIRST_ID = 10_000_000


@dataclass(frozen=True)
class CopiedColumn:
    """A column of the queue's narrow rows."""

    name: str
    kind: str


async def measure(stack: Stack) -> list[BenchResult]:
    """Milliseconds until the last of so many people is durable; each has a new phone number."""
    address = stack.addresses.postgres.replace("+asyncpg", "")
    async with (
        grpc.aio.insecure_channel(stack.addresses.grpc["queue"]) as channel,
        asyncpg.create_pool(address, min_size=1, max_size=1) as pool,
        pool.acquire() as postgres,
    ):
        ours = _FactsOverGrpc(QueueServiceStub(channel))
        await ours.apply(max(people for people, _ in SIZES))
        async with _bare(postgres) as floor:
            results = [await _sized(ours, floor, people, calls) for people, calls in SIZES]
        await postgres.execute("DELETE FROM queue.entries WHERE user_id >= $1", FIRST_ID)
    return results


async def _sized(
    ours: _FactsOverGrpc, floor: _BareStatements, people: int, calls: int
) -> BenchResult:
    async def mine() -> float:
        return await ours.seconds(people, calls) / calls * 1000

    async def bare() -> float:
        return await floor.seconds(people, calls) / calls * 1000

    transactions = -(-people // PEOPLE_PER_CALL)
    return await interleave(
        f"apply_facts_{people}",
        mine,
        bare,
        unit="ms",
        conditions=(
            f"{people} known people whose phone number has changed, {transactions} transaction(s)"
            f" one after the other, durable; load {load_average()}"
        ),
        floor_name="bare upsert by unnest of the same rows, same transactions",
    )


class _FactsOverGrpc:
    """The queue service's ApplyUserFacts."""

    def __init__(self, stub: QueueServiceAsyncStub) -> None:
        self._stub = stub

    async def seconds(self, people: int, calls: int) -> float:
        """Return how long `calls` applications take, the making of their messages apart."""
        spent = 0.0
        for _ in range(calls):
            spent += await self.apply(people)
        return spent

    async def apply(self, people: int) -> float:
        """Apply facts that differ from those before; returns the seconds it took."""
        requests = [
            pb.ApplyUserFactsRequest(facts=[_facts(each) for each in ids]) for ids in _calls(people)
        ]
        began = time.perf_counter()
        for request in requests:
            answer = await self._stub.ApplyUserFacts(request, timeout=30)
            assert answer.applied == len(request.facts)
        return time.perf_counter() - began


def _calls(people: int) -> list[range]:
    last = FIRST_ID + people
    return [
        range(start, min(start + PEOPLE_PER_CALL, last))
        for start in range(FIRST_ID, last, PEOPLE_PER_CALL)
    ]


def _facts(user_id: int) -> facts_pb2.UserFacts:
    """A user with an outstanding document; the number is one of those reserved for drama."""
    version = time.time_ns()
    requirement = facts_pb2.RequirementFacts(
        requirement_id=f"bench-{user_id}", type="proof_of_address", status="PENDING"
    )
    claim = facts_pb2.ClaimFacts(claim_id=user_id, lender="Bench", requirements=[requirement])
    claim.created_at.FromSeconds(1_700_000_000)
    facts = facts_pb2.UserFacts(
        user_id=user_id,
        exists=True,
        version=version,
        fingerprint=version,
        is_enabled=True,
        has_signature=True,
        claims=[claim],
        phone_e164=_phone(version),
    )
    facts.created_at.FromSeconds(1_700_000_000)
    return facts


def _phone(version: int) -> str:
    return f"+447700900{version // 100 % 1000:03d}"


class _BareStatements:
    """An upsert of rows like the queue's into a table like it, with the same indexes."""

    def __init__(
        self, postgres: asyncpg.Connection, columns: Sequence[CopiedColumn], sql: str
    ) -> None:
        self._postgres = postgres
        self._columns = columns
        self._sql = sql

    async def seconds(self, people: int, calls: int) -> float:
        """Return how long `calls` upserts of so many people take, the making of arrays apart."""
        spent = 0.0
        for _ in range(calls):
            transactions = [await self._arrays(ids) for ids in _calls(people)]
            began = time.perf_counter()
            for arrays in transactions:
                await self._postgres.execute(self._sql, *arrays)
            spent += time.perf_counter() - began
        return spent

    async def _arrays(self, ids: range) -> list[list[object]]:
        # PostgreSQL would flatten arrays of arrays: such a column comes as the text of arrays.
        rows = await self._postgres.fetch(
            f"SELECT {', '.join(it.name for it in self._columns)} FROM bench.entries"
            " WHERE user_id BETWEEN $1 AND $2",
            ids[0],
            ids[-1],
        )
        changed: dict[str, Callable[[], object]] = {
            "phones": lambda: f"{{{_phone(time.time_ns())}}}",
            "lines": lambda: f"{{{_phone(time.time_ns())}}}",
            "facts_version": time.time_ns,
        }
        return [
            [changed[it.name]() if it.name in changed else row[it.name] for row in rows]
            for it in self._columns
        ]


@asynccontextmanager
async def _bare(postgres: asyncpg.Connection) -> AsyncIterator[_BareStatements]:
    await postgres.execute(
        """
        DROP SCHEMA IF EXISTS bench CASCADE;
        CREATE SCHEMA bench;
        CREATE TABLE bench.entries (LIKE queue.entries INCLUDING ALL);
        """
    )
    await postgres.execute(
        "INSERT INTO bench.entries SELECT * FROM queue.entries WHERE user_id >= $1", FIRST_ID
    )
    columns = [
        CopiedColumn(row["name"], row["kind"])
        for row in await postgres.fetch(
            """
            SELECT attname AS name, format_type(atttypid, atttypmod) AS kind FROM pg_attribute
            WHERE attrelid = 'bench.entries'::regclass AND attnum > 0 AND NOT attisdropped
                AND attgenerated = '' ORDER BY attnum
            """
        )
    ]
    yield _BareStatements(postgres, columns, _upsert(columns))
    await postgres.execute("DROP SCHEMA bench CASCADE")


_TEXTS = "text[]"


def _upsert(columns: Sequence[CopiedColumn]) -> str:
    names = ", ".join(it.name for it in columns)
    arrays = ", ".join(
        f"${place}::{'text' if it.kind == _TEXTS else it.kind}[]"
        for place, it in enumerate(columns, 1)
    )
    values = ", ".join(
        f"CAST({it.name} AS text[])" if it.kind == _TEXTS else it.name for it in columns
    )
    new = ", ".join(f"{it.name} = excluded.{it.name}" for it in columns if it.name != "user_id")
    return (
        f"INSERT INTO bench.entries ({names}) SELECT {values} FROM unnest({arrays})"
        f" AS given({names}) ON CONFLICT (user_id) DO UPDATE SET {new}"
    )
