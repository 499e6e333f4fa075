"""Callbacks that no agent was given are counted, and none that may not be phoned now."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from dialler.model.v1 import call_state_pb2
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from servicekit.database import postgres_engine
from services.queue.people.rulebook import Rulebook
from services.queue.people.time_zones import TimeZones
from services.queue.reads.gauges import QueueGauges
from services.queue.rules import DEFAULT_PATH
from services.queue.store import callbacks
from services.queue.store.database import Database
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def engine(queue_url: str) -> AsyncIterator[AsyncEngine]:
    made = postgres_engine(
        queue_url, pool_size=2, application_name="test", statement_timeout_seconds=5.0
    )
    yield made
    await made.dispose()


async def _gauge(engine: AsyncEngine, now: datetime) -> float | None:
    """Return the gauge as a replica of the queue sets it at that moment."""
    clock = FakeClock(now)
    database = Database(engine)
    rulebook = Rulebook(DEFAULT_PATH, database, clock)
    await rulebook.start()
    await QueueGauges(database, rulebook, TimeZones(database, clock)).run_once(now)
    return REGISTRY.get_sample_value("dialler_queue_callbacks_overdue")


async def test_a_callback_is_overdue_half_an_hour_after_its_time(
    desk: Desk, clock: FakeClock, engine: AsyncEngine
) -> None:
    await desk.fill(unsigned(1), unsigned(2), unsigned(3))
    at = clock.now() + 60 * MINUTE
    await desk.schedule(1, at)
    await desk.schedule(2, at - MINUTE)
    await desk.schedule(3, at + 60 * MINUTE)
    clock.advance(60 * MINUTE)
    await desk.becomes(1, READY)
    assert await _gauge(engine, at + 28 * MINUTE) == 0
    assert await _gauge(engine, at + 30 * MINUTE) == 2
    held = await desk.claim("agent")
    assert held.assignment.user_id == 2
    assert await _gauge(engine, at + 30 * MINUTE) == 1, "an agent has the other"


async def test_at_night_none_is_overdue_until_calling_hours_begin(
    desk: Desk, clock: FakeClock, engine: AsyncEngine, tables: Tables
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    await desk.schedule(1, datetime(2025, 6, 2, 18, 50, tzinfo=UTC))
    await desk.schedule(2, datetime(2025, 6, 2, 18, 50, tzinfo=UTC))
    night = datetime(2025, 6, 2, 19, 30, tzinfo=UTC)
    clock.move_wall_to(night)
    await desk.becomes(1, READY)
    await desk.becomes(2, READY)
    await tables.rows(
        "UPDATE queue.entries SET time_zone = 'America/New_York' WHERE user_id = 2 RETURNING 1"
    )
    assert await _gauge(engine, night) == 1, "it is afternoon in New York"
    assert await _gauge(engine, datetime(2025, 6, 3, 7, 0, tzinfo=UTC)) == 1, "morning in London"
    assert await _gauge(engine, datetime(2025, 6, 3, 12, 0, tzinfo=UTC)) == 2


async def test_what_bars_a_call_makes_no_callback_overdue(
    desk: Desk, clock: FakeClock, engine: AsyncEngine, tables: Tables
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    at = clock.now() + MINUTE
    await desk.schedule(1, at)
    await desk.schedule(2, at)
    clock.advance(MINUTE)
    await desk.becomes(1, READY)
    await desk.becomes(2, READY)
    later = at + 60 * MINUTE
    assert await _gauge(engine, later) == 2
    await desk.suppress(1)
    capped = later - MINUTE
    await tables.rows(
        "UPDATE queue.entries SET due_at = :at WHERE user_id = 2 RETURNING 1", at=capped
    )
    assert await _gauge(engine, later) == 0


async def test_a_callback_that_no_replica_promotes_is_overdue(
    queue_url: str, redis_url: str, clock: FakeClock, engine: AsyncEngine
) -> None:
    running: RunningQueue
    async with running_queue(
        queue_url, redis_url, clock=clock, promotion_interval_seconds=3600.0
    ) as running:
        desk = Desk(running)
        await desk.fill(unsigned(1))
        at = clock.now() + 60 * MINUTE
        await desk.schedule(1, at)
        clock.advance(60 * MINUTE)
        assert (await desk.state(1)).state == WAITING
        assert await _gauge(engine, at + 30 * MINUTE) == 1


async def test_the_count_reads_an_index_of_callbacks_and_one_of_people(tables: Tables) -> None:
    sql = str(callbacks.OVERDUE)
    for name, value in (("due_before", "now()"), ("usual", "true"), ("zones", "'{}'")):
        sql = sql.replace(f":{name}", value)
    plan = await tables.plan(sql)
    assert "Seq Scan" not in plan
    assert "callbacks_" in plan
