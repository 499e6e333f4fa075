"""Of the replicas of a service one leads, and each knows when it no longer does."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from devstack.postgres_database import PostgresDatabase
from servicekit.leadership import Leadership

pytestmark = pytest.mark.integration


async def _end_session(url: str, name: str) -> None:
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
            name,
        )
    finally:
        await connection.close()


async def test_one_replica_leads_until_it_releases_the_lock(
    postgres_database: PostgresDatabase,
) -> None:
    first = Leadership(postgres_database.url, 7, name="first")
    second = Leadership(postgres_database.url, 7, name="second")
    try:
        assert await first.is_ours()
        assert await first.is_ours()
        assert not await second.is_ours()
        await first.release()
        assert not first.is_held
        assert await second.is_ours()
    finally:
        await first.release()
        await second.release()


async def test_a_standby_replica_takes_over_when_the_leading_one_loses_its_session(
    postgres_database: PostgresDatabase,
) -> None:
    url = postgres_database.url
    first, second = (Leadership(url, 1, 2, name=name) for name in ("first", "second"))

    async def stand_by() -> None:
        async with second.held() as lost:
            assert not lost.is_set()
            assert second.is_held

    async with first.held() as lost:
        standby = asyncio.create_task(stand_by())
        await _end_session(url, "first")
        await lost.wait()
        assert not first.is_held
        await standby
    assert not second.is_held
