"""Topics of the live stream: which role may follow which, and figures read once for all."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2
from redis.asyncio import Redis as RedisClient

from devstack.servers import Redis
from gateway.live.topics import SHOWN
from servicekit.errors import Unavailable
from servicekit.event_stream import EventStream
from servicekit.redis_client import redis_client
from tests.fakes.queue import FakeQueue
from tests.fakes.running_gateway import RunningGateway

pytestmark = pytest.mark.integration

SECONDS = 30.0
UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
OUTSTANDING = call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
CHANGED = event_pb2.EVENT_TYPE_CONTEXT_CHANGED
MOVED = event_pb2.EVENT_TYPE_ENTRY_MOVED
QUICK = {"events_figures_seconds": 0.05}
# Figures are then read whether or not a client follows.
QUICK_HOUR = QUICK | {"events_history_seconds": 0.05}


class Listener:
    """One open stream: what it is told by name, with the last id seen."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last_id = ""

    async def told(self) -> tuple[str, dict[str, Any]]:
        """Return the next thing that is dispatched to a page."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(SECONDS):
            async for line in self._lines:
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                    continue
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    return fields["event"], _described(fields["event"], json.loads(fields["data"]))
                fields = {}
        raise EOFError

    async def named(self, name: str) -> dict[str, Any]:
        """Return the next of that name."""
        while True:
            found, data = await self.told()
            if found == name:
                return data


def _described(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return what is shown, which must be just what the API's description says."""
    if name in SHOWN:
        assert SHOWN[name].model_validate(data).model_dump(mode="json") == data
    return data


@asynccontextmanager
async def following(
    gateway: RunningGateway,
    role: str,
    *topics: str,
    subject: str = "reader-1",
    last_id: str | None = None,
    queues: list[str] | None = None,
) -> AsyncIterator[Listener]:
    headers = gateway.headers(role, subject, **({} if queues is None else {"queues": queues}))
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS) as client,
        client.stream(
            "GET", "/v1/events", headers=headers, params={"topic": list(topics)}
        ) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield Listener(response)


@pytest.fixture
async def stream(redis_url: str) -> AsyncIterator[EventStream]:
    async with redis_client(redis_url, timeout_seconds=10.0) as redis:
        yield EventStream(redis)


def event(
    user_id: int, kind: event_pb2.EventType.ValueType = CHANGED, **fields: Any
) -> event_pb2.Event:
    return event_pb2.Event(event_id=f"event-{user_id}", type=kind, user_id=user_id, **fields)


def stats(ready: int) -> queue_pb2.GetQueueStatsResponse:
    response = queue_pb2.GetQueueStatsResponse(calls_today=7, callbacks_missed=2)
    response.outcomes_today.add(outcome=call_state_pb2.OUTCOME_NO_ANSWER, calls=4)
    response.queues.add(queue=UNSIGNED, ready=ready)
    response.queues.add(queue=OUTSTANDING, ready=1)
    return response


@pytest.mark.parametrize(
    ("role", "topic", "status"),
    [
        ("agent", "assignment", 200),
        ("supervisor", "assignment", 403),
        ("service", "assignment", 403),
        ("agent", "queues", 200),
        ("supervisor", "queues", 200),
        ("agent", "wallboard", 403),
        ("supervisor", "wallboard", 200),
        ("service", "wallboard", 403),
        ("agent", "pipeline", 403),
        ("supervisor", "pipeline", 200),
        ("service", "pipeline", 200),
        ("supervisor", "gossip", 422),
    ],
)
async def test_who_may_follow_what(
    gateway: RunningGateway, role: str, topic: str, status: int
) -> None:
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS) as client,
        client.stream(
            "GET",
            "/v1/events",
            headers=gateway.headers(role, "reader-1"),
            params={"topic": topic},
        ) as response,
    ):
        assert response.status_code == status
        if status == 403:
            assert json.loads(await response.aread())["reason"] == "TOPIC_NOT_ALLOWED"


async def test_one_topic_too_many_opens_nothing(gateway: RunningGateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS) as client:
        answer = await client.get(
            "/v1/events",
            headers=gateway.headers("agent", "agent-1"),
            params={"topic": ["queues", "wallboard"]},
        )
    assert answer.status_code == 403


async def test_assignment_begins_with_whom_the_agent_holds(
    gateway: RunningGateway, stream: EventStream
) -> None:
    gateway.services.queue.hold("agent-1", 7)
    async with following(gateway, "agent", "assignment", subject="agent-1") as listener:
        assert (await listener.named("assignment"))["assignment"]["user_id"] == "7"
        await stream.publish([event(8), event(8, MOVED), event(7)])
        name, data = await listener.told()
    assert (name, data["user_id"]) == ("context_changed", "7")


async def test_no_assignment(gateway: RunningGateway) -> None:
    async with following(gateway, "agent", "assignment") as listener:
        assert (await listener.named("assignment"))["assignment"] is None


