"""MySQL demoted, stopped or full while sessions are open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from devstack.mainapp_database import MainAppDatabase
from devstack.servers import MariaDB
from servicekit import database as under_test
from servicekit.database import database_errors, mysql_engine
from servicekit.errors import Unavailable
from tests.fakes.proxy import FaultProxy

pytestmark = [pytest.mark.integration, pytest.mark.fault]

SESSION = "SELECT CONNECTION_ID()"
SERVER = "SELECT @@port"
WRITE = "INSERT INTO users (id, introducer) VALUES (1, 'mcc')"


@pytest.fixture
def own_main_app(own_mariadb: MariaDB) -> MainAppDatabase:
    return MainAppDatabase.create(own_mariadb)


@pytest.fixture
def asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is asked at every use whether it was demoted."""
    monkeypatch.setattr(under_test, "_DEMOTION_SECONDS", 0.0)


def _tell(server: MariaDB, statement: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement)


@asynccontextmanager
async def _engine(
    url: str, *, read_only: bool = True, pool_size: int = 1
) -> AsyncIterator[AsyncEngine]:
    engine = mysql_engine(
        url, pool_size=pool_size, statement_timeout_seconds=10.0, read_only=read_only
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def _ask(engine: AsyncEngine, statement: str) -> object:
    with database_errors():
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None


@pytest.mark.usefixtures("asked_each_time")
async def test_a_reader_leaves_a_demoted_server_though_its_name_leads_there_for_a_while(
    own_mariadb: MariaDB, own_main_app: MainAppDatabase, mariadb: MariaDB
) -> None:
    """A demoted server goes on answering readers, from rows that change elsewhere by then."""
    promoted = MainAppDatabase.create(mariadb, own_main_app.name)
    async with FaultProxy(own_mariadb.host, own_mariadb.port) as name:
        moved = make_url(own_main_app.url).set(host=name.host, port=name.port)
        async with _engine(moved.render_as_string(hide_password=False)) as engine:
            before = await _ask(engine, SESSION)
            assert await _ask(engine, SESSION) == before
            _tell(own_mariadb, "SET GLOBAL read_only = ON")
            seen = {before, *[await _ask(engine, SESSION) for _ in range(3)]}
            assert len(seen) == 4
            assert await _ask(engine, SERVER) == own_mariadb.port
            name.lead_to(mariadb.host, mariadb.port)
            assert await _ask(engine, SERVER) == mariadb.port
            there = await _ask(engine, SESSION)
            assert await _ask(engine, SESSION) == there
    promoted.drop()


@pytest.mark.usefixtures("asked_each_time")
async def test_a_server_that_takes_writes_again_keeps_its_sessions(
    own_mariadb: MariaDB, own_main_app: MainAppDatabase
) -> None:
    async with _engine(own_main_app.url) as engine:
        await _ask(engine, SESSION)
        _tell(own_mariadb, "SET GLOBAL read_only = ON")
        await _ask(engine, SESSION)
        _tell(own_mariadb, "SET GLOBAL read_only = OFF")
        kept = await _ask(engine, SESSION)
        assert await _ask(engine, SESSION) == kept


@pytest.mark.usefixtures("asked_each_time")
async def test_a_reader_that_has_met_a_replica_alone_stays_with_it_until_it_was_promoted(
    own_mariadb: MariaDB, own_main_app: MainAppDatabase
) -> None:
    _tell(own_mariadb, "SET GLOBAL read_only = ON")
    async with _engine(own_main_app.url) as engine:
        before = await _ask(engine, SESSION)
        assert await _ask(engine, SESSION) == before
        _tell(own_mariadb, "SET GLOBAL read_only = OFF")
        assert await _ask(engine, SESSION) == before
        _tell(own_mariadb, "SET GLOBAL read_only = ON")
        assert await _ask(engine, SESSION) != before


async def test_a_session_of_a_demoted_server_is_replaced_after_one_failure(
    own_mariadb: MariaDB, own_main_app: MainAppDatabase
) -> None:
    async with _engine(own_main_app.writer_url, read_only=False) as engine:
        before = await _ask(engine, SESSION)
        _tell(own_mariadb, "SET GLOBAL read_only = ON")
        with pytest.raises(Unavailable) as caught:
            await _ask(engine, WRITE)
        assert await _ask(engine, SESSION) != before
    assert caught.value.reason == "DATABASE_READ_ONLY"
    assert caught.value.retry_after_seconds is not None


async def test_a_server_that_stops_in_mid_query_is_unavailable_until_it_is_back(
    own_mariadb: MariaDB, own_main_app: MainAppDatabase
) -> None:
    async with _engine(own_main_app.url, pool_size=2) as engine:
        await asyncio.gather(_ask(engine, SESSION), _ask(engine, SESSION))
        asked = asyncio.create_task(_ask(engine, "SELECT SLEEP(9)"))
        while not await _ask(engine, _SLEEPERS):
            pass
        await asyncio.to_thread(own_mariadb.stop)
        with pytest.raises(Unavailable):
            await asked
        with pytest.raises(Unavailable):
            await _ask(engine, SESSION)
        await asyncio.to_thread(own_mariadb.start)
        assert await _ask(engine, SESSION)
        assert await asyncio.gather(_ask(engine, SESSION), _ask(engine, SESSION))


async def test_a_server_without_room_for_another_session_is_exhausted(
    own_mariadb: MariaDB, own_main_app: MainAppDatabase
) -> None:
    _tell(own_mariadb, "ALTER USER 'dialler'@'%' WITH MAX_USER_CONNECTIONS 1")
    async with _engine(own_main_app.url) as first, _engine(own_main_app.url) as second:
        async with first.connect():
            with pytest.raises(Unavailable) as caught:
                await _ask(second, SESSION)
        assert caught.value.reason == "DATABASE_EXHAUSTED"
        await first.dispose()
        assert await _ask(second, SESSION)


_SLEEPERS = """
    SELECT COUNT(*) FROM information_schema.PROCESSLIST
    WHERE INFO LIKE 'SELECT SLEEP%' AND ID <> CONNECTION_ID()
"""
