"""Private servers for the tests, once for each worker; fresh databases on them for each test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from devstack.mainapp_database import MainAppDatabase
from devstack.mysql_server import MySQL
from devstack.postgres_database import PostgresDatabase
from devstack.queues import SqsEndpoint, SqsQueue, running_sqs_endpoint
from devstack.seed import seed
from devstack.servers import MariaDB, PostgreSQL, PostgreSQLStandby, Redis
from tests.fakes import waiting
from tests.fakes.redis_cluster import RedisCluster, running_redis_cluster

SEEDED_USERS = 300

# How long one example takes says more of the machine than of what is tested.
settings.register_profile("dialler", deadline=None)
settings.load_profile("dialler")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale the time limits; leave out MariaDB's own statements where MySQL is asked for."""
    usual = float(config.getini("timeout"))
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker is not None and marker.args else usual
        item.add_marker(pytest.mark.timeout(seconds * waiting.SCALE), append=False)
    if os.environ.get("DIALLER_TEST_MYSQL"):
        for item in items:
            if item.get_closest_marker("mariadb"):
                item.add_marker(pytest.mark.skip(reason="in MariaDB's own words"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked each_redis on both kinds, unless one is asked for."""
    is_marked = metafunc.definition.get_closest_marker("each_redis") is not None
    if is_marked and "redis_url" in metafunc.fixturenames:
        asked = os.environ.get("DIALLER_TEST_REDIS")
        kinds = [asked] if asked else ["server", "cluster"]
        metafunc.parametrize("redis_url", kinds, indirect=True)


def main_app_server(folder: Path) -> MariaDB:
    """A server of the kind that the tests are to run on, not started."""
    kind = MySQL if os.environ.get("DIALLER_TEST_MYSQL") else MariaDB
    return kind(folder, durable=False)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Not pytest's own: the account postgres may not enter that when root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="dialler-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb(servers_folder: Path) -> Iterator[MariaDB]:
    """The main app's server; MySQL of Oracle's where `make mysql-check` asks for it."""
    server = main_app_server(servers_folder / "mariadb")
    server.start()
    yield server
    server.discard()


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Iterator[PostgreSQL]:
    server = PostgreSQL(servers_folder / "postgresql", durable=False)
    server.start()
    yield server
    server.discard()


@pytest.fixture(scope="session")
def redis_server(servers_folder: Path) -> Iterator[Redis]:
    server = Redis(servers_folder / "redis")
    server.start()
    yield server
    server.discard()


@pytest.fixture(scope="session")
def sqs_endpoint() -> Iterator[SqsEndpoint]:
    with running_sqs_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def own_mariadb(servers_folder: Path) -> Iterator[MariaDB]:
    """A started server for one test, which may stop, kill and restart it."""
    server = main_app_server(Path(tempfile.mkdtemp(dir=servers_folder)))
    server.start()
    yield server
    server.discard()


@pytest.fixture
def own_postgres(servers_folder: Path) -> Iterator[PostgreSQL]:
    """A started server for one test, which may stop, kill and restart it."""
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    server = PostgreSQL(folder, durable=False)
    server.start()
    yield server
    server.discard()


@pytest.fixture
def own_standby(servers_folder: Path, own_postgres: PostgreSQL) -> Iterator[PostgreSQLStandby]:
    """A standby of `own_postgres`, which the test may promote."""
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    server = PostgreSQLStandby(folder, own_postgres)
    server.start()
    yield server
    server.discard()


@pytest.fixture
def own_redis(servers_folder: Path) -> Iterator[Redis]:
    """A started server for one test, which may stop, kill and restart it."""
    server = Redis(Path(tempfile.mkdtemp(dir=servers_folder)))
    server.start()
    yield server
    server.discard()


@pytest.fixture
def mainapp_database(mariadb: MariaDB) -> Iterator[MainAppDatabase]:
    """A fresh main app without people."""
    database = MainAppDatabase.create(mariadb)
    yield database
    database.drop()


@pytest.fixture
def seeded_mainapp(mainapp_database: MainAppDatabase) -> MainAppDatabase:
    """A fresh main app with `SEEDED_USERS` people, the same in every test."""
    seed(mainapp_database.writer_url, SEEDED_USERS)
    return mainapp_database


@pytest.fixture
def postgres_database(postgres: PostgreSQL) -> Iterator[PostgresDatabase]:
    """A fresh, empty database."""
    database = PostgresDatabase.create(postgres)
    yield database
    database.drop()


@pytest.fixture(scope="session")
def redis_cluster(servers_folder: Path) -> Iterator[RedisCluster]:
    """Three nodes without replicas."""
    with running_redis_cluster(servers_folder / "redis-cluster") as cluster:
        yield cluster


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """An empty Redis: one server, or the kind that DIALLER_TEST_REDIS or `each_redis` asks for."""
    kind = getattr(request, "param", os.environ.get("DIALLER_TEST_REDIS", "server"))
    redis: Redis | RedisCluster = request.getfixturevalue(f"redis_{kind}")
    redis.flush()
    return redis.url()


@pytest.fixture
def sqs_queue(sqs_endpoint: SqsEndpoint) -> Iterator[SqsQueue]:
    """A fresh queue with its dead-letter queue."""
    client = sqs_endpoint.client()
    queue = SqsQueue.create(sqs_endpoint, client)
    yield queue
    queue.delete()
    client.close()
