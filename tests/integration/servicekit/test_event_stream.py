"""The stream of events on a real Redis: order, resuming, and every way of losing entries."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from dialler.model.v1 import event_pb2
from redis.asyncio import Redis

from devstack.servers import Redis as RedisServer
from servicekit.errors import InvalidArgument, Unavailable
from servicekit.event_stream import EventStream, StreamGap, StreamPosition

pytestmark = pytest.mark.integration


def _events(*user_ids: int) -> list[event_pb2.Event]:
    return [event_pb2.Event(event_id=f"event-{user_id}", user_id=user_id) for user_id in user_ids]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


async def _read_ids(stream: EventStream, after: StreamPosition) -> list[int]:
    return [event.user_id for _, event in await stream.read(after, block_seconds=0, count=100)]


async def test_events_come_in_order_and_each_position_resumes_after_its_event(
    redis: Redis,
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


async def test_a_waiting_reader_gets_what_is_published_meanwhile(redis: Redis) -> None:
    stream = EventStream(redis)
    start = await stream.position()
    waiting = asyncio.create_task(stream.read(start, block_seconds=4, count=10))
    # Redis tells nobody that a client has begun to wait.
    while not int((await redis.info("clients"))["blocked_clients"]):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await stream.publish(_events(7))
    assert [event.user_id for _, event in await waiting] == [7]


async def test_nothing_comes_within_the_wait(redis: Redis) -> None:
    stream = EventStream(redis)
    assert await stream.read(await stream.position(), block_seconds=0.02, count=10) == []


async def test_an_emptied_redis_is_a_gap_at_once_and_after_new_events(redis: Redis) -> None:
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


async def test_a_position_of_the_future_is_a_gap(redis: Redis) -> None:
    """As after a fail-over to a replica that had not received the last entries."""
    stream = EventStream(redis)
    await stream.publish(_events(1))
    here = await stream.position()
    with pytest.raises(StreamGap):
        await _read_ids(stream, StreamPosition(here.epoch, f"9{here.offset}"))


async def test_dropped_entries_are_a_gap_only_for_readers_before_them(redis: Redis) -> None:
    stream = EventStream(redis)
    start = await stream.position()
    await stream.publish(_events(*range(10)))
    assert len(await _read_ids(stream, start)) == 10
    middle = (await stream.read(start, block_seconds=0, count=8))[-1][0]
    await redis.xtrim("{dialler:events}", maxlen=3, approximate=False)
    with pytest.raises(StreamGap):
        await _read_ids(stream, start)
    assert await _read_ids(stream, middle) == [8, 9]


async def test_the_end_of_a_stream_trimmed_to_nothing_is_no_gap(redis: Redis) -> None:
    stream = EventStream(redis)
    await stream.publish(_events(1, 2))
    end = await stream.position()
    await redis.xtrim("{dialler:events}", maxlen=0, approximate=False)
    assert await _read_ids(stream, end) == []
    await stream.publish(_events(3))
    assert await stream.position() != end


async def test_length_is_bounded(redis: Redis) -> None:
    stream = EventStream(redis, max_length=50)
    for _ in range(10):
        await stream.publish(_events(*range(100)))
    assert await redis.xlen("{dialler:events}") < 1_000


async def test_epoch_and_events_are_one_write(redis: Redis) -> None:
    """A reader never meets events of a stream without an epoch."""
    await EventStream(redis).publish(_events(1))
    assert await redis.exists("{dialler:events}", "{dialler:events}:epoch") == 2
    await EventStream(redis).publish([])


@pytest.mark.parametrize("text", ["", "abc", "a:1", "a:1-", "A:1-2", "a:1-2-3", "a:-1-2"])
def test_other_texts_are_no_positions(text: str) -> None:
    with pytest.raises(InvalidArgument):
        StreamPosition.parse(text)


async def test_a_redis_that_is_away_is_unavailable(own_redis: RedisServer) -> None:
    client = Redis.from_url(own_redis.url())
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
