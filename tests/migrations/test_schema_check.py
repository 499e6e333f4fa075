"""New code on an older schema is not ready, and says why; old code on a newer one is."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from devstack.postgres_database import PostgresDatabase
from servicekit.errors import FailedPrecondition
from servicekit.migrations import SchemaCheck, upgrade

pytestmark = pytest.mark.integration

OWNERS = ("binlog_relay", "queue", "reconciler", "user_context")


@pytest.fixture
async def engine(postgres_database: PostgresDatabase) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(
        postgres_database.url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool
    )
    yield made
    await made.dispose()


async def _execute(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement))


@pytest.mark.parametrize("service", OWNERS)
async def test_a_schema_that_is_not_migrated_is_refused_until_it_is(
    postgres_database: PostgresDatabase, engine: AsyncEngine, service: str
) -> None:
    check = SchemaCheck(engine, f"services.{service}", service)
    with pytest.raises(FailedPrecondition, match=r"is at no revision") as refused:
        await check()
    assert refused.value.reason == "SCHEMA_OLD"
    await upgrade(postgres_database.url, package=f"services.{service}", schema=service)
    await check()


async def test_an_older_revision_is_refused_and_a_newer_one_is_not(
    postgres_database: PostgresDatabase, engine: AsyncEngine
) -> None:
    url = postgres_database.url
    await upgrade(url, package="services.queue", schema="queue", revision="0008")
    check = SchemaCheck(engine, "services.queue", "queue")
    with pytest.raises(FailedPrecondition, match=r"at 0008, this code needs .*servicekit.migr"):
        await check()
    await upgrade(url, package="services.queue", schema="queue")
    await _execute(engine, "UPDATE queue.alembic_version SET version_num = '9999'")
    await SchemaCheck(engine, "services.queue", "queue")()


async def test_a_server_that_does_not_answer_is_left_to_the_services_own_check() -> None:
    away = create_async_engine("postgresql+asyncpg://a:b@127.0.0.1:1/c", poolclass=NullPool)
    await SchemaCheck(away, "services.queue", "queue")()
    await away.dispose()
