"""What agents did survives the loss of everything but PostgreSQL; nothing else holds them up."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub
from redis.asyncio import Redis as RedisClient

from devstack.postgres_database import PostgresDatabase
from devstack.rules import write_rules
from devstack.servers import PostgreSQL, Redis
from servicekit.client import connect
from servicekit.errors import ServiceError, Unavailable
from servicekit.event_stream import EventStream, StreamPosition
from servicekit.migrations import upgrade
from tests.fakes import waiting
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.upstreams import serving_doubles
from tests.fakes.user_context import FakeUserContext
from tests.fakes.user_facts import done, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.fault

READY = call_state_pb2.ENTRY_STATE_READY


@pytest.fixture
def all_hours(tmp_path: Path) -> Path:
    """Rules under which the hour of the test does not matter."""
    return write_rules(tmp_path / "all_hours.yaml")


@pytest.fixture
async def on_own_redis(
    queue_url: str, own_redis: Redis, all_hours: Path
) -> AsyncIterator[RunningQueue]:
    """A queue whose Redis may be killed; on the machine's clock, which its pauses go by."""
    async with running_queue(queue_url, own_redis.url(), rules_path=all_hours) as running:
        yield running


async def test_events_wait_in_the_outbox_while_redis_is_down(
    on_own_redis: RunningQueue, own_redis: Redis, tables: Tables
) -> None:
    desk = Desk(on_own_redis)
    await desk.fill(unsigned(1), unsigned(2))
    own_redis.kill()
    held = (await desk.claim("agent")).assignment
    answer = await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    assert answer.call_state.attempts == 1
    assert await tables.value("SELECT count(*) FROM queue.outbox") == 3
    # user_context is told all the same.
    invalidated = on_own_redis.main_app.invalidated
    await _until_version(invalidated, 2, answer.call_state.version)
    own_redis.start()
    client = RedisClient.from_url(own_redis.url())
    count = "SELECT count(*) FROM queue.outbox"
    await until(lambda: tables.value(count), lambda it: it == 0)
    stream = EventStream(client)
    beginning = StreamPosition((await stream.position()).epoch, "0-0")
    told = await stream.read(beginning, block_seconds=0, count=10)
    types = [event.type for _, event in told]
    assert types == [
        event_pb2.EVENT_TYPE_ASSIGNMENT_STARTED,
        event_pb2.EVENT_TYPE_OUTCOME_RECORDED,
        event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED,
    ]
    await client.aclose()


async def _until_version(invalidated: dict[int, int], user_id: int, version: int) -> None:
    async def ask() -> int:
        return invalidated.get(user_id, 0)

    await until(ask, lambda it: it == version)


async def test_a_user_context_that_is_away_holds_up_no_event(
    queue_url: str, redis_url: str, stream: EventStream, tables: Tables, all_hours: Path
) -> None:
    fake = FakeUserContext()  # type: ignore[abstract]
    async with running_queue(queue_url, redis_url, main_app=fake, rules_path=all_hours) as running:
        desk = Desk(running)
        await desk.fill(unsigned(1))
        start = await stream.position()
        held = (await desk.claim("agent")).assignment
        fake.is_unavailable = True
        await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
        told = 0
        while told < 3:
            batch = await stream.read(start, block_seconds=4, count=10)
            assert batch
            start, told = batch[-1][0], told + len(batch)
        stale = "SELECT count(*) FROM queue.stale_call_states WHERE user_id = 1"
        assert await tables.value(stale) > 0
        fake.is_unavailable = False
        await until(lambda: tables.value(stale), lambda it: it == 0)


