"""Pauses stop hand-outs from the next claim on, and callbacks are agreed outside of them."""

from datetime import timedelta
from uuid import uuid4

import pytest
from dialler.model.v1.call_state_pb2 import EntryState, Outcome, Queue
from dialler.queue.v1 import queue_pb2

from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.queue.store.pauses import is_paused
from services.queue.wire.messages import timestamp
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

HOUR = timedelta(hours=1)
UNSIGNED, OUTSTANDING = Queue.QUEUE_UNSIGNED_USERS, Queue.QUEUE_OUTSTANDING_REQUESTS
CALLBACKS = Queue.QUEUE_CALLBACKS


async def _actions(desk: Desk) -> list[str]:
    return [it.action for it in reversed(await desk.audit(actor_id="boss"))]


async def test_no_person_is_handed_out_while_all_is_paused(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1), outstanding(2))
    pause = await desk.pause(clock.now() + HOUR)
    claimed = await desk.claim("ann")
    assert not claimed.HasField("assignment")
    assert list(claimed.empty.pauses) == [pause]
    assert list((await desk.stats()).pauses) == [pause]
    assert (await desk.stats()).queues[0].ready == 1
    explained = await desk.explain(1)
    assert not explained.is_callable_now
    assert [it.rule for it in explained.rules if not it.is_passed][-1] == "NOT_PAUSED"
    clock.advance(HOUR)
    assert (await desk.claim("ann")).assignment.user_id == 1
    assert (await desk.explain(2)).is_callable_now
    assert await desk.pauses() == []
    assert list((await desk.stats()).pauses) == []


async def test_a_pause_of_one_queue_leaves_the_others(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1), outstanding(2), unsigned(3))
    await desk.schedule(3, clock.now() + HOUR)
    clock.advance(HOUR)
    await desk.becomes(3, EntryState.ENTRY_STATE_READY)
    await desk.pause(clock.now() + HOUR, queue=CALLBACKS)
    await desk.pause(clock.now() + HOUR, queue=UNSIGNED)
    assert (await desk.claim("ann")).assignment.user_id == 2
    empty = (await desk.claim("bob", UNSIGNED)).empty
    assert {it.queue for it in empty.pauses} == {CALLBACKS, UNSIGNED}
    assert not (await desk.explain(1)).is_callable_now


async def test_an_agent_keeps_the_person_and_reports_the_call(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("ann")).assignment
    await desk.pause(clock.now() + HOUR)
    assert await desk.current("ann") == held
    await desk.heartbeat(held)
    await desk.record(held, Outcome.OUTCOME_NO_ANSWER)


async def test_a_pause_is_ended_early(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    pause, key = await desk.pause(clock.now() + HOUR), str(uuid4())
    clock.advance(timedelta(minutes=5))
    ended = await desk.end_pause(pause.pause_id, key)
    assert (ended.ends_at, ended.ended_by) == (timestamp(clock.now()), "boss")
    assert await desk.end_pause(pause.pause_id, key) == ended
    assert (await desk.claim("ann")).assignment.user_id == 1
    with pytest.raises(FailedPrecondition, match="PAUSE_ENDED"):
        await desk.end_pause(pause.pause_id)
    with pytest.raises(NotFound, match="PAUSE_NOT_FOUND"):
        await desk.end_pause(str(uuid4()))
    assert await _actions(desk) == ["PAUSED", "PAUSE_ENDED"]
    details = (await desk.audit(actor_id="boss"))[0].details
    assert (details["pause_id"], details["queue"]) == (pause.pause_id, "all")


async def test_a_repeated_request_pauses_once(desk: Desk, clock: FakeClock) -> None:
    key, ends_at = str(uuid4()), clock.now() + HOUR
    pause = await desk.pause(ends_at, request_id=key)
    assert await desk.pause(ends_at, request_id=key) == pause
    assert await desk.pauses() == [pause]
    with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
        await desk.pause(ends_at, queue=UNSIGNED, request_id=key)


async def test_a_pause_ahead_comes_into_force_and_may_be_called_off(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    begins_at = clock.now() + HOUR
    ahead = await desk.pause(begins_at + HOUR, begins_at=begins_at)
    assert await desk.pauses() == [ahead]
    assert list((await desk.stats()).pauses) == []
    assert (await desk.explain(1)).is_callable_now
    clock.advance(HOUR)
    assert not (await desk.claim("ann")).HasField("assignment")
    later = await desk.pause(clock.now() + 3 * HOUR, begins_at=clock.now() + 2 * HOUR)
    called_off = await desk.end_pause(later.pause_id)
    assert called_off.ends_at == called_off.begins_at
    assert later.pause_id not in [it.pause_id for it in await desk.pauses()]
    with pytest.raises(FailedPrecondition, match="PAUSE_ENDED"):
        await desk.end_pause(later.pause_id)


async def test_a_callback_is_agreed_outside_of_pauses(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    at = clock.now() + 2 * HOUR
    await desk.pause(at + HOUR, begins_at=at - HOUR, queue=UNSIGNED)
    await desk.schedule(1, at)
    await desk.pause(at + HOUR, begins_at=at - HOUR, queue=CALLBACKS)
    await desk.pause(at + 2 * HOUR, begins_at=at)
    with pytest.raises(InvalidArgument, match="CALLBACK_OUTSIDE_HOURS") as refused:
        await desk.schedule(2, at)
    opens_at = at + 2 * HOUR
    assert refused.value.metadata["next_open_at"] == opens_at.isoformat()
    assert (await desk.schedule(2, opens_at)).scheduled_for == timestamp(opens_at)


async def test_another_replica_keeps_to_it_at_once(
    desk: Desk, queue: RunningQueue, queue_url: str, redis_url: str, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    async with running_queue(queue_url, redis_url, clock=clock, main_app=queue.main_app) as other:
        pause = await Desk(other).pause(clock.now() + HOUR)
        assert not (await desk.claim("ann")).HasField("assignment")
        await Desk(other).end_pause(pause.pause_id)
        assert (await desk.claim("ann")).assignment.user_id == 1


@pytest.mark.parametrize(
    ("begins_in", "lasts", "reason"),
    [
        (HOUR, timedelta(0), "PAUSE_TIME_INVALID"),
        (-2 * HOUR, HOUR, "PAUSE_TIME_INVALID"),
        (HOUR, timedelta(days=31, seconds=1), "PAUSE_TOO_LONG"),
    ],
)
async def test_times_that_make_no_pause(
    desk: Desk, clock: FakeClock, begins_in: timedelta, lasts: timedelta, reason: str
) -> None:
    begins_at = clock.now() + begins_in
    with pytest.raises(InvalidArgument, match=reason):
        await desk.pause(begins_at + lasts, begins_at=begins_at)


async def test_the_claim_reads_the_pauses_once(tables: Tables) -> None:
    """The condition concerns no single person, so PostgreSQL asks it once a statement."""
    plan = await tables.plan(
        "SELECT user_id FROM queue.entries WHERE state = 1 AND queue = 1"
        f" AND NOT {is_paused('1', 'now()')}"
    )
    assert "One-Time Filter" in plan


async def test_pauses_are_kept_as_long_as_the_audit(
    desk: Desk, queue: RunningQueue, tables: Tables, clock: FakeClock
) -> None:
    await desk.pause(clock.now() + HOUR)
    clock.advance(timedelta(days=1094))
    await queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())
    assert await tables.value("SELECT count(*) FROM queue.pauses") == 1
    clock.advance(timedelta(days=2))
    await queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())
    assert await tables.value("SELECT count(*) FROM queue.pauses") == 0
