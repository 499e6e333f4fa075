"""The queue rebuilt from nothing, beside a bare read of the same rows of MySQL plus COPY."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncmy
import asyncpg
import grpc
from asyncmy.cursors import SSCursor
from dialler.queue.v1 import queue_pb2 as pb
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub
from sqlalchemy import make_url

from bench.crowd import grow
from bench.measurement import BenchResult, load_average, summarise
from devstack.stack import Stack
from mainapp.description import ColumnType, Table, load

ROUNDS = 5
ROUNDS_OF_MANY = 3
MANY = 100_000
ROWS_AT_ONCE = 20_000
# The services that a rebuild needs; the others would only share the cores.
NEEDED = frozenset({"user_context", "queue"})
_KINDS = {
    ColumnType.UINT64: "bigint",
    ColumnType.BOOL: "smallint",
    ColumnType.TIMESTAMP: "timestamp",
    ColumnType.DATE: "date",
}
_EMPTY = """
TRUNCATE queue.entries, queue.person_phones, queue.placeholder_phones, queue.applied_facts,
    queue.conversions, queue.outbox,
    queue.stale_call_states CASCADE
"""


async def measure(stack: Stack, people: int) -> list[BenchResult]:
    """Seconds of a rebuild from nothing, and of the next, which finds nothing to change."""
    for name, process in stack.services.items():
        if name not in NEEDED:
            process.stop()
    await asyncio.to_thread(grow, stack, people)
    floor, new, same = [], [], []
    async with _open(stack) as (ours, bare):
        for _ in range(ROUNDS_OF_MANY if people > MANY else ROUNDS):
            floor.append(await bare.seconds())
            await bare.empty_queue()
            new.append(await ours.seconds(people_new=people))
            same.append(await ours.seconds(people_new=0))
    conditions = f"{people:,} people, {bare.rows:,} rows, durable; load {load_average()}"
    return [
        summarise(
            f"rebuild_{people}{name}",
            seconds,
            floor,
            unit="s",
            conditions=f"{what}, {conditions}",
            floor_name="bare read of the facts columns by asyncmy + COPY",
        )
        for name, what, seconds in (("", "from nothing", new), ("_same", "nothing to change", same))
    ]


class _RebuildOverGrpc:
    """The queue service's Rebuild."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = QueueServiceStub(channel)

    async def seconds(self, people_new: int) -> float:
        """Rebuild; returns how long it took until its last message."""
        began = time.perf_counter()
        last = pb.RebuildResponse()
        async for told in self._stub.Rebuild(pb.RebuildRequest(actor_id="bench"), timeout=900):
            last = told
        taken = time.perf_counter() - began
        if last.phase != pb.REBUILD_PHASE_DONE or last.people_new != people_new:
            raise RuntimeError(f"the rebuild did something else than asked: {last}")
        return taken


class _BareRebuild:
    """Every row from which facts are made, read and copied as it is."""

    def __init__(self, mysql: asyncmy.Connection, postgres: asyncpg.Connection) -> None:
        self._mysql = mysql
        self._postgres = postgres
        self._tables = {name: table for name, table in load().tables.items() if table.facts}
        self.rows = 0

    async def empty_queue(self) -> None:
        """Delete every entry, as if the service had just been installed."""
        await self._postgres.execute(_EMPTY)
        await self._postgres.execute("VACUUM ANALYZE queue.entries")

    async def seconds(self) -> float:
        """Read and copy all; returns how long it took, the making of the tables apart."""
        await self._postgres.execute("DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench")
        for name, table in self._tables.items():
            await self._postgres.execute(_create(name, table))
        began = time.perf_counter()
        self.rows = 0
        for name, table in self._tables.items():
            async with self._postgres.transaction():
                await self._copy(name, table)
        taken = time.perf_counter() - began
        await self._postgres.execute("DROP SCHEMA bench CASCADE")
        return taken

    async def _copy(self, name: str, table: Table) -> None:
        async with self._mysql.cursor(SSCursor) as cursor:
            await cursor.execute(f"SELECT {', '.join(table.facts)} FROM {name}")
            while rows := await cursor.fetchmany(ROWS_AT_ONCE):
                self.rows += len(rows)
                await self._postgres.copy_records_to_table(name, schema_name="bench", records=rows)


def _create(name: str, table: Table) -> str:
    columns = ", ".join(f"{it} {_KINDS.get(table.columns[it].type, 'text')}" for it in table.facts)
    return f"CREATE TABLE bench.{name} ({columns})"


@asynccontextmanager
async def _open(stack: Stack) -> AsyncIterator[tuple[_RebuildOverGrpc, _BareRebuild]]:
    reader = make_url(stack.addresses.mysql_reader)
    address = stack.addresses.postgres.replace("+asyncpg", "")
    postgres = await asyncpg.connect(address)
    mysql = await asyncmy.connect(
        host=reader.host,
        port=reader.port,
        user=reader.username,
        password=reader.password,
        db=reader.database,
        autocommit=True,
    )
    async with grpc.aio.insecure_channel(stack.addresses.grpc["queue"]) as channel:
        yield _RebuildOverGrpc(channel), _BareRebuild(mysql, postgres)
    await mysql.ensure_closed()
    await postgres.close()
