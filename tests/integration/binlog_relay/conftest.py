"""A relay between a real MariaDB, a real PostgreSQL and a real SQS endpoint."""

from collections.abc import AsyncIterator

import pytest
from dialler.reconciler.v1 import reconciler_pb2_grpc

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.queues import SqsQueue
from devstack.servers import MariaDB
from servicekit.migrations import upgrade
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings
from services.binlog_relay.testing import FakeReconciler
from tests.integration.binlog_relay.bench import RelayBench


@pytest.fixture
async def reconciler() -> AsyncIterator[tuple[FakeReconciler, str]]:
    """A reconciler that takes notes, and where it listens."""
    # Methods the relay never calls answer UNIMPLEMENTED, as generated.
    fake = FakeReconciler()  # type: ignore[abstract]
    server = GrpcServer(
        ServiceSettings(drain_seconds=0.0),
        "reconciler",
        lambda made: reconciler_pb2_grpc.add_ReconcilerServiceServicer_to_server(fake, made),
        [],
    )
    await server.start()
    yield fake, server.address
    await server.stop()


@pytest.fixture
async def relay_database(
    postgres_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> PostgresDatabase:
    """A database with the relay's schema; and credentials, which boto3 wants and nobody checks."""
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
