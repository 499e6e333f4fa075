"""Reconcilers on a real PostgreSQL, with the services they call as fakes behind real gRPC."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc
from pydantic import SecretStr

from devstack.postgres_database import PostgresDatabase
from servicekit.client import connect
from servicekit.lifecycle import Parts
from servicekit.migrations import upgrade
from services.reconciler.app import build
from services.reconciler.settings import ReconcilerSettings
from tests.fakes.upstreams import ReconcilerUpstreams, reconciler_upstreams
from tests.fakes.user_context_rows import packed, person_rows

if TYPE_CHECKING:
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

TIMEOUT_SECONDS = 20.0


@dataclass
class ReconcilerBench:
    """A database, the fakes, and as many reconcilers as the test starts."""

    postgres_url: str
    fakes: ReconcilerUpstreams
    channel: grpc.aio.Channel | None = None

    def settings(self, **overrides: Any) -> ReconcilerSettings:
        """Settings for a reconciler with short delays, so that tests end soon."""
        chosen: dict[str, Any] = {
            "postgres_url": SecretStr(self.postgres_url),
            "user_context_target": self.fakes.user_context_target,
            "queue_target": self.fakes.queue_target,
            "cdc_ingest_target": None,
            "page_users": 10,
            "load_share": 1.0,
            "recheck_seconds": 0.01,
            "recheck_longest_seconds": 1.0,
            "watch_seconds": 0.02,
            "poll_seconds": 0.05,
            "retry_first_seconds": 0.02,
            "retry_longest_seconds": 0.1,
            "drain_seconds": 1.0,
        }
        return ReconcilerSettings(**{**chosen, **overrides})

    @asynccontextmanager
    async def running(self, **overrides: Any) -> "AsyncIterator[ReconcilerServiceAsyncStub]":
        """Run a reconciler in this process and yield a connection to it."""
        parts: Parts = build(self.settings(**overrides))
        await parts.start()
        channel = connect(parts.address, name="reconciler", default_timeout_seconds=5.0)
        try:
            yield reconciler_pb2_grpc.ReconcilerServiceStub(channel)
        finally:
            await channel.close(None)
            await parts.stop()

    async def start_process(
        self, log: Path, **overrides: Any
    ) -> "tuple[asyncio.subprocess.Process, ReconcilerServiceAsyncStub]":
        """Run a reconciler in a process of its own and return a connection to it, too."""
        values = self.settings(**overrides).model_dump() | {"postgres_url": self.postgres_url}
        environment = {
            f"RECONCILER_{name.upper()}": str(v) for name, v in values.items() if v is not None
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.reconciler",
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
            )
        await self.until(lambda: _address(log) is not None)
        self.channel = connect(str(_address(log)), name="reconciler", default_timeout_seconds=5.0)
        return process, reconciler_pb2_grpc.ReconcilerServiceStub(self.channel)

    @staticmethod
    async def start_run(
        stub: "ReconcilerServiceAsyncStub",
        reason: str = "test",
        kind: reconciler_pb2.RunKind.ValueType = reconciler_pb2.RUN_KIND_FULL,
        request_id: str = "",
        *,
        allow_gone: bool = False,
    ) -> reconciler_pb2.Run:
        request = reconciler_pb2.StartRunRequest(
            kind=kind, reason=reason, request_id=request_id, allow_gone=allow_gone
        )
        return (await stub.StartRun(request)).run

    @staticmethod
    async def ended(stub: "ReconcilerServiceAsyncStub", run_id: str) -> reconciler_pb2.Run:
        """Wait until the run has ended and return it."""
        run = reconciler_pb2.Run()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            async for answer in stub.WatchRun(reconciler_pb2.WatchRunRequest(run_id=run_id)):
                run = answer.run
        return run

    async def run(
        self,
        stub: "ReconcilerServiceAsyncStub",
        kind: reconciler_pb2.RunKind.ValueType = reconciler_pb2.RUN_KIND_FULL,
        *,
        allow_gone: bool = False,
    ) -> reconciler_pb2.Run:
        """Have a run done and return it ended."""
        run = await self.start_run(stub, kind=kind, allow_gone=allow_gone)
        return await self.ended(stub, run.run_id)

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until it is true; fails after a while."""

        async def ask() -> bool:
            return is_true()

        await self.until_async(ask)

    async def until_async(self, ask: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the answer is yes; fails after a while."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                if await ask():
                    return
                await asyncio.sleep(0.005)


@pytest.fixture
async def bench(postgres_database: PostgresDatabase) -> AsyncIterator[ReconcilerBench]:
    """A migrated database and fresh fakes who know 100 people with gaps between their ids."""
    await upgrade(postgres_database.url, package="services.reconciler", schema="reconciler")
    async with reconciler_upstreams() as fakes:
        for user_id in (n * 3 for n in range(1, 101)):
            fakes.user_context.people[user_id] = packed(person_rows(user_id))
        bench = ReconcilerBench(postgres_database.url, fakes)
        yield bench
        if bench.channel is not None:
            await bench.channel.close(None)


def _address(log: Path) -> str | None:
    """The address a process has told its log."""
    for line in log.read_text().splitlines(keepends=True):
        if '"listening"' in line and line.endswith("\n"):
            return str(json.loads(line)["address"])
    return None
