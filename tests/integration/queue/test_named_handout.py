"""A person who rings us, or whom a supervisor chooses, is handed to the agent who names them."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import (
    Conflict,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ServiceError,
    Unavailable,
)
from services.queue.wire.messages import timestamp
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, give_phones, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

MANUAL = queue_pb2.CALL_DIRECTION_MANUAL
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
ASSIGNED = call_state_pb2.ENTRY_STATE_ASSIGNED
SUNDAY = datetime(2025, 6, 8, 12, tzinfo=UTC)


async def test_a_person_who_rings_is_taken_outside_hours_beyond_caps_and_while_cooling(
    queue: RunningQueue, desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1, created_at=clock.now()))
    assert (await desk.state(1)).hold == call_state_pb2.HOLD_COOLING
    for _ in range(3):
        await desk.record((await desk.take(1)).assignment, call_state_pb2.OUTCOME_COMPLETED_FORM)
    assert (await desk.state(1)).hold == call_state_pb2.HOLD_DAILY_CAP
    await desk.record((await desk.take(1)).assignment, call_state_pb2.OUTCOME_COMPLETED_FORM)
    clock.advance(SUNDAY - clock.now())
    assert not (await desk.claim("other")).HasField("assignment")
    taken = await desk.take(1)
    held = taken.assignment
    assert (held.user_id, held.agent_id, taken.already_held) == (1, "agent", False)
    assert held.direction == queue_pb2.CALL_DIRECTION_INBOUND
    assert (held.reason, held.contact_block) == ("NO_SIGNATURE", "")
    assert await desk.current("agent") == held
    assert (await desk.state(1)).assigned_agent_id == "agent"
    # Taking again, under another request id, is the same assignment.
    again = await desk.take(1)
    assert (again.assignment, again.already_held) == (held, True)


async def test_the_outcome_of_a_call_that_came_in_is_recorded_like_any_other(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.take(1)).assignment
    answer = await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER, notes="rang off")
    assert answer.call_state.attempts == 1
    calls = await queue.stub.ListCalls(queue_pb2.ListCallsRequest(user_id=1))
    (call,) = calls.calls
    assert (call.direction, call.notes) == (queue_pb2.CALL_DIRECTION_INBOUND, "rang off")
    (noted,) = await desk.audit(action="HANDED_OUT")
    assert noted.details["direction"] == "inbound"


async def test_an_objection_is_shown_and_nothing_outbound_follows_the_call(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    await desk.suppress(1)
    held = (await desk.take(1)).assignment
    assert held.contact_block == "DO_NOT_CONTACT"
    assert held.queue == call_state_pb2.QUEUE_UNSPECIFIED
    at = clock.now() + timedelta(hours=1)
    with pytest.raises(FailedPrecondition) as raised:
        await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK, callback_at=at)
    assert raised.value.reason == "USER_NOT_CALLABLE"
    assert raised.value.metadata["cause"] == "DO_NOT_CONTACT"
    # Without a time this outcome makes a callback of its own, but for a person who objects.
    answer = await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK)
    assert answer.call_state.state == SUPPRESSED
    assert not await desk.callbacks()
    clock.advance(timedelta(days=2))
    assert not (await desk.claim("agent")).HasField("assignment")


async def test_a_lease_that_runs_out_leaves_the_objection_in_force(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    await desk.suppress(1)
    await desk.heartbeat((await desk.take(1)).assignment)
    clock.advance(120)
    state = await desk.becomes(1, SUPPRESSED)
    assert (state.reason, state.attempts) == ("DO_NOT_CONTACT", 1)


async def test_people_not_known_or_without_open_claims_are_taken_if_the_main_app_has_them(
    queue: RunningQueue, desk: Desk
) -> None:
    queue.main_app.put(done(1), unsigned(2))
    held = (await desk.take(1)).assignment
    assert (held.user_id, held.reason, held.contact_block) == (1, "NOTHING_OUTSTANDING", "")
    await desk.record(held, call_state_pb2.OUTCOME_GOING_TO_COMPLETE)
    held = (await desk.take(2)).assignment
    assert (held.reason, held.queue) == ("NO_SIGNATURE", call_state_pb2.QUEUE_UNSIGNED_USERS)
    await desk.release(held)
    with pytest.raises(NotFound) as raised:
        await desk.take(3)
    assert raised.value.reason == "USER_UNKNOWN"
    assert (await desk.state(3)).state == call_state_pb2.ENTRY_STATE_UNSPECIFIED


async def test_no_person_is_taken_unread(queue: RunningQueue, desk: Desk) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.is_unavailable = True
    with pytest.raises(Unavailable):
        await desk.take(1)


async def test_the_present_facts_count_not_those_applied_last(
    queue: RunningQueue, desk: Desk
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.put(done(1))
    assert (await desk.take(1)).assignment.reason == "NOTHING_OUTSTANDING"


async def test_the_answer_says_which_agent_holds_the_person_or_another_on_the_line(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), give_phones(unsigned(2), "+447700900001"))
    held = (await desk.take(1, "first")).assignment
    for user_id, reason in ((1, "PERSON_HELD"), (2, "LINE_IN_CALL")):
        with pytest.raises(Conflict) as raised:
            await desk.take(user_id, "second")
        assert (raised.value.reason, raised.value.metadata) == (reason, {"agent_id": "first"})
    await desk.fill(unsigned(3))
    with pytest.raises(Conflict) as raised:
        await desk.take(3, "first")
    assert raised.value.reason == "AGENT_HOLDS_ANOTHER"
    assert raised.value.metadata == {"assignment_id": held.assignment_id}
    # Once the lease has run out it is in the way of no agent, swept or not.
    clock.advance(121)
    assert (await desk.take(2, "second")).assignment.user_id == 2


async def test_of_agents_that_take_one_person_at_a_moment_one_gets_the_person(
    desk: Desk, tables: Tables
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    asked = [desk.take(1, f"a{n}") for n in range(4)], [desk.claim(f"c{n}") for n in range(2)]
    answers = await asyncio.gather(*asked[0], *asked[1], return_exceptions=True)
    assert all(isinstance(it, Conflict) for it in answers if isinstance(it, BaseException))
    live = await tables.rows("SELECT user_id FROM queue.assignments WHERE ended_at IS NULL")
    assert sorted(row[0] for row in live) == [1, 2]


async def test_a_repeat_gets_the_first_answer_while_it_lasts(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    request_id = str(uuid4())
    first = await desk.take(1, request_id=request_id)
    assert await desk.take(1, request_id=request_id) == first
    await desk.release(first.assignment)
    with pytest.raises(Conflict) as raised:
        await desk.take(1, request_id=request_id)
    assert raised.value.reason == "CLAIM_ENDED"


async def test_a_chosen_person_must_be_one_who_may_be_called_now(
    queue: RunningQueue, desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2), done(3), unsigned(4))

    async def refusal(user_id: int) -> str:
        with pytest.raises(FailedPrecondition) as raised:
            await desk.take(user_id, "boss", MANUAL, is_supervisor=True)
        assert raised.value.reason == "USER_NOT_CALLABLE"
        return raised.value.metadata["cause"]

    # The order of the queue does not count.
    held = (await desk.take(1, "boss", MANUAL, is_supervisor=True)).assignment
    assert (held.user_id, held.direction) == (1, MANUAL)
    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    assert await refusal(1) == "NEXT_CALL"
    await desk.suppress(2)
    assert await refusal(2) == "DO_NOT_CONTACT"
    assert await refusal(3) == "NOTHING_OUTSTANDING"
    pause = queue_pb2.BeginPauseRequest(
        actor_id="boss",
        ends_at=timestamp(clock.now() + timedelta(hours=1)),
        reason="training",
        request_id=str(uuid4()),
    )
    await queue.stub.BeginPause(pause)
    assert await refusal(4) == "PAUSED"
    clock.advance(SUNDAY - clock.now())
    assert await refusal(4) == "CALLING_HOURS"


async def test_agents_choose_whom_to_phone_only_if_the_rules_say_so(
    queue: RunningQueue, desk: Desk
) -> None:
    await desk.fill(unsigned(1))
    with pytest.raises(PermissionDenied) as raised:
        await desk.take(1, "agent", MANUAL)
    assert raised.value.reason == "MANUAL_NOT_ALLOWED"
    with pytest.raises(ServiceError) as refused:
        await desk.take(1, "agent", queue_pb2.CALL_DIRECTION_OUTBOUND)
    assert refused.value.reason == "DIRECTION_MISSING"


async def test_a_person_who_rang_is_released_not_skipped(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.take(1)).assignment
    await desk.release(held, queue_pb2.RELEASE_REASON_SKIPPED)
    assert (await desk.state(1)).score == pytest.approx(0, abs=0.01)
    assert not await desk.audit(action="SKIPPED")
