"""A replica that lags is left alone until it has caught up."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pymysql
import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from devstack.accounts import PASSWORDS
from devstack.mainapp_database import MainAppDatabase
from devstack.servers import MariaDB
from mainapp.description import load
from servicekit.clock import SystemClock
from servicekit.database import mysql_engine
from servicekit.errors import Unavailable
from services.user_context.mysql.chunk_reader import LONGEST_LAG_SECONDS, ChunkReader
from services.user_context.mysql.fingerprint_readings import FingerprintReadings
from services.user_context.mysql.replica_lag import ReplicaLag
from services.user_context.mysql.snapshots import answer_at_once, read_at_once
from tests.fakes import waiting
from tests.fakes.clock import FakeClock

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def replica(servers_folder: Path, own_mariadb: MariaDB) -> Iterator[MariaDB]:
    """A server that copies `own_mariadb`, from its first change on."""
    server = MariaDB(Path(tempfile.mkdtemp(dir=servers_folder)), durable=False)
    server.start()
    _tell(
        server,
        "SET GLOBAL server_id = 2",
        "SET GLOBAL gtid_strict_mode = OFF",
        f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {own_mariadb.port},"
        f" MASTER_USER = 'dialler_relay', MASTER_PASSWORD = '{PASSWORDS['dialler_relay']}',"
        " MASTER_USE_GTID = slave_pos",
        "START SLAVE",
        "GRANT REPLICA MONITOR ON *.* TO 'dialler'@'%'",
    )
    yield server
    server.discard()


@pytest.fixture
async def main_app(own_mariadb: MariaDB, replica: MariaDB) -> MainAppDatabase:
    """A main app with one person, on the replica too."""
    created = MainAppDatabase.create(own_mariadb)
    copy = MainAppDatabase(replica, created.name)
    _add_person(created)
    await _until(lambda: copy.rows("SELECT COUNT(*) FROM users") == [(1,)])
    return created


@pytest.fixture
async def engine(replica: MariaDB, main_app: MainAppDatabase) -> AsyncIterator[AsyncEngine]:
    made = mysql_engine(replica.url(main_app.name), pool_size=2, statement_timeout_seconds=3.0)
    yield made
    await made.dispose()


@pytest.mark.mariadb
async def test_a_comparison_waits_for_the_replica(
    replica: MariaDB, main_app: MainAppDatabase, engine: AsyncEngine
) -> None:
    _tell(replica, "STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY = 600", "START SLAVE")
    _add_person(main_app)
    asks = ReplicaLag(engine, clock := FakeClock(), most_seconds=0.5)

    async def lags() -> bool:
        clock.advance(10)
        return await asks.is_too_long()

    await _until_async(lags)
    resting = asyncio.Event()

    async def sleep(_: float) -> None:
        resting.set()
        await asyncio.sleep(0.01)
        clock.advance(10)

    system = SystemClock()
    chunk_reader = ChunkReader(engine, load(), system, asks, sleep=sleep)
    readings = FingerprintReadings(engine, load(), chunk_reader, system)

    async def rows() -> int:
        chunks = readings.ranges("users", 256, after_key="", load_share=1.0)
        return sum([sum(chunk.row_counts) async for chunk in chunks])

    comparing = asyncio.create_task(rows())
    await resting.wait()
    assert not comparing.done()
    _tell(replica, "STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY = 0", "START SLAVE")
    # While the replica is reconfigured it follows no source, and reports no lag.
    assert await asyncio.wait_for(comparing, 20) in {1, 2}


@pytest.mark.mariadb
async def test_a_reading_names_no_transaction_that_the_replica_has_not_executed(
    own_mariadb: MariaDB, replica: MariaDB, main_app: MainAppDatabase, engine: AsyncEngine
) -> None:
    answer_at_once(engine)

    async def read() -> tuple[int, str]:
        sets, executed = await read_at_once(engine, ["SELECT COUNT(*) FROM users"])
        return int(sets[0][0][0]), executed

    _tell(replica, "STOP SLAVE")
    _, before = await read()
    _add_person(main_app)
    [(last,)] = main_app.rows("SELECT @@global.gtid_binlog_pos")
    assert await read() == (1, before)
    assert before != last
    _tell(replica, "START SLAVE")

    async def has_it() -> bool:
        _, executed = await read()
        return executed == str(last)

    await _until_async(has_it)
    assert (await read())[0] == 2


@pytest.mark.mariadb
async def test_a_replica_that_has_stopped_is_reported(
    replica: MariaDB, main_app: MainAppDatabase, engine: AsyncEngine
) -> None:
    """It reports no lag, although its rows become out of date."""
    asks = ReplicaLag(engine, clock := FakeClock(), most_seconds=0.5)

    async def has_stopped() -> bool:
        clock.advance(10)
        await asks.run_once(clock.now())
        return bool(REGISTRY.get_sample_value("dialler_user_context_replica_stopped"))

    assert not await has_stopped()
    _tell(replica, "STOP SLAVE SQL_THREAD")
    assert await has_stopped()
    _tell(replica, "START SLAVE SQL_THREAD")
    await _until_async(lambda: _not(has_stopped))


async def _not(holds: Callable[[], Awaitable[bool]]) -> bool:
    return not await holds()


@pytest.mark.mariadb
async def test_a_replica_that_does_not_catch_up_is_reported(
    replica: MariaDB, main_app: MainAppDatabase, engine: AsyncEngine
) -> None:
    """A run that only waited for it would keep all others waiting, housekeeping too."""
    _tell(replica, "STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY = 600", "START SLAVE")
    _add_person(main_app)
    clock = FakeClock()
    asks = ReplicaLag(engine, clock, most_seconds=0.5)

    async def lags() -> bool:
        clock.advance(10)
        return await asks.is_too_long()

    await _until_async(lags)
    waited = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds
        clock.advance(seconds)

    chunk_reader = ChunkReader(engine, load(), clock, asks, sleep=sleep)
    readings = FingerprintReadings(engine, load(), chunk_reader, clock)
    async with aclosing(readings.ranges("users", 256, after_key="", load_share=1.0)) as chunks:
        with pytest.raises(Unavailable, match="MAIN_APP_LAGGING"):
            await anext(chunks)
    assert waited >= LONGEST_LAG_SECONDS


async def test_a_server_that_is_no_replica_does_not_lag(
    seeded_mainapp: MainAppDatabase,
) -> None:
    """Nor one that may not be asked."""
    engine = mysql_engine(seeded_mainapp.url, pool_size=1, statement_timeout_seconds=3.0)
    clock = FakeClock()
    try:
        lag = ReplicaLag(engine, clock, most_seconds=1.0)
        for _ in range(3):
            clock.advance(10)
            assert not await lag.is_too_long()
    finally:
        await engine.dispose()


async def test_callers_that_are_refused_together_learn_it_together(
    seeded_mainapp: MainAppDatabase,
) -> None:
    """On a busy machine a question takes longer than the time between two."""
    engine = mysql_engine(seeded_mainapp.url, pool_size=2, statement_timeout_seconds=3.0)
    clock = FakeClock()
    try:
        lag = ReplicaLag(engine, clock, most_seconds=1.0)
        asked = []
        for _ in range(4):
            asked.append(asyncio.create_task(lag.is_too_long()))
            await asyncio.sleep(0)
            clock.advance(10)
        assert not any(await asyncio.gather(*asked))
    finally:
        await engine.dispose()


def _tell(server: MariaDB, *statements: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _add_person(main_app: MainAppDatabase) -> None:
    main_app.execute(
        "INSERT INTO users (email_address, first_name, last_name, password, is_enabled)"
        " VALUES (CONCAT(UUID(), '@example.org'), 'A', 'B', '', 1)"
    )


async def _until(is_true: Callable[[], bool]) -> None:
    async def ask() -> bool:
        with contextlib.suppress(pymysql.Error):
            return is_true()
        return False

    await _until_async(ask)


async def _until_async(ask: Callable[[], Awaitable[bool]]) -> None:
    async with waiting.limit(20):
        while True:
            if await ask():
                return
            await asyncio.sleep(0.05)
