"""The stream of events on a real Redis: order, resuming, and every way of losing entries."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dialler.model.v1 import event_pb2
from redis.exceptions import NoPermissionError, ResponseError

from devstack.processes import free_port
from devstack.servers import Redis as RedisServer
from servicekit.errors import InvalidArgument, Unavailable
from servicekit.event_stream import EventStream, StreamGap, StreamPosition
from servicekit.redis_client import RedisClient, RedisRefuses, redis_client, refusal
from tests.fakes import waiting
from tests.fakes.proxy import FaultProxy

pytestmark = pytest.mark.integration


def _events(*user_ids: int) -> list[event_pb2.Event]:
    return [event_pb2.Event(event_id=f"event-{user_id}", user_id=user_id) for user_id in user_ids]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    client = redis_client(redis_url, timeout_seconds=5.0)
    yield client
    await client.aclose()


async def _read_ids(stream: EventStream, after: StreamPosition) -> list[int]:
    return [event.user_id for _, event in await stream.read(after, block_seconds=0, count=100)]


@pytest.mark.each_redis
async def test_events_come_in_order_and_each_position_resumes_after_its_event(
    redis: RedisClient,
) -> None:
    stream = EventStream(redis)
    start = await stream.position()
    await stream.publish(_events(1, 2))
    await stream.publish(_events(3))
    seen = await stream.read(start, block_seconds=0, count=100)
    assert [event.user_id for _, event in seen] == [1, 2, 3]
    assert await _read_ids(stream, StreamPosition.parse(str(seen[0][0]))) == [2, 3]
    assert await _read_ids(stream, seen[-1][0]) == []
    assert seen[-1][0] == await stream.position()


@pytest.mark.each_redis
async def test_a_waiting_reader_gets_what_is_published_meanwhile(redis: RedisClient) -> None:
    stream = EventStream(redis)
    start = await stream.position()
    reading = asyncio.create_task(stream.read(start, block_seconds=4, count=10))
    # Redis does not report that a client has begun to wait.
    while not int((await redis.info("clients"))["blocked_clients"]):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await stream.publish(_events(7))
    assert [event.user_id for _, event in await reading] == [7]


@pytest.mark.each_redis
async def test_nothing_comes_within_the_wait(redis: RedisClient) -> None:
    stream = EventStream(redis)
    assert await stream.read(await stream.position(), block_seconds=0.02, count=10) == []


@pytest.mark.each_redis
async def test_an_emptied_redis_is_a_gap_at_once_and_after_new_events(redis: RedisClient) -> None:
    stream = EventStream(redis)
    await stream.publish(_events(1))
    before = await stream.position()
    await redis.flushall()
    with pytest.raises(StreamGap):
        await _read_ids(stream, before)
    await stream.publish(_events(2))
    with pytest.raises(StreamGap):
        await _read_ids(stream, before)
    assert await _read_ids(stream, await stream.position()) == []


@pytest.mark.each_redis
async def test_a_position_of_the_future_is_a_gap(redis: RedisClient) -> None:
    """As after a fail-over to a replica that had not received the last entries."""
    stream = EventStream(redis)
    await stream.publish(_events(1))
    here = await stream.position()
    with pytest.raises(StreamGap):
        await _read_ids(stream, StreamPosition(here.epoch, f"9{here.offset}"))


@pytest.mark.each_redis
async def test_dropped_entries_are_a_gap_only_for_readers_before_them(redis: RedisClient) -> None:
    stream = EventStream(redis)
    start = await stream.position()
    await stream.publish(_events(*range(10)))
    assert len(await _read_ids(stream, start)) == 10
    middle = (await stream.read(start, block_seconds=0, count=8))[-1][0]
    await redis.xtrim("{dialler:events}", maxlen=3, approximate=False)
    with pytest.raises(StreamGap):
        await _read_ids(stream, start)
    assert await _read_ids(stream, middle) == [8, 9]


@pytest.mark.each_redis
async def test_the_end_of_a_stream_trimmed_to_nothing_is_no_gap(redis: RedisClient) -> None:
    stream = EventStream(redis)
    await stream.publish(_events(1, 2))
    end = await stream.position()
    await redis.xtrim("{dialler:events}", maxlen=0, approximate=False)
    assert await _read_ids(stream, end) == []
    await stream.publish(_events(3))
    assert await stream.position() != end


@pytest.mark.each_redis
async def test_length_is_bounded(redis: RedisClient) -> None:
    stream = EventStream(redis, max_length=50)
    for _ in range(10):
        await stream.publish(_events(*range(100)))
    assert await redis.xlen("{dialler:events}") < 1_000


@pytest.mark.each_redis
async def test_epoch_and_events_are_one_write(redis: RedisClient) -> None:
    """A reader never meets events of a stream without an epoch."""
    await EventStream(redis).publish(_events(1))
    assert await redis.exists("{dialler:events}", "{dialler:events}:epoch") == 2
    await EventStream(redis).publish([])


@pytest.mark.parametrize("text", ["", "abc", "a:1", "a:1-", "A:1-2", "a:1-2-3", "a:-1-2"])
def test_other_texts_are_no_positions(text: str) -> None:
    with pytest.raises(InvalidArgument):
        StreamPosition.parse(text)


async def _refusing(own_redis: RedisServer, code: str) -> None:
    match code:
        case "READONLY":
            own_redis.ask("REPLICAOF", "127.0.0.1", str(free_port()))
        case "NOREPLICAS":
            own_redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        case "OOM":
            own_redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            own_redis.ask("CONFIG", "SET", "maxmemory", "1")


@pytest.mark.parametrize("code", ["READONLY", "NOREPLICAS", "OOM"])
async def test_a_redis_that_refuses_writes_is_unavailable_to_readers_too(
    own_redis: RedisServer, code: str
) -> None:
    client = redis_client(own_redis.url(), timeout_seconds=5.0)
    stream = EventStream(client)
    await stream.publish(_events(1))
    start = await stream.position()
    await _refusing(own_redis, code)

    for ask in (
        stream.read(start, block_seconds=0, count=1),
        stream.publish(_events(2)),
        stream.position(),
    ):
        with pytest.raises(Unavailable) as refused:
            await ask
        assert refused.value.metadata == {"redis": code}
    await client.aclose()


async def test_a_reader_that_waits_leaves_a_demoted_server_at_once(own_redis: RedisServer) -> None:
    client = redis_client(own_redis.url(), timeout_seconds=60.0)
    stream = EventStream(client)
    start = await stream.position()
    identity = await client.client_id()
    reading = asyncio.create_task(stream.read(start, block_seconds=50, count=1))
    while "blocked_clients:1" not in own_redis.ask("INFO", "clients"):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    own_redis.ask("REPLICAOF", "127.0.0.1", str(free_port()))
    async with waiting.limit(10):
        with pytest.raises(Unavailable) as left:
            await reading
    assert left.value.metadata == {"redis": "UNBLOCKED"}
    assert await client.client_id() != identity
    await client.aclose()


async def test_readers_and_writers_go_where_the_address_leads_after_a_demotion(
    own_redis: RedisServer, servers_folder: Path
) -> None:
    """And the readers learn that entries may have been lost, whatever has been added since."""
    other = RedisServer(Path(tempfile.mkdtemp(dir=servers_folder)))
    other.start()
    async with FaultProxy("127.0.0.1", own_redis.port) as proxy:
        client = redis_client(f"redis://127.0.0.1:{proxy.port}", timeout_seconds=5.0)
        stream = EventStream(client)
        await stream.publish(_events(1))
        other.ask("REPLICAOF", "127.0.0.1", str(own_redis.port))
        while "master_link_status:up" not in other.ask("INFO", "replication"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        before = await stream.position()
        other.ask("REPLICAOF", "NO", "ONE")
        proxy.lead_to("127.0.0.1", other.port)
        own_redis.ask("REPLICAOF", "127.0.0.1", str(other.port))

        with pytest.raises(Unavailable):
            await stream.publish(_events(2))
        await stream.publish(_events(2))
        with pytest.raises(StreamGap):
            await _read_ids(stream, before)
        start = StreamPosition((await stream.position()).epoch, "0-0")
        assert await _read_ids(stream, start) == [1, 2]
        await client.aclose()
    other.discard()


async def test_a_client_leaves_a_server_that_refuses_and_only_such_a_one(
    own_redis: RedisServer,
) -> None:
    client = redis_client(own_redis.url(), timeout_seconds=5.0)
    await client.set("text", "no list")
    identity = await client.client_id()
    with pytest.raises(ResponseError):
        await client.lpush("text", "x")
    assert await client.client_id() == identity
    await _refusing(own_redis, "READONLY")
    with pytest.raises(RedisRefuses, match="READONLY"):
        await client.set("a", "b")
    assert await client.client_id() != identity
    await client.aclose()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("READONLY You can't write against a read only replica.", "READONLY"),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable", "MISCONF"),
        (
            "ERR Error running script (call to f_0ab1): @user_script:4: -READONLY You can't write",
            "READONLY",
        ),
        (
            "ERR Error running script (call to f_0ab1): @user_script:4: @user_script: 4: -OOM co",
            "OOM",
        ),
        ("NOSCRIPT No matching script.", None),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", None),
        ("ERR value is not an integer or out of range: READONLY", None),
    ],
)
def test_what_refuses_for_the_whole_server_is_told_from_what_refuses_one_command(
    reply: str, code: str | None
) -> None:
    assert refusal(reply) == code


async def test_a_redis_that_does_not_answer_is_unavailable(own_redis: RedisServer) -> None:
    client = redis_client(own_redis.url(), timeout_seconds=5.0)
    stream = EventStream(client)
    start = await stream.position()
    own_redis.kill()
    with pytest.raises(Unavailable):
        await stream.publish(_events(1))
    with pytest.raises(Unavailable):
        await stream.read(start, block_seconds=0, count=1)
    with pytest.raises(Unavailable):
        await stream.position()
    await client.aclose()


async def test_an_account_without_client_commands_connects_and_is_asked_for_none(
    own_redis: RedisServer,
) -> None:
    """From 7.2 on Redis answers CLIENT SETINFO with NOPERM; earlier ones do not know it."""
    own_redis.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-client")
    own_redis.ask("CONFIG", "RESETSTAT")
    redis = redis_client(f"redis://app:pw@{own_redis.host}:{own_redis.port}/1", timeout_seconds=5.0)
    await redis.ping()
    assert "errorstat" not in own_redis.ask("INFO", "errorstats")
    stream = EventStream(redis)
    start = await stream.position()
    await stream.publish(_events(1))
    assert await _read_ids(stream, start) == [1]
    await redis.aclose()


async def test_a_command_the_account_lacks_says_nothing_of_the_server(
    own_redis: RedisServer,
) -> None:
    own_redis.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-client")
    redis = redis_client(f"redis://app:pw@{own_redis.host}:{own_redis.port}/1", timeout_seconds=5.0)
    await redis.ping()
    before = (await redis.info("stats"))["total_connections_received"]
    with pytest.raises(NoPermissionError):
        await redis.client_getname()
    # Over the same connection.
    assert (await redis.info("stats"))["total_connections_received"] == before
    await redis.aclose()