async def test_queues_are_narrowed_to_those_the_agent_works(
    start: Any, stream: EventStream
) -> None:
    gateway = await start(**QUICK)
    gateway.services.queue.stats = stats(5)
    worked = ["outstanding_requests"]
    async with (
        following(gateway, "agent", "queues", queues=worked) as listener,
        following(gateway, "supervisor", "queues") as boss,
    ):
        shown = await listener.named("queues")
        assert [each["queue"] for each in shown["queues"]] == worked
        assert "calls_today" not in json.dumps(shown)
        assert len((await boss.named("queues"))["queues"]) == 2
        await stream.publish(
            [event(1), event(2, MOVED, queue_after=UNSIGNED, agent_id="a"), event(3, MOVED)]
        )
        await stream.publish([event(4, MOVED, queue_after=OUTSTANDING, agent_id="a")])
        data = await listener.named("entry_moved")
        assert (data["user_id"], data["agent_id"]) == ("4", None)
        assert (await boss.named("entry_moved"))["agent_id"] == "a"


async def test_figures_are_read_once_for_all_and_sent_when_they_change(start: Any) -> None:
    gateway = await start(events_figures_seconds=0.2, events_history_seconds=60.0)
    queue: FakeQueue = gateway.services.queue
    queue.stats = stats(5)
    async with AsyncExitStack() as opened:
        listeners = [
            await opened.enter_async_context(following(gateway, "supervisor", "wallboard"))
            for _ in range(10)
        ]
        for each in listeners:
            shown = await each.named("wallboard")
            assert shown["figures"]["queues"][0]["ready"] == 5
            assert shown["outcomes_today"] == {"no_answer": 4}
        before = len(queue.requests("GetQueueStats"))
        await _until(lambda: len(queue.requests("GetQueueStats")) >= before + 3)
        queue.stats = stats(6)
        asked = len(queue.requests("GetQueueStats"))
        # What did not change was not sent: the next figures are the new ones.
        for each in listeners:
            shown = await each.named("wallboard")
            assert shown["figures"]["queues"][0]["ready"] == 6
        assert len(queue.requests("GetQueueStats")) <= asked + 5


async def test_the_last_hour_is_kept_while_no_screen_follows(start: Any) -> None:
    gateway = await start(**QUICK_HOUR)
    queue: FakeQueue = gateway.services.queue
    await _until(lambda: len(queue.requests("GetQueueStats")) >= 5)
    async with following(gateway, "supervisor", "wallboard") as listener:
        assert len((await listener.named("history"))["samples"]) >= 4


async def test_nothing_else_is_read_while_no_client_follows(start: Any) -> None:
    gateway = await start(events_figures_seconds=0.05, events_history_seconds=60.0)
    queue: FakeQueue = gateway.services.queue
    async with following(gateway, "supervisor"):
        await asyncio.sleep(0.2)
        assert queue.requests("GetQueueStats") == []
    async with following(gateway, "supervisor", "wallboard", "pipeline") as listener:
        await listener.named("history")
    names = {"board queues", "board wallboard", "board pipeline"}
    boards = [each for each in asyncio.all_tasks() if each.get_name() in names]
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*boards)
    assert boards
    asked = len(queue.requests("GetQueueStats"))
    async with following(gateway, "supervisor", "pipeline") as listener:
        await listener.named("pipeline")
    assert len(queue.requests("GetQueueStats")) == asked


async def test_figures_outlive_the_first_client(start: Any) -> None:
    """The first listener's time limit for opening must not become that of every reading."""
    gateway = await start(request_deadline_seconds=0.5, **QUICK)
    queue: FakeQueue = gateway.services.queue
    async with following(gateway, "supervisor", "wallboard") as listener:
        await listener.named("wallboard")
        begun = len(queue.calls)
        await asyncio.sleep(0.7)
        await _until(lambda: len(queue.calls) > begun)
        queue.stats = stats(6)
        while len((await listener.named("wallboard"))["figures"]["queues"]) != 2:
            pass


async def test_wallboard_says_what_cannot_be_asked(start: Any) -> None:
    gateway = await start(**QUICK)
    gateway.services.queue.failures["ListAgents"] = Unavailable("DATABASE_AWAY", "away")
    async with following(gateway, "supervisor", "wallboard") as listener:
        shown = await listener.named("wallboard")
        assert shown["agents"] is None
        assert shown["unavailable"] == {"agents": "DATABASE_AWAY"}
        assert shown["figures"]["calls_today"] == 7
        del gateway.services.queue.failures["ListAgents"]
        assert (await listener.named("wallboard"))["agents"]["present"] == 0


