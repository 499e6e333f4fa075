"""Two task queues on PostgreSQL, as an agent's desk could have been built on them.

Each is used as its documentation says: fetch a job, then finish it. Neither asks the main app
whether the person still qualifies, holds one job for an agent, or fences a holder who is late.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Self

import asyncpg
import procrastinate
from pgqueuer.models import Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries
from pgqueuer.types import QueueEntrypoint, QueueManagerId
from procrastinate.jobs import Job as ProcrastinateJob
from procrastinate.jobs import Status
from procrastinate.types import JSONDict

from bench.claims import CONNECTIONS, ClaimingAgent, Contender
from devstack.postgres_database import PostgresDatabase
from devstack.stack import Stack

# More than a round of four seconds can use up: one by one about 1,100 are taken a second on two
# cores, ten together 9,000, and on a quiet machine more than 10,000.
ONE_BY_ONE = 40_000
TOGETHER = 200_000


class Procrastinate(Contender):
    """`fetch_job` and `finish_job` as procrastinate's worker calls them, with its connector."""

    name = f"procrastinate fetch_job + finish_job, {CONNECTIONS} connections"
    backlog = ONE_BY_ONE

    def __init__(self, app: procrastinate.App) -> None:
        self._app = app
        self._worker_id = 0

        @app.task(name="call")
        async def call(user_id: int) -> None:
            """Stand for a call; never run."""

        self._task = call

    @classmethod
    @asynccontextmanager
    async def open(cls, stack: Stack) -> AsyncIterator[Self]:
        """Install it in a database of its own, which is dropped afterwards."""
        with _database(stack) as database:
            connector = procrastinate.PsycopgConnector(
                conninfo=_plain(database.url), min_size=CONNECTIONS, max_size=CONNECTIONS
            )
            async with procrastinate.App(connector=connector).open_async() as app:
                await app.schema_manager.apply_schema_async()
                yield cls(app)

    async def prepare(self) -> None:
        """Fill the backlog."""
        connector = self._app.connector
        await connector.execute_query_async(
            "TRUNCATE procrastinate_jobs, procrastinate_events, procrastinate_workers CASCADE"
        )
        self._worker_id = await self._app.job_manager.register_worker()
        jobs: list[JSONDict] = [{"user_id": each} for each in range(self.backlog)]
        await self._task.batch_defer_async(*jobs)
        await connector.execute_query_async("ANALYZE procrastinate_jobs")

    async def claim(self, agent: ClaimingAgent) -> ProcrastinateJob:
        """Fetch a job."""
        job = await self._app.job_manager.fetch_job(queues=None, worker_id=self._worker_id)
        if job is None:
            raise _dry()
        return job

    async def give_back(self, agent: ClaimingAgent, claimed: ProcrastinateJob) -> None:
        """Finish it, keeping its row, as the worker does by default."""
        await self._app.job_manager.finish_job(claimed, Status.SUCCEEDED, delete_job=False)


class PgQueuer(Contender):
    """`dequeue` and `log_jobs` as PgQueuer's queue manager calls them, on an asyncpg pool.

    `together` is the batch of one dequeue: its manager takes 10 by default, here for 10 agents.
    """

    def __init__(self, pool: asyncpg.Pool, together: int) -> None:
        size = "one by one" if together == 1 else f"{together} together"
        self.name = f"PgQueuer dequeue + log_jobs, {size}, {CONNECTIONS} connections"
        self._pool = pool
        self._queries = Queries.from_asyncpg_pool(pool)
        self.together = together
        self.backlog = ONE_BY_ONE if together == 1 else TOGETHER
        self._entrypoints = {QueueEntrypoint("call"): EntrypointExecutionParameter(0)}
        self._manager_id = QueueManagerId(uuid.uuid4())

    @classmethod
    @asynccontextmanager
    async def open(cls, stack: Stack, together: int = 1) -> AsyncIterator[Self]:
        """Install it in a database of its own, which is dropped afterwards."""
        with _database(stack) as database:
            async with asyncpg.create_pool(
                _plain(database.url), min_size=CONNECTIONS, max_size=CONNECTIONS
            ) as pool:
                contender = cls(pool, together)
                await contender._queries.install()
                yield contender

    async def prepare(self) -> None:
        """Fill the backlog."""
        await self._queries.clear_queue()
        for _ in range(self.backlog // ONE_BY_ONE):
            await self._queries.enqueue(
                ["call"] * ONE_BY_ONE, [b"1"] * ONE_BY_ONE, [0] * ONE_BY_ONE
            )
        await self._pool.execute("ANALYZE")

    async def claim(self, agent: ClaimingAgent) -> list[Job]:
        """Dequeue for one agent, or for as many as go together."""
        jobs = await self._queries.dequeue(
            batch_size=self.together,
            entrypoints=self._entrypoints,
            queue_manager_id=self._manager_id,
            global_concurrency_limit=None,
            heartbeat_timeout=timedelta(seconds=30),
        )
        if len(jobs) < self.together:
            raise _dry()
        return jobs

    async def give_back(self, agent: ClaimingAgent, claimed: list[Job]) -> None:
        """Finish them."""
        await self._queries.log_jobs([(job, "successful", None) for job in claimed])


@contextmanager
def _database(stack: Stack) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase.create(stack.postgres)
    try:
        yield database
    finally:
        database.drop()


def _plain(url: str) -> str:
    return url.replace("+asyncpg", "")


def _dry() -> RuntimeError:
    return RuntimeError("the backlog ran dry: enlarge it")
