"""A queue service on real servers, its main app beside it, and time that moves when told to.

The fixtures are taken over by the conftest of each folder that tests the queue.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from dialler.model.v1.call_state_pb2 import (
    Callback,
    CallbackState,
    CallState,
    EntryState,
    Outcome,
    Queue,
)
from dialler.model.v1.change_pb2 import ChangeTimeline
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.queue.v1 import queue_pb2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from devstack.postgres_database import PostgresDatabase
from devstack.servers import PostgreSQL
from servicekit.event_stream import EventStream
from servicekit.migrations import upgrade
from servicekit.redis_client import redis_client
from services.queue.wire.messages import timestamp
from tests.fakes import waiting
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue


@pytest.fixture(scope="session")
def queue_template(postgres: PostgreSQL) -> PostgresDatabase:
    """A database with the queue's schema, for tests to have copies of."""
    database = PostgresDatabase.create(postgres)
    asyncio.run(upgrade(database.url, package="services.queue", schema="queue"))
    return database


@pytest.fixture
def queue_url(postgres: PostgreSQL, queue_template: PostgresDatabase) -> Iterator[str]:
    """A database with the queue's schema."""
    database = PostgresDatabase.create(postgres, template=queue_template.name)
    yield database.url
    database.drop()


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

    async def plan(self, sql: str) -> str:
        """Return how PostgreSQL goes about a statement when told to use indexes if it can."""
        async with self._engine.begin() as connection:
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
            found = await connection.execute(text(f"EXPLAIN {sql}"))
            return "\n".join(row[0] for row in found.all())


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

    async def take(
        self,
        user_id: int,
        agent_id: str = "agent",
        direction: queue_pb2.CallDirection.ValueType = queue_pb2.CALL_DIRECTION_INBOUND,
        *,
        is_supervisor: bool = False,
        request_id: str = "",
    ) -> queue_pb2.AssignUserResponse:
        """Take the call of a person, or choose one to phone, as this agent."""
        request = queue_pb2.AssignUserRequest(
            agent_id=agent_id,
            user_id=user_id,
            direction=direction,
            is_supervisor=is_supervisor,
            request_id=request_id or str(uuid4()),
        )
        return await self._running.stub.AssignUser(request)

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

    async def note(
        self,
        assignment: queue_pb2.Assignment,
        kind: str,
        at: datetime,
        *,
        actor_id: str = "bridge",
        own_only: bool = False,
        **known: Any,
    ) -> queue_pb2.RecordCallEventResponse:
        """Note what happened to the call of an assignment."""
        event = queue_pb2.CallEvent(
            kind=queue_pb2.CallEventKind.Value(f"CALL_EVENT_KIND_{kind.upper()}"),
            at=timestamp(at),
            **({"provider": "acme", "provider_call_id": "C1"} | known),
        )
        request = queue_pb2.RecordCallEventRequest(
            assignment_id=assignment.assignment_id,
            event=event,
            actor_id=actor_id,
            own_only=own_only,
        )
        return await self._running.stub.RecordCallEvent(request)

    async def miss(self, phone: str, missed_at: datetime) -> list[Callback]:
        """Note a call that we missed; returns the callbacks that are answered."""
        request = queue_pb2.RecordMissedCallRequest(
            phone=phone, missed_at=timestamp(missed_at), actor_id="bridge"
        )
        return list((await self._running.stub.RecordMissedCall(request)).callbacks)

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

    async def presence(
        self, agent_id: str, presence: queue_pb2.Presence.ValueType
    ) -> queue_pb2.Agent:
        """Say what an agent is doing."""
        request = queue_pb2.SetAgentPresenceRequest(agent_id=agent_id, presence=presence)
        return (await self._running.stub.SetAgentPresence(request)).agent

    async def agents(self) -> dict[str, queue_pb2.Agent]:
        """Return every agent known."""
        answer = await self._running.stub.ListAgents(queue_pb2.ListAgentsRequest())
        return {it.agent_id: it for it in answer.agents}

    async def schedule(
        self,
        user_id: int,
        scheduled_for: datetime,
        *,
        preferred: str = "",
        actor_id: str = "boss",
        request_id: str = "",
    ) -> Callback:
        """Agree a callback."""
        request = queue_pb2.ScheduleCallbackRequest(
            user_id=user_id,
            scheduled_for=timestamp(scheduled_for),
            preferred_agent_id=preferred,
            actor_id=actor_id,
            request_id=request_id or str(uuid4()),
        )
        return (await self._running.stub.ScheduleCallback(request)).callback

    async def reschedule(
        self,
        callback_id: str,
        scheduled_for: datetime,
        preferred: str | None = None,
        *,
        agent: str = "",
        request_id: str = "",
    ) -> Callback:
        """Move a callback, as the agent or else as the boss."""
        request = queue_pb2.RescheduleCallbackRequest(
            callback_id=callback_id,
            scheduled_for=timestamp(scheduled_for),
            preferred_agent_id=preferred,
            actor_id=agent or "boss",
            request_id=request_id or str(uuid4()),
            own_only=bool(agent),
        )
        return (await self._running.stub.RescheduleCallback(request)).callback

    async def cancel(self, callback_id: str, *, agent: str = "", request_id: str = "") -> Callback:
        """Call a callback off, as the agent or else as the boss."""
        request = queue_pb2.CancelCallbackRequest(
            callback_id=callback_id,
            actor_id=agent or "boss",
            request_id=request_id or str(uuid4()),
            own_only=bool(agent),
        )
        return (await self._running.stub.CancelCallback(request)).callback

    async def callbacks(
        self, state: CallbackState.ValueType = CallbackState.CALLBACK_STATE_OPEN, agent: str = ""
    ) -> list[Callback]:
        """Return callbacks in a state."""
        request = queue_pb2.ListCallbacksRequest(state=state, preferred_agent_id=agent)
        return list((await self._running.stub.ListCallbacks(request)).callbacks)

    async def suppress(self, user_id: int, notes: str = "asked for it") -> CallState:
        """Stop every call to a person."""
        request = queue_pb2.SuppressUserRequest(
            user_id=user_id, actor_id="boss", notes=notes, request_id=str(uuid4())
        )
        return (await self._running.stub.SuppressUser(request)).call_state

    async def lift(self, user_id: int) -> CallState:
        """Let a person be called again."""
        request = queue_pb2.LiftSuppressionRequest(
            user_id=user_id, actor_id="boss", notes="wrote to us", request_id=str(uuid4())
        )
        return (await self._running.stub.LiftSuppression(request)).call_state

    async def complain(
        self, user_id: int, *, is_open: bool = True, request_id: str = ""
    ) -> queue_pb2.NoteComplaintResponse:
        """Note that a complaint of a person is open, or closed."""
        request = queue_pb2.NoteComplaintRequest(
            user_id=user_id,
            is_open=is_open,
            actor_id="boss",
            request_id=request_id or str(uuid4()),
        )
        return await self._running.stub.NoteComplaint(request)

    async def pause(
        self,
        ends_at: datetime,
        *,
        queue: Queue.ValueType = Queue.QUEUE_UNSPECIFIED,
        begins_at: datetime | None = None,
        request_id: str = "",
    ) -> queue_pb2.Pause:
        """Pause hand-outs of a queue, or of all."""
        request = queue_pb2.BeginPauseRequest(
            queue=queue,
            begins_at=timestamp(begins_at),
            ends_at=timestamp(ends_at),
            reason="stocktaking",
            actor_id="boss",
            request_id=request_id or str(uuid4()),
        )
        return (await self._running.stub.BeginPause(request)).pause

    async def end_pause(self, pause_id: str, request_id: str = "") -> queue_pb2.Pause:
        """End a pause."""
        request = queue_pb2.EndPauseRequest(
            pause_id=pause_id, actor_id="boss", request_id=request_id or str(uuid4())
        )
        return (await self._running.stub.EndPause(request)).pause

    async def pauses(self) -> list[queue_pb2.Pause]:
        """Return the pauses in force or ahead."""
        return list((await self._running.stub.ListPauses(queue_pb2.ListPausesRequest())).pauses)

    async def import_phones(
        self,
        csv: bytes,
        *,
        list_name: str = "tps",
        is_complete: bool = False,
        allow_shrink: bool = False,
        dated_on: str = "",
        source: str = "",
        dry_run: bool = False,
        cut: int = 7,
    ) -> queue_pb2.ImportSuppressedPhonesResponse:
        """Take over a list of phone numbers, sent in small parts."""
        request = queue_pb2.ImportSuppressedPhonesRequest
        head = request(
            list_name=list_name,
            actor_id="boss",
            is_complete=is_complete,
            allow_shrink=allow_shrink,
            dated_on=dated_on,
            source=source,
            dry_run=dry_run,
        )
        parts = [request(csv=csv[at : at + cut]) for at in range(0, len(csv), cut)]

        async def sent() -> AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest]:
            for message in (head, *parts, request(is_last=True)):
                yield message

        return await self._running.stub.ImportSuppressedPhones(sent())

    async def explain(self, user_id: int, agent_id: str = "") -> queue_pb2.ExplainUserResponse:
        """Ask why a person is called, or not."""
        request = queue_pb2.ExplainUserRequest(user_id=user_id, agent_id=agent_id)
        return await self._running.stub.ExplainUser(request)

    async def rebuild(self) -> list[queue_pb2.RebuildResponse]:
        """Rebuild; returns all its progress."""
        told = self._running.stub.Rebuild(queue_pb2.RebuildRequest(actor_id="boss"))
        return [it async for it in told]

    async def audit(self, **asked: Any) -> list[queue_pb2.AuditEntry]:
        """Return what is kept of who saw and changed whom."""
        request = queue_pb2.ListAuditEntriesRequest(**asked)
        return list((await self._running.stub.ListAuditEntries(request)).entries)

    async def becomes(self, user_id: int, state: EntryState.ValueType) -> CallState:
        """Return the person's call state once it is this one."""
        return await until(lambda: self.state(user_id), lambda it: it.state == state)


T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], is_right: Callable[[T], bool]) -> T:
    """Ask again and again until the answer is right; fails after some seconds."""
    async with waiting.limit(30):
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
    redis = redis_client(redis_url, timeout_seconds=10.0)
    yield EventStream(redis)
    await redis.aclose()
