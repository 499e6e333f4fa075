"""Leases, releases, outcomes, and reports that are repeated or late."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import Conflict, InvalidArgument, NotFound, ServiceError
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import done, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

OUTSTANDING = call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
ASSIGNED = call_state_pb2.ENTRY_STATE_ASSIGNED
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
OUT = call_state_pb2.ENTRY_STATE_OUT


async def _held(desk: Desk, user_id: int = 1, agent_id: str = "agent") -> queue_pb2.Assignment:
    await desk.fill(unsigned(user_id))
    return (await desk.claim(agent_id)).assignment


async def test_a_heartbeat_keeps_the_person_and_its_absence_gives_them_back(
    desk: Desk, clock: FakeClock
) -> None:
    held = await _held(desk)
    for _ in range(3):
        clock.advance(100)
        extended = await desk.heartbeat(held)
        assert extended.lease_expires_at.ToSeconds() == clock.now().timestamp() + 120
    clock.advance(120)
    returned = await desk.becomes(1, WAITING)
    # The agent may have been on the phone, so it counts as a call.
    assert (returned.assigned_agent_id, returned.attempts) == ("", 1)
    assert returned.hold == call_state_pb2.HOLD_UNREPORTED_CALL
    assert returned.score == pytest.approx(0, abs=0.01)
    with pytest.raises(NotFound) as raised:
        await desk.current("agent")
    assert raised.value.reason == "NO_LIVE_ASSIGNMENT"
    clock.advance(timedelta(minutes=30))
    await desk.becomes(1, READY)
    again = (await desk.claim("other")).assignment
    assert (again.user_id, again.fence) == (1, held.fence + 1)


async def test_no_heartbeat_keeps_a_user_for_ever(desk: Desk, clock: FakeClock) -> None:
    held = await _held(desk)
    extended = held
    for _ in range(71):
        clock.advance(100)
        extended = await desk.heartbeat(held)
    assert extended.lease_expires_at.ToSeconds() == held.started_at.ToSeconds() + 7200
    clock.advance(100)
    with pytest.raises(Conflict) as raised:
        await desk.heartbeat(held)
    assert raised.value.reason == "ASSIGNMENT_NOT_LIVE"


@pytest.mark.parametrize("sweeps", [True, False])
async def test_an_outcome_just_after_the_lease_is_taken_if_no_other_agent_was_handed_the_user(
    queue_url: str, redis_url: str, clock: FakeClock, tables: Tables, sweeps: bool
) -> None:
    interval = 0.02 if sweeps else 3600.0
    async with running_queue(
        queue_url, redis_url, clock=clock, lease_sweep_interval_seconds=interval
    ) as running:
        desk = Desk(running)
        held = await _held(desk)
        clock.advance(120)
        if sweeps:
            await desk.becomes(1, READY)
        with pytest.raises(Conflict) as raised:
            await desk.release(held)
        assert raised.value.reason == "ASSIGNMENT_NOT_LIVE"
        answer = await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
        assert answer.call_state.state == WAITING
        assert answer.call_state.attempts == 1
        rows = await tables.rows("SELECT ending FROM queue.assignments")
        assert [row[0] for row in rows] == [1]
        with pytest.raises(NotFound):
            await desk.current("agent")


async def test_an_outcome_after_the_lease_is_refused_when_another_agent_has_the_person(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    held = await _held(desk)
    clock.advance(120)
    await desk.becomes(1, READY)
    taken = (await desk.claim("other")).assignment
    with pytest.raises(Conflict) as raised:
        await _record(desk, held)
    assert raised.value.reason == "ASSIGNMENT_NOT_LIVE"
    await _record(desk, taken)
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 1


async def test_an_outcome_hours_after_the_lease_is_refused(desk: Desk, clock: FakeClock) -> None:
    held = await _held(desk)
    clock.advance(120 + 3601)
    with pytest.raises(Conflict):
        await _record(desk, held)


async def test_the_next_claim_of_an_agent_does_not_wait_for_the_sweep(
    queue_url: str, redis_url: str, clock: FakeClock
) -> None:
    async with running_queue(
        queue_url, redis_url, clock=clock, lease_sweep_interval_seconds=3600.0
    ) as running:
        desk = Desk(running)
        held = await _held(desk)
        clock.advance(120)
        again = await desk.claim("agent")
        assert not again.already_held
        assert again.assignment.assignment_id != held.assignment_id
        assert again.assignment.user_id == 1


async def test_a_double_click_under_two_request_ids_records_one_outcome(
    desk: Desk, tables: Tables
) -> None:
    held = await _held(desk)
    first, second = await asyncio.gather(
        desk.record(held, call_state_pb2.OUTCOME_HUNG_UP, notes="rude"),
        desk.record(held, call_state_pb2.OUTCOME_HUNG_UP, notes="rude"),
    )
    assert first.call_state.attempts == second.call_state.attempts == 1
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 1
    with pytest.raises(Conflict):
        await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)


async def _record(desk: Desk, held: queue_pb2.Assignment) -> None:
    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)


async def test_assignments_of_other_agents_and_unknown_ones(desk: Desk) -> None:
    held = await _held(desk)
    for ask in (
        desk.heartbeat(held, "thief"),
        desk.release(held, agent_id="thief"),
        desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER, agent_id="thief"),
    ):
        with pytest.raises(Conflict) as raised:
            await ask
        assert raised.value.reason == "ASSIGNMENT_NOT_YOURS"
    unknown = queue_pb2.Assignment(assignment_id=str(uuid4()), agent_id="agent")
    for ask in (
        desk.heartbeat(unknown),
        desk.release(unknown),
        desk.record(unknown, call_state_pb2.OUTCOME_NO_ANSWER),
    ):
        with pytest.raises(NotFound) as missing:
            await ask
        assert missing.value.reason == "ASSIGNMENT_NOT_FOUND"
    with pytest.raises(InvalidArgument) as malformed:
        await desk.heartbeat(queue_pb2.Assignment(assignment_id="7", agent_id="agent"))
    assert malformed.value.reason == "ASSIGNMENT_ID_INVALID"
    assert await desk.current("agent") == held


async def test_an_outcome_ends_the_assignment_and_is_kept(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    held = await _held(desk)
    answer = await desk.record(held, call_state_pb2.OUTCOME_HUNG_UP, notes="said £5 was too much")
    state = answer.call_state
    assert (state.state, state.score, state.attempts) == (WAITING, 2, 1)
    assert state.next_call_at.ToSeconds() == (clock.now() + timedelta(hours=4)).timestamp()
    assert state.recent_attempts[0].notes == "said £5 was too much"
    assert state == await desk.state(1)
    for ask in (desk.heartbeat(held), desk.release(held), _record(desk, held)):
        with pytest.raises(Conflict) as raised:
            await ask
        assert raised.value.reason == "ASSIGNMENT_NOT_LIVE"
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 1
    assert (await desk.stats()).calls_today == 1


async def test_a_double_click_is_one_outcome(desk: Desk, tables: Tables) -> None:
    held = await _held(desk)
    request_id = str(uuid4())
    answers = await asyncio.gather(
        *(
            desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER, request_id=request_id)
            for _ in range(5)
        )
    )
    assert all(it == answers[0] for it in answers)
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 1
    assert (await desk.state(1)).attempts == 1


async def test_two_different_outcomes_at_once_are_one_outcome_and_a_conflict(
    desk: Desk, tables: Tables
) -> None:
    held = await _held(desk)
    answers = await asyncio.gather(
        desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER),
        desk.record(held, call_state_pb2.OUTCOME_HUNG_UP),
        return_exceptions=True,
    )
    errors = [it for it in answers if isinstance(it, ServiceError)]
    assert [it.reason for it in errors] == ["ASSIGNMENT_NOT_LIVE"]
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 1


async def test_a_request_id_cannot_be_used_for_another_request(desk: Desk) -> None:
    held = await _held(desk)
    request_id = str(uuid4())
    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER, request_id=request_id)
    for ask in (
        desk.record(held, call_state_pb2.OUTCOME_HUNG_UP, request_id=request_id),
        desk.release(held, request_id=request_id),
        desk.claim("agent", request_id=request_id),
    ):
        with pytest.raises(InvalidArgument) as raised:
            await ask
        assert raised.value.reason == "REQUEST_ID_REUSED"


async def test_a_refused_request_does_not_use_its_id_up(desk: Desk) -> None:
    held = await _held(desk)
    request_id = str(uuid4())
    with pytest.raises(InvalidArgument):
        await desk.record(held, call_state_pb2.OUTCOME_DO_NOT_CONTACT, request_id=request_id)
    answer = await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER, request_id=request_id)
    assert answer.call_state.attempts == 1


async def test_a_release_gives_back_once_without_an_attempt(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    clock.advance(timedelta(weeks=1))
    held = (await desk.claim("agent")).assignment
    request_id = str(uuid4())
    answer = await desk.release(held, request_id=request_id)
    assert (answer.call_state.state, answer.call_state.attempts) == (READY, 0)
    assert answer.call_state.score == pytest.approx(5)
    assert await desk.release(held, request_id=request_id) == answer
    # Still at the head.
    assert (await desk.claim("other")).assignment.user_id == held.user_id


async def test_a_skip_goes_behind_its_score(desk: Desk) -> None:
    await desk.fill(unsigned(1), unsigned(2), unsigned(3))
    held = (await desk.claim("agent")).assignment
    answer = await desk.release(held, queue_pb2.RELEASE_REASON_SKIPPED)
    assert answer.call_state.score == 1
    order = [(await desk.claim(f"agent-{it}")).assignment.user_id for it in range(3)]
    assert order == [2, 1, 3]


async def test_a_score_of_zero_and_a_call_at_once_keep_the_person_in_the_queue(
    desk: Desk,
) -> None:
    held = await _held(desk)
    answer = await desk.record(held, call_state_pb2.OUTCOME_MISSED_CALL)
    state = answer.call_state
    assert (state.state, state.score) == (READY, 0)
    assert not state.HasField("next_call_at")
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_a_callback_is_not_offered_before_its_hour(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    held = await _held(desk)
    at = clock.now() + timedelta(hours=30)
    answer = await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK, callback_at=at)
    assert answer.call_state.next_call_at.ToSeconds() == at.timestamp()
    clock.advance(timedelta(hours=29, minutes=59))
    assert (await desk.claim("other")).empty.waiting == 1
    clock.advance(60)
    await desk.becomes(1, READY)
    assert (await desk.claim("other")).assignment.user_id == 1
    assert await tables.value("SELECT callback_at FROM queue.attempts") == at


async def test_do_not_contact_is_for_ever(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    held = await _held(desk)
    answer = await desk.record(
        held, call_state_pb2.OUTCOME_DO_NOT_CONTACT, notes="asked us to stop"
    )
    assert (answer.call_state.state, answer.call_state.reason) == (SUPPRESSED, "DO_NOT_CONTACT")
    clock.advance(timedelta(days=400))
    queue.main_app.put(outstanding(1))
    await desk.apply(1)
    assert (await desk.state(1)).state == SUPPRESSED
    assert not (await desk.claim("other")).HasField("assignment")


async def test_a_completed_form_is_checked_in_the_same_request(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    held = await _held(desk)
    queue.main_app.put(done(1))
    request_id = str(uuid4())
    answer = await desk.record(held, call_state_pb2.OUTCOME_COMPLETED_FORM, request_id=request_id)
    assert answer.conversion == event_pb2.CONVERSION_SIGNATURE_OBTAINED
    assert (answer.call_state.state, answer.call_state.reason) == (OUT, "NOTHING_OUTSTANDING")
    assert await tables.value("SELECT agent_id FROM queue.conversions") == "agent"
    repeated = await desk.record(held, call_state_pb2.OUTCOME_COMPLETED_FORM, request_id=request_id)
    assert repeated == answer


async def test_a_form_that_is_not_there_keeps_the_person_for_an_hour(
    desk: Desk, clock: FakeClock
) -> None:
    held = await _held(desk)
    answer = await desk.record(held, call_state_pb2.OUTCOME_COMPLETED_FORM)
    assert answer.conversion == 0
    assert (answer.call_state.state, answer.call_state.score) == (WAITING, 0)
    assert answer.call_state.next_call_at.ToSeconds() == clock.now().timestamp() + 3600


async def test_an_outcome_is_kept_although_the_main_app_is_away(
    desk: Desk, queue: RunningQueue
) -> None:
    held = await _held(desk)
    queue.main_app.is_unavailable = True
    answer = await desk.record(held, call_state_pb2.OUTCOME_COMPLETED_FORM)
    assert answer.call_state.attempts == 1


async def test_a_signature_during_the_call_is_credited_to_the_call(
    desk: Desk, queue: RunningQueue
) -> None:
    held = await _held(desk)
    queue.main_app.put(outstanding(1))
    await desk.apply(1)
    during = await desk.state(1)
    assert (during.state, during.assigned_agent_id) == (ASSIGNED, "agent")
    answer = await desk.record(held, call_state_pb2.OUTCOME_GOING_TO_COMPLETE)
    assert answer.conversion == event_pb2.CONVERSION_SIGNATURE_OBTAINED
    assert (answer.call_state.queue, answer.call_state.score) == (OUTSTANDING, 0)


async def test_a_lease_that_runs_out_settles_by_the_facts(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await _held(desk)
    queue.main_app.put(done(1))
    await desk.apply(1)
    clock.advance(120)
    state = await desk.becomes(1, OUT)
    assert state.reason == "NOTHING_OUTSTANDING"


@pytest.mark.parametrize(
    ("outcome", "notes", "reason"),
    [
        (0, "", "OUTCOME_MISSING"),
        (99, "", "OUTCOME_MISSING"),
        (call_state_pb2.OUTCOME_DO_NOT_CONTACT, " ", "NOTES_REQUIRED"),
        (call_state_pb2.OUTCOME_NO_ANSWER, "x" * 10_001, "NOTES_TOO_LONG"),
        (call_state_pb2.OUTCOME_NO_ANSWER, "\0", "NOTES_INVALID"),
    ],
)
async def test_outcomes_that_are_refused(desk: Desk, outcome: int, notes: str, reason: str) -> None:
    held = await _held(desk)
    with pytest.raises(InvalidArgument) as raised:
        await desk.record(held, call_state_pb2.Outcome.ValueType(outcome), notes=notes)
    assert raised.value.reason == reason
    assert await desk.current("agent") == held


async def test_old_answers_are_forgotten_and_recent_ones_kept(
    queue_url: str, redis_url: str, clock: FakeClock, tables: Tables
) -> None:
    async with running_queue(
        queue_url, redis_url, clock=clock, housekeeping_interval_seconds=0.02
    ) as running:
        desk = Desk(running)
        held = await _held(desk)
        await desk.record(held, call_state_pb2.OUTCOME_MISSED_CALL)
        clock.advance(timedelta(hours=48, seconds=1))
        await desk.claim("agent")
        count = "SELECT count(*) FROM queue.requests"
        assert await until(lambda: tables.value(count), lambda it: it == 1)
