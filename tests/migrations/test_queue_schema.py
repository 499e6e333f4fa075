"""The queue's history leads to the very tables its code speaks of, to the last index."""

import asyncio

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from devstack.postgres_database import PostgresDatabase
from devstack.servers import PostgreSQL
from servicekit.migrations import upgrade
from services.queue.store.applied_facts import digest_of
from services.queue.tables import SCHEMA, metadata

pytestmark = pytest.mark.integration

# What autogenerate does not compare: predicates, orders, storage and checks as well.
_DEFINITIONS = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity,"
    " identity_generation FROM information_schema.columns WHERE table_schema = 'queue'",
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'queue'",
    "SELECT c.relname, c.relkind, c.reloptions FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'queue'",
    "SELECT sequencename, cache_size, increment_by FROM pg_sequences WHERE schemaname = 'queue'",
    "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'queue'::regnamespace",
)


async def _definitions(url: str) -> list[list[str]]:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            found = [await connection.execute(text(sql)) for sql in _DEFINITIONS]
            return [
                sorted(str(tuple(row)) for row in rows.all() if "alembic_version" not in str(row))
                for rows in found
            ]
    finally:
        await engine.dispose()


def _create(connection: Connection) -> None:
    connection.execute(CreateSchema(SCHEMA))
    metadata.create_all(connection)


async def test_history_and_tables_agree(
    postgres_database: PostgresDatabase, postgres: PostgreSQL
) -> None:
    await upgrade(postgres_database.url, package="services.queue", schema=SCHEMA)
    declared = PostgresDatabase.create(postgres)
    engine = create_async_engine(declared.url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_create)
        expected = await _definitions(declared.url)
    finally:
        await engine.dispose()
        declared.drop()
    assert all(expected)
    found = await _definitions(postgres_database.url)
    for of_history, of_tables in zip(found, expected, strict=True):
        assert set(of_history) ^ set(of_tables) == set()
    assert found == expected


async def test_upgrades_at_the_same_time_and_again_do_no_harm(
    postgres_database: PostgresDatabase,
) -> None:
    url = postgres_database.url
    await asyncio.gather(*(upgrade(url, package="services.queue", schema=SCHEMA) for _ in range(3)))
    before = await _definitions(url)
    await upgrade(url, package="services.queue", schema=SCHEMA)
    assert await _definitions(url) == before


async def test_what_was_applied_before_digests_covered_fingerprints_is_still_right(
    postgres_database: PostgresDatabase,
) -> None:
    """Sound records stay sound, one altered by hand stays altered, who is gone is known to be."""
    url = postgres_database.url
    await upgrade(url, package="services.queue", schema=SCHEMA, revision="0003")
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            for sql in _BEFORE:
                await connection.execute(text(sql))
        await upgrade(url, package="services.queue", schema=SCHEMA)
        async with engine.connect() as connection:
            found = (await connection.execute(text(_AFTER))).all()
    finally:
        await engine.dispose()
    assert [tuple(row) for row in found] == [
        (1, False, 1, False),
        (2, False, None, True),
        (3, True, None, False),
    ]


_BEFORE = (
    "INSERT INTO queue.entries (user_id, facts_version, fingerprint, eligible_reason, owes, stay,"
    " state, reason, rank_key, attempts, attempts_in_stay, fence, state_version) VALUES"
    " (1, 1, 1, 'NO_SIGNATURE', 1, 1, 1, 'x', 0, 0, 0, 0, 1),"
    " (2, 1, 1, 'USER_NOT_FOUND', NULL, 0, 5, 'x', 0, 0, 0, 0, 2),"
    " (3, 1, 1, 'NO_SIGNATURE', 1, 1, 1, 'x', 0, 0, 0, 0, 3),"
    " (4, 1, 1, 'NO_SIGNATURE', 1, 1, 1, 'x', 0, 0, 0, 0, 4)",
    "INSERT INTO queue.applied_facts (user_id, row_fingerprints, digest)"
    " SELECT user_id, 'r', hash_record_extended(ROW(user_id, facts_version, fingerprint,"
    " phone_e164, time_zone, eligible_queue, eligible_reason, owes, stay, lender_points,"
    " age_points, age_points_until, claimed_at), 0) FROM queue.entries WHERE user_id < 4",
    "UPDATE queue.entries SET owes = 2 WHERE user_id = 3",
)
_AFTER = f"""
    SELECT entry.user_id, applied.digest <> {digest_of("entry", "applied.row_fingerprints")},
        applied.owes, applied.absent_since IS NOT NULL
    FROM queue.entries AS entry JOIN queue.applied_facts AS applied USING (user_id)
    ORDER BY user_id
"""
