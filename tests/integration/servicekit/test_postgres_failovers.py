"""PostgreSQL demoted while sessions stay open, and one of several hosts promoted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from devstack.postgres_database import PostgresDatabase
from devstack.servers import PostgreSQL, PostgreSQLStandby
from servicekit.advisory_lock import AdvisoryLock
from servicekit.database import asyncpg_connection, database_errors, postgres_engine
from servicekit.errors import Internal, Unavailable
from servicekit.migrations import upgrade
from servicekit.postgres_hosts import PostgresHosts
from tests.fakes.proxy import FaultProxy

pytestmark = [pytest.mark.integration, pytest.mark.fault]

POOL_SIZE = 3
WRITE = "INSERT INTO written VALUES (1)"
SESSION = "SELECT pg_backend_pid()"
END_ALL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dialler-test'
"""


@pytest.fixture
def database(own_postgres: PostgreSQL) -> PostgresDatabase:
    made = PostgresDatabase.create(own_postgres)
    own_postgres.execute("CREATE TABLE written (id int)", database=made.name, user="dialler")
    return made


@asynccontextmanager
async def _engine(url: str, *, is_behind_pgbouncer: bool = False) -> AsyncIterator[AsyncEngine]:
    engine = postgres_engine(
        url,
        pool_size=POOL_SIZE,
        application_name="dialler-test",
        statement_timeout_seconds=5.0,
        connect_timeout_seconds=0.5,
        is_behind_pgbouncer=is_behind_pgbouncer,
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


async def _fill(engine: AsyncEngine) -> None:
    """Open as many sessions as there may be."""
    opened = [await engine.connect() for _ in range(POOL_SIZE)]
    for connection in opened:
        await connection.execute(text("SELECT 1"))
        await connection.close()


@pytest.mark.parametrize("is_behind_pgbouncer", [False, True])
async def test_the_sessions_of_a_demoted_server_are_replaced_after_one_failure(
    own_postgres: PostgreSQL, database: PostgresDatabase, is_behind_pgbouncer: bool
) -> None:
    async with _engine(database.url, is_behind_pgbouncer=is_behind_pgbouncer) as engine:
        await _fill(engine)
        own_postgres.demote(serves_new_sessions=True)
        with pytest.raises(Unavailable) as caught:
            await _ask(engine, WRITE)
        for _ in range(POOL_SIZE):
            await _ask(engine, WRITE)
        together = [_ask(engine, WRITE) for _ in range(POOL_SIZE)]
        await asyncio.gather(*together)
    assert caught.value.reason == "DATABASE_READ_ONLY"
    assert caught.value.retry_after_seconds is not None
    assert caught.value.metadata == {"database_code": "25006"}


async def test_no_session_goes_on_reading_from_a_server_that_was_demoted(
    own_postgres: PostgreSQL, database: PostgresDatabase
) -> None:
    async with _engine(database.url) as engine:
        await _fill(engine)
        before = await _ask(engine, SESSION)
        own_postgres.demote(serves_new_sessions=True)
        # The answer to this one brings the news.
        assert await _ask(engine, SESSION) == before
        read_only = "SELECT current_setting('transaction_read_only')"
        assert await _ask(engine, read_only) == "off"


async def test_sessions_ended_while_idle_are_not_handed_out(
    own_postgres: PostgreSQL, database: PostgresDatabase
) -> None:
    async with _engine(database.url) as engine:
        await _fill(engine)
        own_postgres.execute(END_ALL)
        # The news is on its way.
        await asyncio.sleep(0.5)
        for _ in range(POOL_SIZE):
            assert await _ask(engine, SESSION)


async def _fetch(session: asyncpg.Connection) -> None:
    await session.fetch(SESSION)


async def _copy(session: asyncpg.Connection) -> None:
    await session.copy_records_to_table("written", records=[(1,)])


async def _ask_asyncpg(
    engine: AsyncEngine, *questions: Callable[[asyncpg.Connection], Awaitable[object]]
) -> None:
    async with engine.begin() as connection, asyncpg_connection(connection) as session:
        for question in questions:
            await question(session)


async def _ask_through_sqlalchemy(engine: AsyncEngine) -> None:
    await _ask(engine, SESSION)


async def _ask_past_sqlalchemy(engine: AsyncEngine) -> None:
    await _ask_asyncpg(engine, _fetch)


@pytest.mark.parametrize("ask", [_ask_through_sqlalchemy, _ask_past_sqlalchemy])
async def test_a_session_that_ends_before_its_connection_is_replaced_after_one_failure(
    own_postgres: PostgreSQL,
    database: PostgresDatabase,
    ask: Callable[[AsyncEngine], Awaitable[None]],
) -> None:
    url = make_url(database.url)
    async with FaultProxy(str(url.host), int(url.port or 0)) as network:
        led = url.set(host=network.host, port=network.port)
        async with _engine(led.render_as_string(hide_password=False)) as engine:
            await ask(engine)
            network.keep_open()
            own_postgres.execute(END_ALL)
            await asyncio.sleep(0.5)
            with pytest.raises(Unavailable) as caught:
                await ask(engine)
            assert caught.value.reason == "DATABASE_UNAVAILABLE"
            await ask(engine)


@pytest.mark.parametrize("question", [_fetch, _copy])
@pytest.mark.parametrize("seconds", [0.0, 0.5], ids=["before_the_news", "after_the_news"])
async def test_what_is_asked_of_asyncpg_itself_ends_as_other_statements_do(
    own_postgres: PostgreSQL,
    database: PostgresDatabase,
    question: Callable[[asyncpg.Connection], Awaitable[object]],
    seconds: float,
) -> None:
    async def end(_: asyncpg.Connection) -> None:
        own_postgres.execute(END_ALL)
        await asyncio.sleep(seconds)

    async with _engine(database.url) as engine:
        with pytest.raises(Unavailable) as caught:
            await _ask_asyncpg(engine, question, end, question)
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        await _ask_asyncpg(engine, question)


async def test_a_defect_in_what_is_asked_of_asyncpg_itself_costs_no_session(
    database: PostgresDatabase,
) -> None:
    async with _engine(database.url) as engine:
        before = await _ask(engine, SESSION)
        with pytest.raises(Internal) as caught:
            await _ask_asyncpg(engine, lambda session: session.fetch("SELECT no_such_column"))
        assert caught.value.metadata == {"database_code": "42703"}
        assert await _ask(engine, SESSION) == before


async def test_copying_to_a_demoted_server_costs_its_session(
    own_postgres: PostgreSQL, database: PostgresDatabase
) -> None:
    async with _engine(database.url) as engine:
        before = await _ask(engine, SESSION)
        own_postgres.demote(serves_new_sessions=True)
        with pytest.raises(Unavailable) as caught:
            await _ask_asyncpg(engine, _copy)
        assert caught.value.reason == "DATABASE_READ_ONLY"
        assert await _ask(engine, SESSION) != before


async def test_new_sessions_with_a_server_that_takes_no_writes_are_refused(
    own_postgres: PostgreSQL, database: PostgresDatabase
) -> None:
    own_postgres.demote(serves_new_sessions=False)
    async with _engine(database.url) as engine:
        with pytest.raises(Unavailable) as caught:
            await _ask(engine, "SELECT 1")
        assert caught.value.reason == "DATABASE_READ_ONLY"
        own_postgres.reinstate()
        await _ask(engine, WRITE)


@pytest.mark.parametrize("is_behind_pgbouncer", [False, True])
async def test_a_lock_of_a_demoted_server_is_lost_and_taken_from_the_new_one(
    own_postgres: PostgreSQL, database: PostgresDatabase, is_behind_pgbouncer: bool
) -> None:
    lock, other = (
        AdvisoryLock(database.url, 7, name=name, is_behind_pgbouncer=is_behind_pgbouncer)
        for name in ("lock", "other")
    )
    try:
        assert await lock.acquire()
        own_postgres.demote(serves_new_sessions=False)
        with pytest.raises(Unavailable) as caught:
            await lock.confirm()
        assert caught.value.reason == "DATABASE_READ_ONLY"
        assert not lock.is_held
        with pytest.raises(Unavailable) as caught:
            await other.acquire()
        assert caught.value.reason == "DATABASE_READ_ONLY"
        own_postgres.reinstate()
        assert await other.acquire()
        await other.confirm()
    finally:
        await lock.release()
        await other.release()


async def test_everything_moves_to_the_host_that_is_promoted(
    own_postgres: PostgreSQL, database: PostgresDatabase, own_standby: PostgreSQLStandby
) -> None:
    url = own_standby.url_with_primary(database.name)
    lock = AdvisoryLock(url, 7, name="lock")
    port = "SELECT inet_server_port()"
    async with _engine(url) as engine:
        try:
            await _fill(engine)
            assert await _ask(engine, port) == own_postgres.port
            assert await lock.acquire()
            own_postgres.demote(serves_new_sessions=False)
            await asyncio.to_thread(own_standby.promote)
            with pytest.raises(Unavailable):
                await _ask(engine, WRITE)
            await _ask(engine, WRITE)
            assert await _ask(engine, port) == own_standby.port
            with pytest.raises(Unavailable):
                await lock.confirm()
            assert await lock.acquire()
            await upgrade(url, package="services.reconciler", schema="reconciler")
            assert await _ask(engine, "SELECT count(*) FROM reconciler.runs") == 0
        finally:
            await lock.release()


@pytest.mark.parametrize("seconds", [0.2, 10.0])
async def test_a_host_that_is_silent_does_not_hold_up_the_others(
    postgres_database: PostgresDatabase, seconds: float
) -> None:
    """Not even where callers have less time than one silent host costs."""
    url = make_url(postgres_database.url)
    async with FaultProxy(str(url.host), int(url.port or 0)) as silent:
        silent.stall()
        hosts = f"{silent.host}:{silent.port},{url.host}:{url.port}"
        named = f"postgresql://{url.username}:{url.password}@{hosts}/{url.database}"
        async with _engine(named) as engine:
            failures = 0
            for _ in range(4):
                try:
                    async with asyncio.timeout(seconds):
                        await _ask(engine, "SELECT 1")
                except TimeoutError:
                    failures += 1
            assert failures == (1 if seconds < 0.5 else 0)


async def test_a_wrong_password_is_not_taken_for_an_unavailable_host(
    postgres_database: PostgresDatabase,
) -> None:
    wrong = make_url(postgres_database.url).set(password="wrong")
    async with _engine(wrong.render_as_string(hide_password=False)) as engine:
        with pytest.raises(Internal) as caught:
            await _ask(engine, "SELECT 1")
    assert caught.value.metadata["database_code"] == "28P01"


async def test_the_hosts_of_one_address_are_tried_from_the_last_that_served(
    postgres_database: PostgresDatabase,
) -> None:
    url = make_url(postgres_database.url)
    async with FaultProxy(str(url.host), int(url.port or 0)) as first:
        hosts = f"{first.host}:{first.port},{url.host}:{url.port}"
        named = PostgresHosts(f"postgresql://{url.username}:{url.password}@{hosts}/{url.database}")
        await first.cut()
        opened = [await named.connect()]
        first.heal()
        opened.append(await named.connect())
        assert first.connections == 0
        for connection in opened:
            await connection.close()
