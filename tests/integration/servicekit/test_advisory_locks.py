"""The lock of the one that works: it lasts as long as its connection, however long that idles."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from devstack.postgres_database import PostgresDatabase
from servicekit.advisory_lock import AdvisoryLock
from servicekit.errors import Unavailable

pytestmark = pytest.mark.integration

IDLE_LIMIT = "100ms"


@pytest.fixture
def dsn(postgres_database: PostgresDatabase) -> str:
    url = make_url(postgres_database.url).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


async def _run(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def _outlive_an_idle_session(dsn: str) -> None:
    """Return once PostgreSQL has ended two sessions that idle, one of them in a transaction."""
    for begin in ("SELECT 1", "BEGIN"):
        ended = asyncio.Event()
        connection = await asyncpg.connect(dsn)
        connection.add_termination_listener(lambda _, ended=ended: ended.set())
        await connection.execute(begin)
        await ended.wait()


@pytest.mark.parametrize("is_behind_pgbouncer", [False, True])
async def test_a_lock_is_held_for_longer_than_sessions_may_idle(
    dsn: str, postgres_database: PostgresDatabase, is_behind_pgbouncer: bool
) -> None:
    name = make_url(dsn).database
    for limit in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
        await _run(dsn, f"ALTER DATABASE {name} SET {limit} = '{IDLE_LIMIT}'")
    lock = AdvisoryLock(dsn, 7, name="lock", is_behind_pgbouncer=is_behind_pgbouncer)
    other = AdvisoryLock(dsn, 7, name="other")
    try:
        assert await lock.acquire()
        await _outlive_an_idle_session(dsn)
        assert lock.is_held
        await lock.confirm()
        assert not await other.acquire()
        await lock.release()
        assert await other.acquire()
    finally:
        await lock.release()
        await other.release()


async def test_a_lock_that_is_lost_is_known_to_be(dsn: str) -> None:
    lock, other = AdvisoryLock(dsn, 1, 2, name="lock"), AdvisoryLock(dsn, 1, 2, name="other")
    try:
        assert await lock.acquire()
        assert not await other.acquire()
        await _run(dsn, f"SELECT pg_terminate_backend({lock.pid})")
        await lock.lost.wait()
        assert not lock.is_held
        with pytest.raises(Unavailable):
            await lock.confirm()
        assert await other.acquire()
        assert not await lock.acquire()
    finally:
        await lock.release()
        await other.release()
