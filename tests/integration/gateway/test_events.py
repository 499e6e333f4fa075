"""The live stream through real HTTP and a real Redis."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from prometheus_client import REGISTRY

from devstack.servers import Redis
from gateway.live.hub import EventHub
from servicekit.errors import Unavailable
from servicekit.event_stream import EventStream
from servicekit.redis_client import redis_client
from tests.fakes.recorded_calls import MOMENT_SECONDS
from tests.fakes.running_gateway import RunningGateway, running_gateway

pytestmark = [pytest.mark.integration, pytest.mark.each_redis]

CHANGED = event_pb2.EVENT_TYPE_CONTEXT_CHANGED
OBJECTION = event_pb2.EVENT_TYPE_OBJECTION_RECORDED
MOVED = event_pb2.EVENT_TYPE_ENTRY_MOVED
STARTED = event_pb2.EVENT_TYPE_ASSIGNMENT_STARTED
SECONDS = 10.0


@dataclass
class Block:
    """One block of the stream: its fields, comments under an empty name."""

    fields: dict[str, str]

    @property
    def id(self) -> str:
        return self.fields.get("id", "")

    @property
    def kind(self) -> str:
        return self.fields.get("event", "")

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.fields["data"]))


class Reader:
    """Reads one open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> Block:
        fields: dict[str, str] = {}
        async with asyncio.timeout(SECONDS):
            async for line in self._lines:
                if not line and fields:
                    return Block(fields)
                name, _, value = line.partition(":")
                if line:
                    fields[name] = value.removeprefix(" ")
        raise EOFError

    async def event(self, kind: str = "") -> Block:
        """Return the next block that is dispatched to a page."""
        while True:
            found = await self.block()
            if "data" in found.fields and kind in ("", found.kind):
                return found

    async def until(self, matches: Callable[[Block], bool]) -> Block:
        while True:
            found = await self.block()
            if matches(found):
                return found


@asynccontextmanager
async def opened(
    gateway: RunningGateway,
    role: str = "supervisor",
    subject: str = "boss",
    last_id: str | None = None,
    **parameters: Any,
) -> AsyncIterator[Reader]:
    headers = gateway.headers(role, subject)
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS) as client,
        client.stream("GET", "/v1/events", headers=headers, params=parameters) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield Reader(response)


@asynccontextmanager
async def stream_of(url: str) -> AsyncIterator[EventStream]:
    redis = redis_client(url, timeout_seconds=10.0)
    try:
        yield EventStream(redis)
    finally:
        await redis.aclose()


@pytest.fixture
async def stream(redis_url: str) -> AsyncIterator[EventStream]:
    async with stream_of(redis_url) as made:
        yield made


def event(
    user_id: int, kind: event_pb2.EventType.ValueType = CHANGED, **fields: Any
) -> event_pb2.Event:
    return event_pb2.Event(event_id=f"event-{user_id}", type=kind, user_id=user_id, **fields)


async def test_an_objection_reaches_the_holder_and_supervisors_and_no_other_agent(
    gateway: RunningGateway, stream: EventStream
) -> None:
    gateway.services.queue.hold("agent-1", 7)
    gateway.services.queue.hold("agent-2", 8)
    async with (
        opened(gateway, "agent", "agent-1", topic="assignment") as holder,
        opened(gateway, "agent", "agent-2") as other,
        opened(gateway) as boss,
    ):
        await holder.until(lambda block: "retry" in block.fields)
        await other.until(lambda block: "retry" in block.fields)
        await stream.publish([event(7, OBJECTION, agent_id="agent-1"), event(8)])
        for reader in (holder, boss):
            told = (await reader.event("objection_recorded")).data
            assert (told["user_id"], told["agent_id"]) == ("7", "agent-1")
        assert (await other.event()).data["user_id"] == "8"


