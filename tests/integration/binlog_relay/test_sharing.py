"""One active replica, a failing SQS, a slow SQS, and an unavailable PostgreSQL."""

import asyncio
from typing import Any

import aiohttp
import asyncpg
import pytest
from sqlalchemy.engine import make_url

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.queues import SqsQueue
from devstack.servers import PostgreSQL
from servicekit.database import postgres_engine
from servicekit.errors import Conflict
from servicekit.lifecycle import Parts
from servicekit.migrations import upgrade
from services.binlog_relay.app import build
from services.binlog_relay.domain.positions import BinlogPosition
from services.binlog_relay.store import PositionStore
from tests.fakes.reconciler import FakeReconciler
from tests.integration.binlog_relay.bench import RelayBench


async def test_of_two_replicas_one_is_active_and_the_other_takes_over(bench: RelayBench) -> None:
    async with bench.relay() as first:
        second = build(bench.settings())
        await second.start()
        try:
            await bench.add_users([1])
            received = await bench.receive_records(1)
            assert (await bench.position(first)).active
            standby = await bench.position(second)
            assert not standby.active
            assert standby.file
            await first.stop()
            await bench.add_users([2])
            await bench.receive(lambda so_far: 2 in so_far.ids(), received)
            await bench.until(lambda: is_active(bench, second))
        finally:
            await second.stop()
    assert bench.reconciler.reasons == ["binlog_relay: first_start"]


async def test_a_replica_whose_lock_connection_dies_stops_and_comes_back(bench: RelayBench) -> None:
    async with bench.relay() as parts:
        await bench.add_users([1])
        received = await bench.receive_records(1)
        await end_lock_connections(bench.postgres)
        await bench.until(lambda: is_active(bench, parts, expected=False))
        await bench.add_users([2])
        await bench.receive(lambda so_far: 2 in so_far.ids(), received)


async def test_a_superseded_replica_cannot_save(bench: RelayBench) -> None:
    engine = postgres_engine(
        bench.postgres.url, pool_size=1, application_name="test", statement_timeout_seconds=3
    )
    store = PositionStore(engine, "somewhere")
    early, _ = await store.begin_epoch()
    late, saved = await store.begin_epoch()
    assert saved.position is None
    await store.save(late, BinlogPosition("s", "binlog.2", 2, "0-1-2"), 5)
    with pytest.raises(Conflict, match="RELAY_SUPERSEDED"):
        await store.save(early, BinlogPosition("s", "binlog.1", 1), 1)
    found = await store.read()
    await engine.dispose()
    assert found.position == BinlogPosition("s", "binlog.2", 2, "0-1-2")
    assert found.records_published == 5


async def test_entries_that_fail_inside_an_answer_are_sent_again(bench: RelayBench) -> None:
    async with bench.relay(max_message_bytes=2_000) as parts:
        await order_faults(bench, "SendMessageBatch", entries=40, requests=3)
        await bench.add_users(range(1, 101))
        received = await bench.receive(lambda so_far: len(set(so_far.ids())) == 100)
        await bench.caught_up(parts)
    assert sorted(received.ids()) == list(range(1, 101))


async def test_the_position_waits_for_sqs_and_memory_stays_bounded(bench: RelayBench) -> None:
    async with bench.relay(backlog_bytes=65_536) as parts:
        before = await bench.position(parts)
        await order_faults(bench, "SendMessageBatch", requests=25)
        await bench.add_users(range(1, 3_001))
        during = await bench.position(parts)
        received = await bench.receive_records(3_000)
        await bench.caught_up(parts)
    assert (during.file, during.offset) == (before.file, before.offset)
    assert sorted(received.ids()) == list(range(1, 3_001))


async def test_postgresql_goes_away_and_comes_back(
    own_postgres: PostgreSQL,
    mainapp_database: MainAppDatabase,
    sqs_queue: SqsQueue,
    reconciler: tuple[FakeReconciler, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    database = PostgresDatabase.create(own_postgres)
    await upgrade(database.url, package="services.binlog_relay", schema="binlog_relay")
    bench = RelayBench(mainapp_database, database, sqs_queue, *reconciler)
    async with bench.relay() as parts:
        await bench.add_users([1])
        received = await bench.receive_records(1)
        await asyncio.to_thread(own_postgres.kill)
        await bench.add_users([2])
        await asyncio.to_thread(own_postgres.start)
        await bench.add_users([3])
        await bench.receive(lambda so_far: {1, 2, 3} <= set(so_far.ids()), received)
        await bench.caught_up(parts)
    assert bench.reconciler.reasons == ["binlog_relay: first_start"]


async def is_active(bench: RelayBench, parts: Parts, *, expected: bool = True) -> bool:
    return (await bench.position(parts)).active is expected


async def order_faults(
    bench: RelayBench, action: str, *, requests: int = 0, entries: int = 0
) -> None:
    order: dict[str, Any] = {"action": action, "requests": requests, "entries": entries}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{bench.queue.endpoint_url}/_faults", json=order) as answer,
    ):
        assert answer.status == 204


async def end_lock_connections(database: PostgresDatabase) -> None:
    """End the connections that hold a lock, as a network would; those of this database only."""
    url = make_url(database.url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        ended = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
            " application_name LIKE 'binlog_relay-lock@%' AND datname = current_database()"
        )
    finally:
        await connection.close()
    assert len(ended) == 1
