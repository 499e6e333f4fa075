"""The relay's history leads to the tables its code speaks of."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from devstack.postgres_database import PostgresDatabase
from servicekit.migrations import upgrade
from services.binlog_relay.tables import SCHEMA, metadata

pytestmark = pytest.mark.integration


async def test_history_and_tables_agree(postgres_database: PostgresDatabase) -> None:
    await upgrade(postgres_database.url, package="services.binlog_relay", schema=SCHEMA)
    engine = create_async_engine(postgres_database.url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(_differences) == []
    finally:
        await engine.dispose()


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection,
        opts={
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
            "include_object": lambda _, name, __, ___, ____: name != "alembic_version",
            "compare_server_default": True,
        },
    )
    return list(compare_metadata(context, metadata))


async def test_the_services_own_address_will_do(postgres_database: PostgresDatabase) -> None:
    # As BINLOG_RELAY_POSTGRES_URL has it, without a driver.
    url = postgres_database.url.replace("postgresql+asyncpg:", "postgresql:")
    await upgrade(url, package="services.binlog_relay", schema=SCHEMA)
