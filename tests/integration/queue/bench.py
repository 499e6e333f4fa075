"""A queue service on real servers, its main app beside it, and time that moves when told to.

The fixtures are taken over by the conftest of each folder that tests the queue.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from dialler.model.v1.call_state_pb2 import CallState, EntryState, Outcome, Queue
from dialler.model.v1.change_pb2 import ChangeTimeline
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.queue.v1 import queue_pb2
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from devstack.postgres_database import PostgresDatabase
from servicekit.event_stream import EventStream
from servicekit.migrations import upgrade
from servicekit.testing.clock import FakeClock
from services.queue.messages import timestamp
from services.queue.testing import RunningQueue, running_queue


@pytest.fixture
async def queue_url(postgres_database: PostgresDatabase) -> str:
    """A database with the queue's schema."""
    await upgrade(postgres_database.url, package="services.queue", schema="queue")
    return postgres_database.url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def queue(queue_url: str, redis_url: str, clock: FakeClock) -> AsyncIterator[RunningQueue]:
    """A queue whose loops run often, since the clock decides what they find."""
    intervals: dict[str, Any] = {
        "promotion_interval_seconds": 0.02,
        "lease_sweep_interval_seconds": 0.02,
        "dispatch_interval_seconds": 0.05,
    }
    async with running_queue(queue_url, redis_url, clock=clock, **intervals) as running:
        yield running


class Tables:
    """The queue's tables as they are."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        """Return the rows of a statement."""
        async with self._engine.begin() as connection:
            found = await connection.execute(text(sql), values)
            return list(found.all()) if found.returns_rows else []

    async def value(self, sql: str, **values: Any) -> Any:
        """Return the one value of a statement."""
        return (await self.rows(sql, **values))[0][0]


@pytest.fixture
async def tables(queue_url: str) -> AsyncIterator[Tables]:
    engine = create_async_engine(queue_url, poolclass=NullPool)
    yield Tables(engine)
    await engine.dispose()


class Desk:
    """What agents and change capture do, in one line each."""

    def __init__(self, running: RunningQueue) -> None:
        self._running = running

    async def apply(
        self, *user_ids: int, timeline: ChangeTimeline | None = None
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Apply what the main app says of these people now."""
        facts = self._running.main_app.drawn(user_ids)
        timelines = {} if timeline is None else dict.fromkeys(user_ids, timeline)
        request = queue_pb2.ApplyUserFactsRequest(facts=facts, timelines=timelines)
        return await self._running.stub.ApplyUserFacts(request)

    async def fill(self, *people: UserFacts) -> None:
        """Put people into the main app and let the queue know of them."""
        self._running.main_app.put(*people)
        await self.apply(*(facts.user_id for facts in people))

    async def claim(
        self, agent_id: str, *queues: Queue.ValueType, request_id: str = ""
    ) -> queue_pb2.ClaimNextResponse:
        """Claim as this agent."""
        request = queue_pb2.ClaimNextRequest(
            agent_id=agent_id, queues=queues, request_id=request_id or str(uuid4())
        )
        return await self._running.stub.ClaimNext(request)

    async def record(
        self,
        assignment: queue_pb2.Assignment,
        outcome: Outcome.ValueType,
        *,
        agent_id: str = "",
        notes: str = "",
        callback_at: datetime | None = None,
        request_id: str = "",
    ) -> queue_pb2.RecordOutcomeResponse:
        """Record an outcome, as the agent who holds the assignment unless told otherwise."""
        request = queue_pb2.RecordOutcomeRequest(
            assignment_id=assignment.assignment_id,
            agent_id=agent_id or assignment.agent_id,
            outcome=outcome,
            notes=notes,
            callback_at=timestamp(callback_at),
            request_id=request_id or str(uuid4()),
        )
        return await self._running.stub.RecordOutcome(request)

    async def release(
        self,
        assignment: queue_pb2.Assignment,
        reason: queue_pb2.ReleaseReason.ValueType = queue_pb2.RELEASE_REASON_AGENT_LEAVING,
        *,
        agent_id: str = "",
        request_id: str = "",
    ) -> queue_pb2.ReleaseAssignmentResponse:
        """Give the person back."""
        request = queue_pb2.ReleaseAssignmentRequest(
            assignment_id=assignment.assignment_id,
            agent_id=agent_id or assignment.agent_id,
            reason=reason,
            request_id=request_id or str(uuid4()),
        )
        return await self._running.stub.ReleaseAssignment(request)

    async def heartbeat(
        self, assignment: queue_pb2.Assignment, agent_id: str = ""
    ) -> queue_pb2.Assignment:
        """Extend the lease."""
        request = queue_pb2.HeartbeatAssignmentRequest(
            assignment_id=assignment.assignment_id, agent_id=agent_id or assignment.agent_id
        )
        return (await self._running.stub.HeartbeatAssignment(request)).assignment

    async def current(self, agent_id: str) -> queue_pb2.Assignment:
        """Return what the agent holds."""
        request = queue_pb2.GetCurrentAssignmentRequest(agent_id=agent_id)
        return (await self._running.stub.GetCurrentAssignment(request)).assignment

    async def state(self, user_id: int) -> CallState:
        """Return a person's call state."""
        request = queue_pb2.BatchGetCallStatesRequest(user_ids=[user_id])
        return (await self._running.stub.BatchGetCallStates(request)).call_states[0]

    async def stats(self) -> queue_pb2.GetQueueStatsResponse:
        """Return the figures."""
        return await self._running.stub.GetQueueStats(queue_pb2.GetQueueStatsRequest())

    async def becomes(self, user_id: int, state: EntryState.ValueType) -> CallState:
        """Return the person's call state once it is this one."""
        return await until(lambda: self.state(user_id), lambda it: it.state == state)


T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], is_right: Callable[[T], bool]) -> T:
    """Ask again and again until the answer is right; fails after some seconds."""
    async with asyncio.timeout(10):
        while True:
            answer = await ask()
            if is_right(answer):
                return answer
            await asyncio.sleep(0.01)


@pytest.fixture
def desk(queue: RunningQueue) -> Desk:
    return Desk(queue)


@pytest.fixture
async def stream(redis_url: str) -> AsyncIterator[EventStream]:
    redis = Redis.from_url(redis_url)
    yield EventStream(redis)
    await redis.aclose()
