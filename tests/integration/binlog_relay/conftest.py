"""A relay between a real MariaDB, a real PostgreSQL and a real SQS endpoint."""

from collections.abc import AsyncIterator

import pytest
from dialler.reconciler.v1 import reconciler_pb2

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.queues import SqsQueue
from devstack.servers import MariaDB
from servicekit.migrations import upgrade
from tests.fakes.reconciler import FakeReconciler
from tests.fakes.upstreams import serving_doubles
from tests.integration.binlog_relay.bench import RelayBench


@pytest.fixture
async def reconciler() -> AsyncIterator[tuple[FakeReconciler, str]]:
    """A reconciler that keeps one run pending, and its address."""
    pending = reconciler_pb2.Run(run_id="run-1", state=reconciler_pb2.RUN_STATE_PENDING)
    fake = FakeReconciler(run=pending)  # type: ignore[abstract]
    async with serving_doubles(reconciler=fake) as (target,):
        yield fake, target


@pytest.fixture
async def relay_database(
    postgres_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> PostgresDatabase:
    """A database with the relay's schema, and credentials, which boto3 needs and no test checks."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    await upgrade(postgres_database.url, package="services.binlog_relay", schema="binlog_relay")
    return postgres_database


@pytest.fixture
def bench(
    mainapp_database: MainAppDatabase,
    relay_database: PostgresDatabase,
    sqs_queue: SqsQueue,
    reconciler: tuple[FakeReconciler, str],
) -> RelayBench:
    """Everything around a relay; the test starts as many relays as it wants."""
    return RelayBench(mainapp_database, relay_database, sqs_queue, *reconciler)


@pytest.fixture
def bench_of_own_mariadb(
    own_mariadb: MariaDB,
    relay_database: PostgresDatabase,
    sqs_queue: SqsQueue,
    reconciler: tuple[FakeReconciler, str],
) -> RelayBench:
    """The same on a server that the test may stop or reconfigure."""
    return RelayBench(MainAppDatabase.create(own_mariadb), relay_database, sqs_queue, *reconciler)