async def test_event_reaches_a_supervisor_whole(
    gateway: RunningGateway, stream: EventStream
) -> None:
    sent = event(
        2**63,
        MOVED,
        queue_before=call_state_pb2.QUEUE_UNSIGNED_USERS,
        state=call_state_pb2.ENTRY_STATE_OUT,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    sent.timeline.committed_at.seconds = MOMENT_SECONDS
    sent.timeline.captured_at.seconds = MOMENT_SECONDS
    sent.timeline.captured_at.nanos = 123_456_789
    async with opened(gateway) as reader:
        headers = reader.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-accel-buffering"] == "no"
        await stream.publish([sent])
        found = await reader.event()
    assert found.kind == "entry_moved"
    assert found.id == str(await stream.position())
    assert found.data == {
        "event_id": f"event-{2**63}",
        "type": "entry_moved",
        "user_id": str(2**63),
        "occurred_at": None,
        "queue_before": "unsigned_users",
        "queue_after": None,
        "state": "out",
        "agent_id": None,
        "assignment_id": None,
        "outcome": None,
        "conversion": None,
        "timeline": {
            "committed_at": "2025-06-02T09:00:00.000000Z",
            "captured_at": "2025-06-02T09:00:00.123456Z",
            "received_at": None,
            "refreshed_at": None,
            "applied_at": None,
        },
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }


async def test_how_late_events_are_is_measured(
    gateway: RunningGateway, stream: EventStream
) -> None:
    def counts() -> list[float]:
        names = ("dialler_gateway_change_visible_seconds", "dialler_gateway_event_seconds")
        return [REGISTRY.get_sample_value(f"{each}_count") or 0.0 for each in names]

    before = counts()
    async with opened(gateway) as reader:
        sent = [event(1), event(1, MOVED), event(2)]
        for each in sent:
            each.occurred_at.GetCurrentTime()
        # The change's own events; what no change led to is late by its own leg only.
        for each in sent[:2]:
            each.timeline.captured_at.GetCurrentTime()
            each.timeline.committed_at.seconds = each.timeline.captured_at.seconds
        await stream.publish(sent)
        for _ in sent:
            await reader.event()
    assert [a - b for a, b in zip(counts(), before, strict=True)] == [1.0, 3.0]


async def test_filters(gateway: RunningGateway, stream: EventStream) -> None:
    async with opened(gateway, user_id=["7", "8"], type=["entry_moved"]) as reader:
        await stream.publish([event(7), event(9, MOVED), event(8, MOVED)])
        found = await reader.event()
        assert found.data["user_id"] == "8"


@pytest.mark.parametrize("parameters", [{"user_id": "jo"}, {"type": "gossip"}])
async def test_unknown_filters(
    gateway: RunningGateway, supervisor: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    response = await supervisor.get("/v1/events", params=parameters)
    assert response.status_code == 422
    assert response.json()["reason"] == "INVALID_REQUEST"


async def test_agent_sees_the_person_it_holds(gateway: RunningGateway, stream: EventStream) -> None:
    gateway.services.queue.hold("agent-1", 7)
    async with opened(gateway, "agent", "agent-1") as reader:
        await stream.publish([event(8), event(7)])
        assert (await reader.event()).data["user_id"] == "7"


async def test_stream_does_not_open_without_knowing_whom_the_agent_holds(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    gateway.services.queue.failures["GetCurrentAssignment"] = Unavailable("DOWN", "down")
    assert (await agent.get("/v1/events")).status_code == 503


async def test_resume_loses_and_repeats_nothing(
    gateway: RunningGateway, stream: EventStream
) -> None:
    async with opened(gateway) as reader:
        await stream.publish([event(1), event(2)])
        await reader.event()
        last = await reader.event()
    await stream.publish([event(3), event(4)])
    async with opened(gateway, last_id=last.id) as reader:
        await stream.publish([event(5)])
        found = [(await reader.event()).data["user_id"] for _ in range(3)]
    assert found == ["3", "4", "5"]


async def test_client_that_saw_no_event_resumes_too(
    gateway: RunningGateway, stream: EventStream
) -> None:
    async with opened(gateway) as reader:
        place = (await reader.until(lambda block: "id" in block.fields)).id
    await stream.publish([event(1)])
    async with opened(gateway, last_id=place) as reader:
        assert (await reader.event()).data["user_id"] == "1"


async def test_agent_that_reconnects_sees_what_happened_to_whom_it_held(
    gateway: RunningGateway, stream: EventStream
) -> None:
    before = str(await stream.position())
    held = {"agent_id": "agent-1", "assignment_id": "a"}
    await stream.publish(
        [
            event(6),
            event(6, event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED, **held),
            event(6),
            event(7, STARTED, **held),
            event(7),
        ]
    )
    gateway.services.queue.hold("agent-1", 7)
    async with opened(gateway, "agent", "agent-1", before) as reader:
        found = [await reader.event() for _ in range(4)]
    assert [(each.kind, each.data["user_id"]) for each in found] == [
        ("context_changed", "6"),
        ("assignment_ended", "6"),
        ("assignment_started", "7"),
        ("context_changed", "7"),
    ]


@pytest.mark.parametrize(
    "last_id", ["nonsense", "other:1-0", "{epoch}:0-0", "{epoch}:9999999999999-0"]
)
async def test_what_cannot_be_resumed_is_reset(
    start: Any, stream: EventStream, last_id: str
) -> None:
    gateway = await start(events_replay=2)
    await stream.publish([event(n) for n in range(1, 5)])
    place = await stream.position()
    async with opened(gateway, last_id=last_id.format(epoch=place.epoch)) as reader:
        found = await reader.event()
        assert found.kind == "reset"
        assert found.data["type"] == "reset"
        await stream.publish([event(9)])
        assert (await reader.event("context_changed")).data["user_id"] == "9"


async def test_replaced_stream_resets_every_client(
    gateway: RunningGateway, stream: EventStream, redis_url: str
) -> None:
    async with opened(gateway) as first, opened(gateway) as second:
        await stream.publish([event(1)])
        await first.event("context_changed")
        await second.event("context_changed")
        async with redis_client(redis_url, timeout_seconds=10.0) as redis:
            await redis.flushall()
        await stream.publish([event(2)])
        for reader in (first, second):
            assert (await reader.event()).kind == "reset"


async def test_heartbeat(start: Any) -> None:
    gateway = await start(events_heartbeat_seconds=0.05)
    async with opened(gateway) as reader:
        for _ in range(3):
            assert "" in (await reader.until(lambda block: "" in block.fields)).fields


async def test_stream_outlives_redis(start: Any, own_redis: Redis) -> None:
    gateway = await start(redis_url=own_redis.url(), events_heartbeat_seconds=0.05)
    async with opened(gateway) as reader, stream_of(own_redis.url()) as stream:
        await stream.publish([event(1)])
        await reader.event("context_changed")
        own_redis.kill()
        for _ in range(5):
            await reader.until(lambda block: "" in block.fields)
        own_redis.start()
        await reader.event("reset")
    async with opened(gateway) as reader, stream_of(own_redis.url()) as stream:
        await stream.publish([event(2)])
        assert (await reader.event("context_changed")).data["user_id"] == "2"


async def test_stream_opens_while_redis_is_away(start: Any, own_redis: Redis) -> None:
    own_redis.kill()
    gateway = await start(redis_url=own_redis.url(), events_heartbeat_seconds=0.05)
    async with opened(gateway, last_id="e:1-0") as reader:
        await reader.until(lambda block: "" in block.fields)
        own_redis.start()
        await reader.event("reset")
        async with stream_of(own_redis.url()) as stream:
            await stream.publish([event(2)])
        assert (await reader.event("context_changed")).data["user_id"] == "2"


def ended_as_slow() -> float:
    name = "dialler_gateway_event_clients_ended_total"
    return REGISTRY.get_sample_value(name, {"reason": "slow"}) or 0.0


async def test_slow_client_is_sent_away_and_others_are_not(start: Any, stream: EventStream) -> None:
    gateway = await start(events_buffer=400)
    before = ended_as_slow()
    silent = SilentClient()
    async with opened(gateway) as quick:
        await silent.open(gateway)
        # The kernel's buffers fill, then ours.
        for _ in range(200):
            if ended_as_slow() > before:
                break
            batch = [event(n, traceparent="t" * 8000) for n in range(1, 101)]
            await stream.publish(batch)
            for _ in batch:
                await quick.event("context_changed")
        assert ended_as_slow() == before + 1
        assert b'\n: slow\nevent: reconnect\ndata: {"type":"reconnect"' in await silent.rest()
        silent.close()
        await stream.publish([event(1)])
        assert (await quick.event("context_changed")).data["user_id"] == "1"


class SilentClient:
    """A connection with a small kernel buffer that takes nothing in unless told to."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = socket.socket()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._connection.setblocking(False)

    async def open(self, gateway: RunningGateway) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        await self._loop.sock_connect(self._connection, (host, int(port)))
        token = gateway.token("supervisor", "slow")
        head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        await self._loop.sock_sendall(self._connection, head.encode())
        assert (await self._loop.sock_recv(self._connection, 64)).startswith(b"HTTP/1.1 200")

    async def rest(self) -> bytes:
        """Read to the end of the answer, of which only the last part is returned."""
        content = b""
        async with asyncio.timeout(SECONDS):
            while not content.endswith(b"\r\n0\r\n\r\n"):
                content = content[-1000:] + await self._loop.sock_recv(self._connection, 65_536)
        return content

    def close(self) -> None:
        self._connection.close()


async def test_too_many_streams(start: Any) -> None:
    gateway = await start(events_clients=1)
    async with opened(gateway), httpx.AsyncClient(base_url=gateway.url) as client:
        headers = gateway.headers("supervisor", "boss")
        refusals = [await client.get("/v1/events", headers=headers) for _ in range(20)]
        assert {each.status_code for each in refusals} == {429}
        assert {each.json()["reason"] for each in refusals} == {"TOO_MANY_STREAMS"}
        # Those refused together are not told to come back together.
        asked = [int(each.headers["Retry-After"]) for each in refusals]
        assert min(asked) >= 5
        assert len(set(asked)) > 2
    # The place is free once the first has gone.
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            async with opened(gateway):
                return
        except AssertionError:
            await asyncio.sleep(0.05)
    pytest.fail("the place was never freed")


async def test_stream_ends_with_its_token(start: Any) -> None:
    gateway = await start(jwt_leeway_seconds=0.0)
    token = gateway.token("supervisor", "boss", ttl_seconds=2)
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS) as client,
        client.stream(
            "GET", "/v1/events", headers={"Authorization": f"Bearer {token}"}
        ) as response,
    ):
        content = b"".join([part async for part in response.aiter_bytes()])
    assert b": token expired" in content


async def test_stream_ends_when_the_gateway_stops(redis_url: str) -> None:
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        async with running_gateway(redis_url, {"drain_seconds": 5.0}) as gateway:
            request = client.build_request(
                "GET", f"{gateway.url}/v1/events", headers=gateway.headers("supervisor", "boss")
            )
            response = await client.send(request, stream=True)
            began = time.monotonic()
        assert time.monotonic() - began < 4
        assert b": closing" in await response.aread()


async def test_ticket_opens_one_stream(gateway: RunningGateway, stream: EventStream) -> None:
    gateway.services.queue.hold("agent-1", 7)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS) as client:
        answer = await client.post(
            "/v1/events/tickets", headers=gateway.headers("agent", "agent-1")
        )
        assert answer.status_code == 201
        ticket = {"ticket": answer.json()["ticket"]}
        async with client.stream("GET", "/v1/events", params=ticket) as response:
            assert response.status_code == 200
            reader = Reader(response)
            await stream.publish([event(8), event(7)])
            assert (await reader.event()).data["user_id"] == "7"
        again = await client.get("/v1/events", params=ticket)
        assert again.status_code == 401
        assert again.json()["reason"] == "TICKET_INVALID"
        made_up = await client.get("/v1/events", params={"ticket": "made-up"})
        assert made_up.json()["reason"] == "TICKET_INVALID"


async def test_guesses_of_tickets_are_limited_by_address(start: Any) -> None:
    gateway = await start(address_rate_limit_per_second=5)
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        asked = [client.get("/v1/events", params={"ticket": "guess"}) for _ in range(40)]
        guesses = await asyncio.gather(*asked)
    assert {each.status_code for each in guesses} == {401, 429}


async def test_one_caller_leaves_room_for_the_others(start: Any) -> None:
    gateway = await start(events_clients_per_caller=2)
    async with opened(gateway, subject="greedy"), opened(gateway, subject="greedy"):
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            headers = gateway.headers("supervisor", "greedy")
            response = await client.get("/v1/events", headers=headers)
        assert response.status_code == 429
        assert response.json()["reason"] == "TOO_MANY_OWN_STREAMS"
        async with opened(gateway, subject="modest"):
            pass
    # Those that were closed do not count.
    async with asyncio.timeout(SECONDS):
        while REGISTRY.get_sample_value("dialler_gateway_event_clients"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with opened(gateway, subject="greedy"), opened(gateway, subject="greedy"):
        pass


async def test_ticket_is_kept_as_a_hash_and_runs_out(
    gateway: RunningGateway, supervisor: httpx.AsyncClient, redis_url: str
) -> None:
    ticket = (await supervisor.post("/v1/events/tickets")).json()["ticket"]
    async with redis_client(redis_url, timeout_seconds=10.0) as redis:
        (name,) = [each async for each in redis.scan_iter("dialler:ticket:*")]
        assert ticket.encode() not in name
        assert 0 < await redis.ttl(name) <= 60
        await redis.delete(name)
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        response = await client.get("/v1/events", params={"ticket": ticket})
    assert response.json()["reason"] == "TICKET_INVALID"


async def test_no_tickets_without_redis(start: Any, own_redis: Redis) -> None:
    gateway = await start(redis_url=own_redis.url())
    own_redis.kill()
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        headers = gateway.headers("agent", "agent-1")
        response = await client.post("/v1/events/tickets", headers=headers)
    assert response.status_code == 503
    assert response.json()["reason"] == "TICKETS_UNAVAILABLE"


async def test_what_was_missed_ends_where_the_live_part_begins(stream: EventStream) -> None:
    """A client must not get twice what its process has yet to read."""
    hub = EventHub(stream, clients=1, clients_per_caller=1, buffer=1, replay=10)
    begin = await stream.position()
    await stream.publish([event(1)])
    joined = await stream.position()
    await stream.publish([event(2)])
    missed = await hub.missed(begin, joined)
    assert missed is not None
    assert [each.event.user_id for each in missed] == [1]
    assert await hub.missed(joined, joined) == []