async def test_agents_are_counted_by_what_they_do(start: Any) -> None:
    gateway = await start(**QUICK)
    queue: FakeQueue = gateway.services.queue
    for name, presence in (
        ("b", queue_pb2.PRESENCE_AVAILABLE),
        ("a", queue_pb2.PRESENCE_BREAK),
        ("c", queue_pb2.PRESENCE_OFFLINE),
        ("d", queue_pb2.PRESENCE_UNSPECIFIED),
    ):
        queue.agents[name] = queue_pb2.Agent(agent_id=name, presence=presence)
    busy = queue_pb2.Agent(agent_id="e", presence=queue_pb2.PRESENCE_AVAILABLE)
    busy.assignment.user_id = 7
    busy.today.outcomes.add(calls=2)
    busy.today.outcomes.add(calls=1)
    busy.today.unreported_calls = 1
    queue.agents["c"].today.unreported_calls = 2
    queue.agents["e"] = busy
    async with following(gateway, "supervisor", "wallboard") as listener:
        agents = (await listener.named("wallboard"))["agents"]
    listed = [(each["agent_id"], each["presence"]) for each in agents.pop("listed")]
    assert listed == [("e", "on_call"), ("b", "available"), ("a", "break")]
    # Also of agents who are gone: the most first.
    unreported = [{"agent_id": "c", "calls": 2}, {"agent_id": "e", "calls": 1}]
    assert agents.pop("unreported") == unreported
    assert agents == {"present": 3, "on_call": 1, "available": 1, "wrap_up": 0, "on_break": 1}


@pytest.mark.each_redis
async def test_the_last_hour_is_shared_and_survives_a_restart(start: Any, redis_url: str) -> None:
    gateway = await start(**QUICK_HOUR)
    async with following(gateway, "supervisor", "wallboard") as listener:
        while len((await listener.named("history"))["samples"]) < 3:
            pass
    other = await start(**QUICK_HOUR)
    async with following(other, "supervisor", "wallboard") as listener:
        samples = (await listener.named("history"))["samples"]
        assert len(samples) >= 3
        assert samples[0]["ready"] == {"unsigned_users": 0}
        assert samples[0]["backlog"] == 5
        # Redis emptied: running replicas still have the samples.
        async with redis_client(redis_url, timeout_seconds=10.0) as redis:
            await redis.flushall()
        while len((await listener.named("history"))["samples"]) < 3:
            pass


async def test_many_clients_resume_over_a_restart_of_redis(start: Any, own_redis: Redis) -> None:
    gateway = await start(redis_url=own_redis.url(), **QUICK)
    queue: FakeQueue = gateway.services.queue
    queue.hold("agent-1", 7)
    async with (
        RedisClient.from_url(own_redis.url()) as redis,
        following(gateway, "agent", "assignment", subject="agent-1") as agent,
        following(gateway, "supervisor", "queues") as boss,
        following(gateway, "supervisor", "wallboard") as board,
    ):
        assert (await agent.named("assignment"))["assignment"]["user_id"] == "7"
        await EventStream(redis).publish([event(7), event(9, MOVED)])
        await agent.named("context_changed")
        await boss.named("entry_moved")
        await board.named("wallboard")
        own_redis.kill()
        # While the stream is unreadable, the agent finishes and takes the next.
        queue.hold("agent-1", 8)
        own_redis.start()
        for each in (agent, boss, board):
            await each.named("reset")
        assert (await agent.named("assignment"))["assignment"]["user_id"] == "8"
        await boss.named("queues")
        await board.named("wallboard")
        await redis.connection_pool.disconnect()
        await EventStream(redis).publish([event(7), event(8), event(9, MOVED)])
        assert (await agent.named("context_changed"))["user_id"] == "8"
        assert (await boss.named("entry_moved"))["user_id"] == "9"


async def test_an_agent_whose_snapshot_fails_after_a_gap_is_sent_away(
    start: Any, own_redis: Redis
) -> None:
    gateway = await start(redis_url=own_redis.url())
    async with (
        RedisClient.from_url(own_redis.url()) as redis,
        following(gateway, "agent", "assignment", subject="agent-1") as agent,
    ):
        await agent.named("assignment")
        gateway.services.queue.failures["GetCurrentAssignment"] = Unavailable("DOWN", "down")
        await redis.flushall()
        hint = await agent.named("reconnect")
        assert hint["reason"] == "no snapshot"
        assert 1000 <= hint["retry_after_ms"] <= 5000
        with pytest.raises(EOFError):
            await agent.told()


async def test_clients_that_come_and_go_miss_nothing(
    gateway: RunningGateway, stream: EventStream
) -> None:
    """Twelve clients break off and resume while events are published all the time."""
    total, clients = 150, 12
    begin = str(await stream.position())

    async def publish() -> None:
        for number in range(1, total + 1):
            await stream.publish([event(number, MOVED)])

    async def follow(number: int) -> list[int]:
        seen: list[int] = []
        place = begin
        while len(seen) < total:
            # Each in a name of its own, or all together come too often.
            async with following(
                gateway, "supervisor", "queues", subject=f"boss-{number}", last_id=place
            ) as listener:
                for _ in range(7 + number):
                    seen.append(int((await listener.named("entry_moved"))["user_id"]))
                    if len(seen) == total:
                        break
                place = listener.last_id
        return seen

    async with asyncio.TaskGroup() as group:
        following_all = [group.create_task(follow(number)) for number in range(clients)]
        group.create_task(publish())
    for each in following_all:
        assert each.result() == list(range(1, total + 1))


async def _until(holds: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110 - the fakes keep lists, not signals
            await asyncio.sleep(0.01)
