"""A call that no agent reported is a call: the person rests, and it counts."""

from datetime import timedelta
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import give_phones, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
UNREPORTED_CALL = call_state_pb2.HOLD_UNREPORTED_CALL
MIGHT_COMPLETE = call_state_pb2.OUTCOME_MIGHT_COMPLETE
HALF_AN_HOUR = timedelta(minutes=30)


async def _vanish(desk: Desk, clock: FakeClock, agent_id: str = "agent") -> queue_pb2.Assignment:
    """An agent calls, sends a heartbeat, and is not heard of again."""
    held = (await desk.claim(agent_id)).assignment
    clock.advance(60)
    await desk.heartbeat(held)
    clock.advance(121)
    await desk.becomes(held.user_id, WAITING)
    return held


async def test_the_person_rests_and_is_called_three_times_a_day_at_most(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    for number in (1, 2):
        await _vanish(desk, clock, f"agent-{number}")
        state = await desk.state(1)
        assert (state.attempts, state.hold) == (number, UNREPORTED_CALL)
        assert (await desk.claim("other")).HasField("empty")
        clock.advance(HALF_AN_HOUR)
        await desk.becomes(1, READY)
    await _vanish(desk, clock, "agent-3")
    state = await desk.state(1)
    assert (state.attempts, state.hold) == (3, call_state_pb2.HOLD_DAILY_CAP)
    rules = {it.rule: it for it in (await desk.explain(1)).rules}
    assert not rules["UNREPORTED_CALL"].is_passed
    assert not rules["DAILY_CAP"].is_passed
    stats = await desk.stats()
    assert (stats.calls_today, stats.unreported_calls_today) == (0, 3)
    assert {it.agent_id: it.unreported_calls for it in stats.agents_today} == {
        f"agent-{number}": 1 for number in range(1, 4)
    }
    assert (await desk.agents())["agent-1"].today.unreported_calls == 1


async def test_a_hand_out_without_a_sign_of_a_call_counts_for_nothing(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    for _ in range(5):
        await desk.claim("agent")
        clock.advance(121)
        assert (await desk.becomes(1, READY)).attempts == 0


async def test_a_late_report_makes_it_an_ordinary_call_counted_once(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    held = await _vanish(desk, clock)
    state = (await desk.record(held, MIGHT_COMPLETE, notes="was cut off")).call_state
    assert (state.attempts, state.last_outcome) == (1, MIGHT_COMPLETE)
    assert state.hold == call_state_pb2.HOLD_NEXT_CALL
    assert [it.outcome for it in state.recent_attempts] == [MIGHT_COMPLETE]
    # Once more is the same report.
    assert (await desk.record(held, MIGHT_COMPLETE, notes="was cut off")).call_state.attempts == 1
    stats = await desk.stats()
    assert (stats.calls_today, stats.unreported_calls_today) == (1, 0)
    assert await tables.value("SELECT count(*) FROM queue.attempt_lines") == 1


async def test_until_it_is_reported_the_call_is_shown_without_an_outcome(
    desk: Desk, clock: FakeClock, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    held = await _vanish(desk, clock)
    (shown,) = (await desk.state(1)).recent_attempts
    assert (shown.agent_id, shown.outcome) == ("agent", call_state_pb2.OUTCOME_UNSPECIFIED)
    (call,) = (await queue.stub.ListCalls(queue_pb2.ListCallsRequest(user_id=1))).calls
    assert (call.assignment_id, call.outcome) == (held.assignment_id, 0)


async def test_others_on_the_line_rest_as_after_any_call(desk: Desk, clock: FakeClock) -> None:
    line = "+442079460018"
    await desk.fill(give_phones(unsigned(1), line), give_phones(unsigned(2), line))
    held = await _vanish(desk, clock)
    state = await desk.state(3 - held.user_id)
    assert (state.state, state.hold) == (WAITING, call_state_pb2.HOLD_SHARED_PHONE)
    clock.advance(HALF_AN_HOUR)
    await desk.becomes(held.user_id, READY)
    assert (await desk.state(3 - held.user_id)).state == WAITING


async def test_a_due_callback_rests_too(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    await desk.schedule(1, clock.now() + timedelta(minutes=5))
    clock.advance(timedelta(minutes=5))
    await desk.becomes(1, READY)
    held = await _vanish(desk, clock)
    assert held.queue == call_state_pb2.QUEUE_CALLBACKS
    assert (await desk.state(1)).hold == UNREPORTED_CALL
    clock.advance(HALF_AN_HOUR)
    state = await desk.becomes(1, READY)
    assert state.queue == call_state_pb2.QUEUE_CALLBACKS


async def test_a_person_taken_from_an_agent_on_the_phone_rests_and_the_reason_is_kept(
    desk: Desk, clock: FakeClock, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    clock.advance(60)
    await desk.heartbeat(held)
    request = queue_pb2.ForceReleaseAssignmentRequest(
        assignment_id=held.assignment_id,
        actor_id="boss",
        notes="gone home with the browser open",
        request_id=str(uuid4()),
    )
    state = (await queue.stub.ForceReleaseAssignment(request)).call_state
    assert (state.state, state.hold) == (WAITING, UNREPORTED_CALL)
    (entry,) = await desk.audit(action="FORCED_RELEASE")
    assert entry.notes == "gone home with the browser open"
    assert "notes" not in entry.details
    # A late report is still taken.
    assert (await desk.record(held, MIGHT_COMPLETE)).call_state.attempts == 1
