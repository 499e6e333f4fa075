"""What others are told, in what order, and with which trace."""

from pathlib import Path

import pytest
from dialler.model.v1 import call_state_pb2, change_pb2, event_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.event_stream import EventStream, StreamPosition
from servicekit.redis_client import redis_client
from tests.fakes.clock import FakeClock
from tests.fakes.redis_tls import running_tls_redis
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import done, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


async def _read(stream: EventStream, after: StreamPosition, count: int) -> list[event_pb2.Event]:
    found: list[event_pb2.Event] = []
    while len(found) < count:
        batch = await stream.read(after, block_seconds=4, count=count)
        assert batch
        after = batch[-1][0]
        found += [event for _, event in batch]
    return found


@pytest.mark.each_redis
async def test_the_story_of_a_call(
    desk: Desk, queue: RunningQueue, stream: EventStream, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    start = await stream.position()
    held = (await desk.claim("agent")).assignment
    queue.main_app.put(done(1))
    timeline = change_pb2.ChangeTimeline()
    timeline.captured_at.FromSeconds(1_700_000_000)
    facts = queue.main_app.drawn([1])
    request = queue_pb2.ApplyUserFactsRequest(facts=facts, timelines={1: timeline})
    await queue.stub.ApplyUserFacts(request, metadata=(("traceparent", TRACEPARENT),))
    await desk.record(held, call_state_pb2.OUTCOME_GOING_TO_COMPLETE)
    told = await _read(stream, start, 5)
    assert [it.type for it in told] == [
        event_pb2.EVENT_TYPE_ASSIGNMENT_STARTED,
        event_pb2.EVENT_TYPE_CONTEXT_CHANGED,
        event_pb2.EVENT_TYPE_CONVERSION_RECORDED,
        event_pb2.EVENT_TYPE_OUTCOME_RECORDED,
        event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED,
    ]
    assert all(it.user_id == 1 for it in told)
    # The agent on the call can be told of everything that concerns the call.
    assert all(it.agent_id == "agent" for it in told)
    assert {it.assignment_id for it in told} == {held.assignment_id}
    assert len({it.event_id for it in told}) == 5
    assert told[1].traceparent.split("-")[1] == TRACEPARENT.split("-")[1]
    assert told[1].timeline.captured_at == timeline.captured_at
    assert told[2].conversion == event_pb2.CONVERSION_SIGNATURE_OBTAINED
    assert told[3].outcome == call_state_pb2.OUTCOME_GOING_TO_COMPLETE
    ended = told[4]
    assert (ended.queue_before, ended.queue_after) == (call_state_pb2.QUEUE_UNSIGNED_USERS, 0)
    assert ended.state == call_state_pb2.ENTRY_STATE_OUT
    count = "SELECT count(*) FROM queue.outbox"
    assert await until(lambda: tables.value(count), lambda it: it == 0) == 0


async def test_an_event_that_cannot_be_decoded_holds_up_no_other(
    desk: Desk, stream: EventStream, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    start = await stream.position()
    await tables.rows("INSERT INTO queue.outbox (event) VALUES ('\\xff')")
    await desk.claim("agent")
    ((_, told),) = await stream.read(start, block_seconds=4, count=10)
    assert told.type == event_pb2.EVENT_TYPE_ASSIGNMENT_STARTED
    count = "SELECT count(*) FROM queue.outbox"
    await until(lambda: tables.value(count), lambda it: it == 0)


async def test_user_context_hears_the_latest_version_of_each_state(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    held = (await desk.claim("agent")).assignment
    state = (await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)).call_state
    count = "SELECT count(*) FROM queue.stale_call_states"
    await until(lambda: tables.value(count), lambda it: it == 0)
    assert queue.main_app.invalidated[2] == state.version
    assert set(queue.main_app.invalidated) == {1, 2}


async def test_events_hold_ids_and_states_only(
    desk: Desk, queue: RunningQueue, stream: EventStream
) -> None:
    await desk.fill(unsigned(1))
    start = await stream.position()
    held = (await desk.claim("agent")).assignment
    await desk.record(held, call_state_pb2.OUTCOME_HUNG_UP, notes="her mother is ill")
    text = b"".join(it.SerializeToString() for it in await _read(stream, start, 3))
    for secret in (b"mother", b"7700900", b"Blue Motor"):
        assert secret not in text


async def test_events_are_published_over_tls(
    queue_url: str, clock: FakeClock, tmp_path: Path
) -> None:
    with running_tls_redis(tmp_path) as redis:
        ca = redis.ca_file
        async with (
            redis_client(redis.url, timeout_seconds=10.0, tls_ca_file=ca) as client,
            running_queue(queue_url, redis.url, clock=clock, redis_tls_ca_file=ca) as running,
        ):
            stream = EventStream(client)
            start = await stream.position()
            desk = Desk(running)
            await desk.fill(unsigned(1))
            await desk.claim("agent")
            assert [event.user_id for event in await _read(stream, start, 1)] == [1]
