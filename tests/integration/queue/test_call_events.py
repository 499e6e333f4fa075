"""What happens to calls: events of an assignment's call, and calls that we missed."""

import itertools
from datetime import timedelta

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import Conflict, InvalidArgument, NotFound
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, give_phones, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

PHONE = "+447700900001"
READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING


async def _held(desk: Desk) -> queue_pb2.Assignment:
    await desk.fill(unsigned(1))
    return (await desk.claim("agent")).assignment


async def test_the_lease_does_not_run_out_while_the_call_is_up(
    desk: Desk, clock: FakeClock
) -> None:
    held = await _held(desk)
    await desk.note(held, "dialled", clock.now())
    answered = await desk.note(held, "answered", clock.now())
    assert answered.assignment.lease_expires_at.ToDatetime() == (
        clock.now().replace(tzinfo=None) + timedelta(hours=1)
    )
    clock.advance(timedelta(minutes=50))
    assert await desk.current("agent") == answered.assignment
    ended = await desk.note(held, "ended", clock.now(), duration_seconds=3000.0)
    # From then on as after a heartbeat.
    assert ended.is_live
    clock.advance(119)
    await desk.current("agent")
    clock.advance(1)
    state = await desk.becomes(1, WAITING)
    assert state.hold == call_state_pb2.HOLD_UNREPORTED_CALL


async def test_a_call_whose_end_is_never_noted_keeps_the_lease_for_an_hour(
    desk: Desk, clock: FakeClock
) -> None:
    held = await _held(desk)
    await desk.note(held, "answered", clock.now())
    clock.advance(timedelta(hours=1))
    await desk.becomes(1, WAITING)
    # A later event is kept all the same.
    late = await desk.note(held, "ended", clock.now(), recording_reference="rec/1")
    assert not late.is_live


@pytest.mark.parametrize("order", list(itertools.permutations(("dialled", "answered", "ended"))))
async def test_order_and_repeats_do_not_matter(
    queue: RunningQueue, desk: Desk, clock: FakeClock, order: tuple[str, ...]
) -> None:
    held = await _held(desk)
    at = {"dialled": clock.now()}
    at["answered"] = at["dialled"] + timedelta(seconds=5)
    at["ended"] = at["dialled"] + timedelta(seconds=9)
    clock.advance(10)
    for kind in (*order, *order[:2]):
        await desk.note(held, kind, at[kind])
    answer = await desk.note(held, order[2], at[order[2]])
    lease = answer.assignment.lease_expires_at.ToSeconds()
    assert held.lease_expires_at.ToSeconds() <= lease <= int(clock.now().timestamp()) + 120
    await desk.note(held, "ended", at["ended"], duration_seconds=4.0, recording_reference="r/1")
    await desk.note(held, "ended", at["ended"])
    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    (call,) = (await queue.stub.ListCalls(queue_pb2.ListCallsRequest(user_id=1))).calls
    kinds = [queue_pb2.CallEventKind.Name(it.kind) for it in call.events]
    assert kinds == [f"CALL_EVENT_KIND_{it}" for it in ("DIALLED", "ANSWERED", "ENDED")]
    assert (call.events[2].duration_seconds, call.events[2].recording_reference) == (4.0, "r/1")


async def test_a_second_call_of_an_assignment_keeps_the_lease_after_the_first_has_ended(
    desk: Desk, clock: FakeClock
) -> None:
    held = await _held(desk)
    await desk.note(held, "answered", clock.now())
    await desk.note(held, "answered", clock.now(), provider_call_id="C2")
    await desk.note(held, "ended", clock.now())
    clock.advance(timedelta(minutes=30))
    assert (await desk.current("agent")).assignment_id == held.assignment_id


async def test_an_agent_notes_events_of_its_own_assignment_only(
    desk: Desk, clock: FakeClock
) -> None:
    held = await _held(desk)
    await desk.note(held, "dialled", clock.now(), actor_id="agent", own_only=True)
    with pytest.raises(Conflict) as raised:
        await desk.note(held, "dialled", clock.now(), actor_id="other", own_only=True)
    assert raised.value.reason == "ASSIGNMENT_NOT_YOURS"
    held.assignment_id = "b83bf13c-60f4-4166-ad09-736910c6b1cc"
    with pytest.raises(NotFound):
        await desk.note(held, "dialled", clock.now())
    with pytest.raises(InvalidArgument) as refused:
        await desk.note(held, "unspecified", clock.now())
    assert refused.value.reason == "EVENT_KIND_MISSING"


async def test_events_are_deleted_with_the_last_of_assignment_and_call(
    queue: RunningQueue, desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    reported = await _held(desk)
    await desk.note(reported, "dialled", clock.now())
    await desk.record(reported, call_state_pb2.OUTCOME_NO_ANSWER)
    await desk.fill(unsigned(2))
    released = (await desk.claim("agent")).assignment
    await desk.note(released, "dialled", clock.now())
    await desk.release(released)
    clock.advance(timedelta(days=91))

    async def kept() -> list[str]:
        await queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())
        rows = await tables.rows("SELECT assignment_id FROM queue.call_events")
        return [str(row[0]) for row in rows]

    assert await kept() == [reported.assignment_id]
    ended = done(1)
    ended.claims[0].status = "complete"
    await desk.fill(ended)
    clock.advance(timedelta(days=401))
    assert await kept() == []


async def test_a_missed_call_makes_one_callback_now_for_each_person_of_the_number(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), give_phones(unsigned(2), PHONE), unsigned(3))
    held = (await desk.take(1, "agent")).assignment
    await desk.record(held, call_state_pb2.OUTCOME_GOING_TO_COMPLETE)
    clock.advance(timedelta(hours=3))
    missed_at = clock.now()
    clock.advance(60)
    made = await desk.miss("07700 900001", missed_at)
    assert sorted(it.user_id for it in made) == [1, 2]
    assert await desk.miss(PHONE, missed_at) == made
    assert len(await desk.callbacks()) == 2
    state = await desk.state(1)
    assert (state.reason, state.attempts, state.score) == ("CALLBACK_DUE", 1, 0)
    assert state.open_callback.preferred_agent_id == "agent"
    # Due already: another missed call changes nothing.
    assert not await desk.miss(PHONE, clock.now())
    assert (await desk.claim("agent")).assignment.queue == call_state_pb2.QUEUE_CALLBACKS


async def test_no_callback_for_people_who_object_or_were_spoken_with_since(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    await desk.suppress(1)
    missed_at = clock.now()
    assert not await desk.miss(PHONE, missed_at)
    clock.advance(60)
    await desk.record((await desk.take(2)).assignment, call_state_pb2.OUTCOME_GOING_TO_COMPLETE)
    before = await desk.callbacks()
    assert not await desk.miss("+447700900002", missed_at)
    assert await desk.callbacks() == before
    assert not await desk.miss("+447700900777", missed_at)


async def test_a_missed_call_replaces_a_callback_of_later(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    await desk.schedule(1, clock.now() + timedelta(hours=5), preferred="friend")
    (made,) = await desk.miss(PHONE, clock.now())
    assert made.preferred_agent_id == "friend"
    assert [it.callback_id for it in await desk.callbacks()] == [made.callback_id]


async def test_a_missed_call_of_days_ago_is_refused(desk: Desk, clock: FakeClock) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await desk.miss(PHONE, clock.now() - timedelta(hours=49))
    assert raised.value.reason == "MISSED_CALL_TOO_OLD"
