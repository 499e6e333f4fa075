"""Engines against real servers: limits, read-only sessions, and what their failures become."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from servicekit.database import database_errors, lock_session, mysql_engine, postgres_engine
from servicekit.errors import DeadlineExceeded, Internal, ServiceError, Unavailable
from tests.fakes.proxy import FaultProxy

pytestmark = pytest.mark.integration

NAME = "Jane Example"
SLOW = "SELECT COUNT(*) FROM seq_1_to_90000 a JOIN seq_1_to_90000 b WHERE a.seq * b.seq % 7 = 3"


@asynccontextmanager
async def postgres(
    url: str,
    *,
    pool_size: int = 2,
    seconds: float = 5.0,
    lock_seconds: float | None = None,
    is_behind_pgbouncer: bool = False,
) -> AsyncIterator[AsyncEngine]:
    engine = postgres_engine(
        url,
        pool_size=pool_size,
        application_name="dialler-test",
        statement_timeout_seconds=seconds,
        lock_timeout_seconds=lock_seconds,
        pool_timeout_seconds=0.2,
        is_behind_pgbouncer=is_behind_pgbouncer,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def mysql(
    url: str, *, pool_size: int = 2, seconds: float = 5.0, read_only: bool = True
) -> AsyncIterator[AsyncEngine]:
    engine = mysql_engine(
        url, pool_size=pool_size, statement_timeout_seconds=seconds, read_only=read_only
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def ask(engine: AsyncEngine, statement: str) -> object:
    with database_errors():
        async with engine.connect() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None


async def sleep_in(engine: AsyncEngine, seconds: float) -> None:
    async with asyncio.timeout(seconds), engine.connect() as connection:
        await connection.execute(text("SELECT SLEEP(20)"))


def through(url: str, proxy: FaultProxy) -> str:
    moved = make_url(url).set(host=proxy.host, port=proxy.port)
    return moved.render_as_string(hide_password=False)


@pytest.mark.parametrize("is_behind_pgbouncer", [False, True])
async def test_postgres_session_has_its_limits(
    postgres_database: PostgresDatabase, is_behind_pgbouncer: bool
) -> None:
    async with postgres(
        postgres_database.url, seconds=1.5, is_behind_pgbouncer=is_behind_pgbouncer
    ) as engine:
        shown = {
            name: await ask(engine, f"SHOW {name}")
            for name in (
                "statement_timeout",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "application_name",
                "timezone",
            )
        }
    assert shown == {
        "statement_timeout": "1500ms",
        "lock_timeout": "1500ms",
        "idle_in_transaction_session_timeout": "30s",
        "application_name": "dialler-test",
        "timezone": "UTC",
    }


async def test_behind_pgbouncer_limits_do_not_outlive_the_transaction(
    postgres_database: PostgresDatabase,
) -> None:
    async with (
        postgres(
            postgres_database.url, pool_size=1, seconds=1.5, is_behind_pgbouncer=True
        ) as engine,
        engine.connect() as connection,
    ):
        await connection.execute(text("SELECT 1"))
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        assert await driver.fetchval("SHOW statement_timeout") == "1500ms"
        await connection.rollback()
        assert await driver.fetchval("SHOW statement_timeout") == "0"


async def test_postgres_statement_over_its_time(postgres_database: PostgresDatabase) -> None:
    async with postgres(postgres_database.url, seconds=0.1) as engine:
        with pytest.raises(DeadlineExceeded) as caught:
            await ask(engine, "SELECT pg_sleep(20)")
        assert await ask(engine, "SELECT 1") == 1
    assert caught.value.reason == "DATABASE_TIMEOUT"
    assert caught.value.metadata == {"database_code": "57014"}


async def test_postgres_lock_wait_asks_for_another_try(postgres_database: PostgresDatabase) -> None:
    async with (
        postgres(postgres_database.url) as engine,
        postgres(postgres_database.url, lock_seconds=0.05) as impatient,
        engine.begin() as holder,
    ):
        await holder.execute(text("SELECT pg_advisory_xact_lock(1)"))
        with pytest.raises(Unavailable) as caught:
            await ask(impatient, "SELECT pg_advisory_xact_lock(1)")
    assert caught.value.reason == "DATABASE_CONTENTION"
    assert caught.value.retry_after_seconds is not None


async def test_postgres_pool_without_a_free_connection(
    postgres_database: PostgresDatabase,
) -> None:
    async with postgres(postgres_database.url, pool_size=1) as engine, engine.connect():
        with pytest.raises(Unavailable) as caught:
            await ask(engine, "SELECT 1")
    assert caught.value.reason == "DATABASE_BUSY"
    assert caught.value.retry_after_seconds is not None


async def test_postgres_wrong_credentials_and_absent_database_do_not_pass_as_unavailable(
    postgres_database: PostgresDatabase,
) -> None:
    absent = make_url(postgres_database.url).set(database="no_such_database")
    async with postgres(absent.render_as_string(hide_password=False)) as engine:
        with pytest.raises(Internal) as caught:
            await ask(engine, "SELECT 1")
    assert caught.value.metadata["database_code"] == "3D000"


async def test_postgres_error_does_not_quote_the_row(
    postgres_database: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with postgres(postgres_database.url) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE people (name text PRIMARY KEY)"))
            await connection.execute(text("INSERT INTO people VALUES (:n)"), {"n": NAME})
        with pytest.raises(Internal) as caught, database_errors():
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO people VALUES (:n)"), {"n": NAME})
    assert NAME not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert NAME not in caplog.text


async def test_expected_error_is_caught_inside(postgres_database: PostgresDatabase) -> None:
    async with postgres(postgres_database.url) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE once (id int PRIMARY KEY)"))
            await connection.execute(text("INSERT INTO once VALUES (1)"))
        with database_errors():
            async with engine.connect() as connection:
                with pytest.raises(IntegrityError):
                    await connection.execute(text("INSERT INTO once VALUES (1)"))


@pytest.mark.fault
async def test_postgres_connection_that_dies_is_unavailable_and_replaced(
    postgres_database: PostgresDatabase,
) -> None:
    target = make_url(postgres_database.url)
    async with (
        FaultProxy(str(target.host), int(target.port or 0)) as proxy,
        postgres(through(postgres_database.url, proxy), pool_size=1) as engine,
    ):
        await ask(engine, "SELECT 1")
        await proxy.cut()
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await ask(engine, "SELECT 1")
            assert caught.value.reason == "DATABASE_UNAVAILABLE"
        proxy.heal()
        assert await ask(engine, "SELECT 1") == 1


@pytest.mark.fault
async def test_postgres_that_hangs_is_given_up_on(postgres_database: PostgresDatabase) -> None:
    target = make_url(postgres_database.url)
    async with FaultProxy(str(target.host), int(target.port or 0)) as proxy:
        url = through(postgres_database.url, proxy)
        async with postgres(url, pool_size=1, seconds=0.1) as engine:
            await ask(engine, "SELECT 1")
            proxy.stall()
            with pytest.raises(ServiceError) as caught:
                await ask(engine, "SELECT 1")
            assert isinstance(caught.value, DeadlineExceeded | Unavailable)
            proxy.heal()
            assert await ask(engine, "SELECT 1") == 1


async def test_mysql_session_has_its_limits(mainapp_database: MainAppDatabase) -> None:
    async with mysql(mainapp_database.url, seconds=1.5) as engine:
        assert await ask(engine, "SELECT @@session.time_zone") == "+00:00"
        assert await ask(engine, "SELECT @@session.character_set_client") == "utf8mb4"
        assert float(str(await ask(engine, "SELECT @@session.max_statement_time"))) == 1.5
        assert await ask(engine, "SELECT @@session.tx_read_only") == 1
        assert await ask(engine, "SELECT @@session.autocommit") == 1


async def test_mysql_read_only_session_cannot_write(mainapp_database: MainAppDatabase) -> None:
    insert = "INSERT INTO users (id, introducer) VALUES (1, 'mcc')"
    async with mysql(mainapp_database.writer_url) as engine:
        with pytest.raises(Unavailable) as caught:
            await ask(engine, insert)
        assert await ask(engine, "SELECT COUNT(*) FROM users") == 0
    assert caught.value.metadata["database_code"] in {"1792", "1290"}


async def test_database_defect_is_logged_with_its_place_and_what_it_says_of_the_schema(
    mainapp_database: MainAppDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with mysql(mainapp_database.url) as engine:
        with pytest.raises(Internal):
            await ask(engine, "SELECT no_such_column FROM users")
    (record,) = (record for record in caplog.records if record.msg == "database_error")
    assert "no_such_column" in vars(record)["database_says"]
    assert "test_databases.py" in vars(record)["exception"]


async def test_mysql_read_is_one_round_trip(mainapp_database: MainAppDatabase) -> None:
    async with mysql(mainapp_database.url, pool_size=1) as engine:
        status = "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS"
        questions = f"{status} WHERE VARIABLE_NAME = 'QUESTIONS'"
        before = int(str(await ask(engine, questions)))
        for _ in range(5):
            await ask(engine, "SELECT 1")
        after = int(str(await ask(engine, questions)))
    assert after - before == 6


async def test_mysql_snapshot_on_request(mainapp_database: MainAppDatabase) -> None:
    insert = text("INSERT INTO user_addresses (id, user_id) VALUES (UUID(), 1)")
    count = text("SELECT COUNT(*) FROM user_addresses")
    async with (
        mysql(mainapp_database.url) as reader,
        mysql(mainapp_database.writer_url, read_only=False) as writer,
    ):
        options = {"isolation_level": "REPEATABLE READ"}
        async with reader.connect() as plain, writer.connect() as changing:
            snapshot = await plain.execution_options(**options)
            before = (await snapshot.execute(count)).scalar()
            await changing.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
            await changing.execute(insert)
            await changing.commit()
            within = (await snapshot.execute(count)).scalar()
        after = await ask(reader, "SELECT COUNT(*) FROM user_addresses")
    assert (before, within, after) == (0, 0, 1)


async def test_mysql_statement_over_its_time(mainapp_database: MainAppDatabase) -> None:
    async with mysql(mainapp_database.writer_url, seconds=0.1) as engine:
        with pytest.raises(DeadlineExceeded) as caught:
            await ask(engine, SLOW)
        assert await ask(engine, "SELECT 1") == 1
    assert caught.value.metadata == {"database_code": "1969"}


@pytest.mark.fault
async def test_mysql_connection_that_dies_is_unavailable_and_replaced(
    mainapp_database: MainAppDatabase,
) -> None:
    target = make_url(mainapp_database.url)
    async with (
        FaultProxy(str(target.host), int(target.port or 0)) as proxy,
        mysql(through(mainapp_database.url, proxy), pool_size=1) as engine,
    ):
        await ask(engine, "SELECT 1")
        await proxy.cut()
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await ask(engine, "SELECT 1")
            assert caught.value.reason == "DATABASE_UNAVAILABLE"
        proxy.heal()
        assert await ask(engine, "SELECT 1") == 1


@pytest.mark.fault
async def test_mysql_that_hangs_is_given_up_on(mainapp_database: MainAppDatabase) -> None:
    target = make_url(mainapp_database.url)
    async with FaultProxy(str(target.host), int(target.port or 0)) as proxy:
        url = through(mainapp_database.url, proxy)
        async with mysql(url, pool_size=1, seconds=0.1) as engine:
            await ask(engine, "SELECT 1")
            proxy.stall()
            with pytest.raises(ServiceError) as caught:
                await ask(engine, "SELECT 1")
            assert isinstance(caught.value, DeadlineExceeded | Unavailable)
            proxy.heal()
            assert await ask(engine, "SELECT 1") == 1


@pytest.mark.fault
async def test_killed_mysql_session_is_unavailable_and_replaced(
    mainapp_database: MainAppDatabase,
) -> None:
    async with (
        mysql(mainapp_database.url, pool_size=1) as engine,
        mysql(mainapp_database.url, pool_size=1) as killer,
    ):
        session = await ask(engine, "SELECT CONNECTION_ID()")
        await ask(killer, f"KILL {session}")
        with pytest.raises(Unavailable):
            await ask(engine, "SELECT 1")
        assert await ask(engine, "SELECT 1") == 1


@pytest.mark.fault
async def test_cancelled_query_does_not_spoil_the_pool(
    mainapp_database: MainAppDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with mysql(mainapp_database.url, pool_size=1, seconds=30.0) as engine:
        await ask(engine, "SELECT 1")
        with pytest.raises(TimeoutError):
            await sleep_in(engine, 0.2)
        assert await ask(engine, "SELECT 7") == 7
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_lock_of_a_node_that_is_lost_is_soon_free(
    postgres_database: PostgresDatabase,
) -> None:
    """PostgreSQL itself says after how long it gives a silent session up."""
    dsn = make_url(postgres_database.url).set(drivername="postgresql")
    connection = await asyncpg.connect(
        dsn.render_as_string(hide_password=False), server_settings=lock_session("lock")
    )
    try:
        names = ("idle", "interval", "count")
        idle, interval, count = [
            int((await connection.fetchval(f"SHOW tcp_keepalives_{it}")).rstrip("s"))
            for it in names
        ]
    finally:
        await connection.close()
    assert 0 < idle + interval * count <= 60
