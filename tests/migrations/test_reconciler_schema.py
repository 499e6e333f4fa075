"""The reconciler's history leads to the tables its code speaks of."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from devstack.postgres_database import PostgresDatabase
from servicekit.leadership import Leadership
from servicekit.migrations import upgrade
from services.reconciler.store import LOCK_KEY
from services.reconciler.tables import SCHEMA, metadata
from tests.fakes import waiting

pytestmark = pytest.mark.integration


async def test_history_and_tables_agree(postgres_database: PostgresDatabase) -> None:
    await upgrade(postgres_database.url, package="services.reconciler", schema=SCHEMA)
    engine = create_async_engine(postgres_database.url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(_differences) == []
    finally:
        await engine.dispose()


async def test_a_copy_at_work_does_not_hold_its_migration_up(
    postgres_database: PostgresDatabase,
) -> None:
    # As in a roll-out, where the old code works until the new one's tables are there.
    leadership = Leadership(postgres_database.url, LOCK_KEY, name="reconciler-lock")
    assert await leadership.is_ours()
    try:
        async with waiting.limit(15):
            await upgrade(postgres_database.url, package="services.reconciler", schema=SCHEMA)
    finally:
        await leadership.release()


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
