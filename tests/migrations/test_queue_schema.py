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
from services.queue.store.tables import SCHEMA, metadata

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
        applied.open_case_queue, applied.absent_since IS NOT NULL
    FROM queue.entries AS entry JOIN queue.applied_facts AS applied USING (user_id)
    ORDER BY user_id
"""


async def test_lists_of_before_editions_are_in_force_as_one_edition_each(
    postgres_database: PostgresDatabase,
) -> None:
    url = postgres_database.url
    await upgrade(url, package="services.queue", schema=SCHEMA, revision="0004")
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO queue.listed_phones (list_name, phone_e164) VALUES"
                    " ('own', '+447700900001'), ('tps', '+447700900001'), ('tps', '+447700900002')"
                )
            )
        await upgrade(url, package="services.queue", schema=SCHEMA)
        async with engine.connect() as connection:
            found = (await connection.execute(text(_IN_FORCE))).all()
    finally:
        await engine.dispose()
    assert [tuple(row) for row in found] == [
        ("own", 2, 1, True, ["+447700900001"]),
        ("tps", 2, 2, True, ["+447700900001", "+447700900002"]),
    ]


_IN_FORCE = """
    SELECT edition.list_name, edition.state, edition.numbers, edition.is_placed,
        array_agg(listed.phone_e164 ORDER BY listed.phone_e164)
    FROM queue.phone_list_editions AS edition JOIN queue.list_numbers AS listed USING (edition_id)
    GROUP BY edition.edition_id ORDER BY edition.list_name
"""


async def test_numbers_calls_objections_and_live_assignments_get_their_lines(
    postgres_database: PostgresDatabase,
) -> None:
    url = postgres_database.url
    await upgrade(url, package="services.queue", schema=SCHEMA, revision="0004")
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            for sql in _OF_ONE_NUMBER:
                await connection.execute(text(sql))
        await upgrade(url, package="services.queue", schema=SCHEMA)
        async with engine.connect() as connection:
            found = {
                name: [tuple(row) for row in (await connection.execute(text(sql))).all()]
                for name, sql in _LINES.items()
            }
    finally:
        await engine.dispose()
    assert found["people"] == [
        (1, ["+447700900001"], ["+447700900001"], "spoke", True),
        (2, [], [], None, False),
        *((it, ["+447700900900"], ["+447700900900"], None, False) for it in range(3, 24)),
    ]
    assert found["calls"] == [("+447700900001", 1), ("+447700900001", 1)]
    assert found["objections"] == [("+447700900002", 2)]
    assert found["live"] == [("+447700900001", ["+447700900001"])]
    # Twenty-one people have it: they are placed anew once the service runs.
    assert found["placeholders"] == found["unplaced"] == [("+447700900900",)]
    assert found["numbers"] == [(22,)]


_OF_ONE_NUMBER = (
    "INSERT INTO queue.entries (user_id, facts_version, fingerprint, phone_e164, eligible_reason,"
    " stay, state, reason, rank_key, attempts, attempts_in_stay, last_agent_id, fence,"
    " state_version) SELECT id, 1, 1, CASE WHEN id = 1 THEN '+447700900001' WHEN id > 2 THEN"
    " '+447700900900' END, 'NO_SIGNATURE', 1, 1, 'x', 0, 0, 0, CASE WHEN id = 1 THEN 'rang' END, 0,"
    " id FROM generate_series(1, 23) AS given(id)",
    # The later call was not answered: the agent of the earlier one spoke last.
    "INSERT INTO queue.attempts (assignment_id, user_id, agent_id, queue, outcome, notes, ended_at,"
    " phone_e164) VALUES (gen_random_uuid(), 1, 'spoke', 1, 7, '', now() - interval '1 day',"
    " '+447700900001'), (gen_random_uuid(), 1, 'rang', 1, 5, '', now(), '+447700900001')",
    "INSERT INTO queue.suppressions (suppression_id, user_id, phone_e164, created_by, created_at,"
    " notes) VALUES (gen_random_uuid(), 2, '+447700900002', 'boss', now(), '')",
    "INSERT INTO queue.assignments (assignment_id, agent_id, user_id, queue, reason, score, fence,"
    " started_at, lease_expires_at, phone_e164) VALUES (gen_random_uuid(), 'a', 1, 1,"
    " 'NO_SIGNATURE', 0, 1, now(), now(), '+447700900001')",
)
_LINES = {
    "people": "SELECT user_id, phones, lines, last_agent_id, last_spoken_at IS NOT NULL"
    " FROM queue.entries ORDER BY user_id",
    "calls": "SELECT phone_e164, user_id FROM queue.attempt_lines",
    "objections": "SELECT line.phone_e164, made.user_id FROM queue.suppression_lines AS line"
    " JOIN queue.suppressions AS made USING (suppression_id)",
    "live": "SELECT line.phone_e164, held.lines FROM queue.live_lines AS line"
    " JOIN queue.assignments AS held USING (assignment_id)",
    "placeholders": "SELECT phone_e164 FROM queue.placeholder_phones",
    "unplaced": "SELECT phone_e164 FROM queue.unplaced_phones",
    "numbers": "SELECT count(*) FROM queue.person_phones",
}
