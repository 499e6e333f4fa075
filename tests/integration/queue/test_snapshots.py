"""What keeps PostgreSQL from cleaning up is seen."""

import pytest
from sqlalchemy import text

from devstack.postgres_database import PostgresDatabase
from servicekit.database import postgres_engine
from services.queue.store import reading
from services.queue.store.database import Database

pytestmark = pytest.mark.integration


async def test_a_snapshot_that_is_held_has_an_age(postgres_database: PostgresDatabase) -> None:
    engine = postgres_engine(
        postgres_database.url, pool_size=2, application_name="test", statement_timeout_seconds=5.0
    )
    database = Database(engine)
    held = engine.execution_options(isolation_level="REPEATABLE READ")
    async with held.connect() as connection:
        await connection.execute(text("SELECT pg_sleep(0.05)"))
        async with database.statements() as tx:
            while_held = await reading.oldest_snapshot_seconds(tx)
    async with database.statements() as tx:
        afterwards = await reading.oldest_snapshot_seconds(tx)
    await engine.dispose()
    assert while_held >= 0.05
    assert afterwards < while_held