@asynccontextmanager
async def _process(**variables: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the service as its own process and yield it with its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.queue"),
        env={**os.environ, **{f"QUEUE_{name}": value for name, value in variables.items()}},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with waiting.limit(20):
            async for line in process.stdout:
                entry = json.loads(line)
                if entry["event"] == "listening":
                    yield process, entry["address"]
                    return
        raise AssertionError("the service has not started")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_hand_out_killed_after_its_reservation_loses_no_user(
    queue_url: str, redis_url: str, tables: Tables, all_hours: Path, tmp_path: Path
) -> None:
    """No process is left to release the reservation; it lapses."""
    rules = write_rules(tmp_path / "rules.yaml", reservation_seconds=1.5)
    fake = FakeUserContext()  # type: ignore[abstract]
    checking, may_answer = asyncio.Event(), asyncio.Event()

    async def hold(_: object) -> None:
        checking.set()
        await may_answer.wait()

    fake.before_read = hold
    variables = {"POSTGRES_URL": queue_url, "REDIS_URL": redis_url, "RULES_PATH": str(rules)}
    async with (
        running_queue(queue_url, redis_url, main_app=fake, rules_path=all_hours) as living,
        serving_doubles(user_context=fake) as (target,),
        _process(**variables, USER_CONTEXT_TARGET=target) as (process, address),
        connect(address, name="queue", default_timeout_seconds=10, retry_codes=()) as channel,
    ):
        dying = Desk(RunningQueue(QueueServiceStub(channel), fake, living.settings))
        await dying.fill(unsigned(1))
        claim = asyncio.create_task(dying.claim("agent"))
        await checking.wait()
        process.kill()
        with pytest.raises(Unavailable):
            await claim
        reserved = "SELECT state, reserved_by IS NOT NULL FROM queue.entries"
        assert [tuple(it) for it in await tables.rows(reserved)] == [(6, True)]
        may_answer.set()
        desk = Desk(living)
        # To others the person is READY all along.
        assert (await desk.state(1)).state == READY
        await until(lambda: desk.claim("other"), lambda it: it.assignment.user_id == 1)
        assert await tables.value("SELECT count(*) FROM queue.assignments") == 1


async def test_postgres_restarted_in_mid_work_loses_nothing_answered(
    own_postgres: PostgreSQL, redis_url: str, all_hours: Path
) -> None:
    database = PostgresDatabase.create(own_postgres)
    await upgrade(database.url, package="services.queue", schema="queue")
    async with running_queue(database.url, redis_url, rules_path=all_hours) as running:
        desk = Desk(running)
        await desk.fill(*(unsigned(user_id) for user_id in range(1, 101)))
        answered: list[int] = []

        async def work(agent: str) -> None:
            for _ in range(4):
                try:
                    held = (await desk.claim(agent)).assignment
                    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
                    answered.append(held.user_id)
                except ServiceError:
                    continue

        first = asyncio.gather(*(work(f"agent-{it}") for it in range(8)))
        await until(_length(answered), lambda it: it >= 4)
        await asyncio.to_thread(own_postgres.kill)
        with pytest.raises(ServiceError):
            await desk.claim("late")
        await asyncio.to_thread(own_postgres.start)
        await first
        await until(lambda: _stats_or_none(desk), lambda it: it)
        for user_id in answered:
            assert (await desk.state(user_id)).attempts == 1
        assert len(set(answered)) == len(answered)


def _length(items: list[int]) -> Callable[[], Awaitable[int]]:
    async def ask() -> int:
        return len(items)

    return ask


async def _stats_or_none(desk: Desk) -> bool:
    try:
        await desk.stats()
    except ServiceError:
        return False
    return True


async def test_a_main_app_that_dies_during_many_hand_outs_hands_no_user_out(
    queue_url: str, redis_url: str, tables: Tables, all_hours: Path
) -> None:
    async with running_queue(
        queue_url, redis_url, live_check_seconds=0.2, rules_path=all_hours
    ) as running:
        desk = Desk(running)
        await desk.fill(*(unsigned(user_id) for user_id in range(1, 21)))
        # All have signed; MySQL is away, so no process can know.
        running.main_app.put(*(done(user_id) for user_id in range(1, 21)))
        running.main_app.is_unavailable = True
        answers = await asyncio.gather(
            *(desk.claim(f"agent-{it}") for it in range(20)), return_exceptions=True
        )
        assert all(isinstance(it, Unavailable) for it in answers)
        assert {it.reason for it in answers if isinstance(it, Unavailable)} == {
            "MAIN_APP_UNAVAILABLE"
        }
        assert await tables.value("SELECT count(*) FROM queue.assignments") == 0
        states = await tables.rows("SELECT DISTINCT state FROM queue.entries")
        assert [it[0] for it in states] == [READY]
