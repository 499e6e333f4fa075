"""PostgreSQL demoted while the queue's sessions stay open: agents notice it once, if at all."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dialler.model.v1 import call_state_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.postgres_database import PostgresDatabase
from devstack.processes import HOST, free_port
from devstack.rules import write_rules
from devstack.servers import PostgreSQL, PostgreSQLStandby
from servicekit.client import connect
from servicekit.errors import ServiceError, Unavailable
from servicekit.migrations import upgrade
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import unsigned
from tests.integration.queue.bench import Desk, until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

AGENTS = 8
CALLS = 6
# Enough that no person has to be called twice.
PEOPLE = range(1, 301)


@pytest.fixture
def all_hours(tmp_path: Path) -> Path:
    """Rules under which the hour of the test does not matter."""
    return write_rules(tmp_path / "all_hours.yaml")


@dataclass
class _Agents:
    """Agents who call one person after the other, and what they were answered."""

    desk: Desk
    # People whose outcome was acknowledged, by how often.
    acknowledged: Counter[int] = field(default_factory=Counter)
    refusals: dict[str, list[ServiceError]] = field(default_factory=dict)

    async def work(self, agent: str) -> None:
        refused = self.refusals.setdefault(agent, [])
        for _ in range(CALLS):
            held = None
            while held is None:
                try:
                    held = (await self.desk.claim(agent)).assignment
                    await self.desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
                except ServiceError as error:
                    refused.append(error)
                    held = None
                else:
                    self.acknowledged[held.user_id] += 1

    async def have_called(self) -> int:
        return self.acknowledged.total()

    def check(self, server: PostgreSQL, database: str) -> None:
        """Compare what agents were told with what the server has, by SQL that is not ours."""
        found = server.execute("SELECT user_id FROM queue.attempts", database=database)
        attempts = Counter(map(int, found.split()))
        assert attempts == self.acknowledged
        assert self.acknowledged.total() == AGENTS * CALLS
        held = "SELECT count(*) FROM queue.assignments WHERE ended_at IS NULL"
        assert server.execute(held, database=database) == "0"


async def _call(running: RunningQueue, agents: _Agents) -> "asyncio.Future[list[None]]":
    """Have agents at work, and return once some of them have called."""
    await agents.desk.fill(*map(unsigned, PEOPLE))
    working = asyncio.gather(*(agents.work(f"agent-{it}") for it in range(AGENTS)))
    await until(agents.have_called, lambda calls: calls >= AGENTS)
    return working


def _check_refusals(refusals: dict[str, list[ServiceError]], most: int) -> None:
    for errors in refusals.values():
        assert len(errors) <= most, errors
        for error in errors:
            assert isinstance(error, Unavailable), error
            assert error.reason == "DATABASE_READ_ONLY"
            assert error.retry_after_seconds is not None


async def test_sessions_left_open_on_a_demoted_postgres_cost_agents_one_try_or_two(
    own_postgres: PostgreSQL, redis_url: str, all_hours: Path
) -> None:
    database = PostgresDatabase.create(own_postgres)
    await upgrade(database.url, package="services.queue", schema="queue")
    async with running_queue(database.url, redis_url, rules_path=all_hours) as running:
        agents = _Agents(Desk(running))
        working = await _call(running, agents)
        await asyncio.to_thread(own_postgres.demote, serves_new_sessions=True)
        await working
        _check_refusals(agents.refusals, most=2)
    agents.check(own_postgres, database.name)


async def test_a_standby_is_promoted_and_the_primary_s_sessions_stay_open(
    own_postgres: PostgreSQL, own_standby: PostgreSQLStandby, redis_url: str, all_hours: Path
) -> None:
    database = PostgresDatabase.create(own_postgres)
    url = own_standby.url_with_primary(database.name)
    await upgrade(url, package="services.queue", schema="queue")
    async with running_queue(url, redis_url, rules_path=all_hours) as running:
        agents = _Agents(Desk(running))
        working = await _call(running, agents)
        await asyncio.to_thread(own_postgres.demote, serves_new_sessions=False)
        await asyncio.to_thread(own_standby.promote)
        promoted_at = {agent: len(errors) for agent, errors in agents.refusals.items()}
        await working
        after = {agent: errors[promoted_at[agent] :] for agent, errors in agents.refusals.items()}
        _check_refusals(after, most=2)
    agents.check(own_standby, database.name)


async def test_a_postgres_that_takes_no_writes_makes_the_queue_unready_until_it_does(
    own_postgres: PostgreSQL, redis_url: str, all_hours: Path
) -> None:
    database = PostgresDatabase.create(own_postgres)
    await upgrade(database.url, package="services.queue", schema="queue")
    serving = health_pb2.HealthCheckResponse.SERVING
    port = free_port()
    async with (
        running_queue(database.url, redis_url, rules_path=all_hours, grpc_port=port) as running,
        connect(f"{HOST}:{port}", name="queue", default_timeout_seconds=5) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)

        async def status() -> int:
            return int((await health.Check(health_pb2.HealthCheckRequest())).status)

        await until(status, lambda it: it == serving)
        await asyncio.to_thread(own_postgres.demote, serves_new_sessions=False)
        await until(status, lambda it: it != serving)
        with pytest.raises(Unavailable) as caught:
            await Desk(running).claim("agent")
        assert caught.value.reason == "DATABASE_READ_ONLY"
        await asyncio.to_thread(own_postgres.reinstate)
        await until(status, lambda it: it == serving)
        await Desk(running).fill(unsigned(1))
        assert (await Desk(running).claim("agent")).assignment.user_id == 1
