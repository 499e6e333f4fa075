"""Whom the law, or decency, keeps from being called: caps, shared numbers, zones, suppressions."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.model.v1.facts_pb2 import UserFacts
from prometheus_client import REGISTRY

from servicekit.errors import FailedPrecondition, InvalidArgument
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import give_phones, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
ASSIGNED = call_state_pb2.ENTRY_STATE_ASSIGNED
NO_ANSWER = call_state_pb2.OUTCOME_NO_ANSWER
MISSED_CALL = call_state_pb2.OUTCOME_MISSED_CALL
DAILY_CAP = call_state_pb2.HOLD_DAILY_CAP
PERIOD_CAP = call_state_pb2.HOLD_PERIOD_CAP
SHARED_PHONE = call_state_pb2.HOLD_SHARED_PHONE

SHARED = "+447700900999"


def _with_phone(facts: UserFacts, phone: str) -> UserFacts:
    give_phones(facts, phone)
    return facts


async def _call(desk: Desk, outcome: call_state_pb2.Outcome.ValueType) -> call_state_pb2.CallState:
    held = (await desk.claim("agent")).assignment
    assert held.user_id == 1
    return (await desk.record(held, outcome)).call_state


async def test_the_fourth_call_of_a_day_waits_for_the_persons_midnight(
    desk: Desk, clock: FakeClock
) -> None:
    """The clock begins at 09:00 UTC on 2 June; the person's midnight is 23:00 UTC."""
    await desk.fill(unsigned(1))
    for _ in range(2):
        assert (await _call(desk, MISSED_CALL)).state == READY
    third = await _call(desk, MISSED_CALL)
    assert (third.state, third.hold) == (WAITING, DAILY_CAP)
    assert third.next_call_at.ToDatetime(UTC) == datetime(2025, 6, 2, 23, 0, tzinfo=UTC)
    assert (await desk.claim("agent")).HasField("empty")
    clock.move_wall_to(datetime(2025, 6, 3, 7, 0, tzinfo=UTC))
    await desk.becomes(1, READY)
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_the_eleventh_call_in_28_days_waits_for_the_first_to_lie_28_days_back(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    first_at = clock.now()
    state = call_state_pb2.CallState()
    for number in range(10):
        if number and number % 2 == 0:
            clock.advance(timedelta(days=7 if number % 4 == 0 else 1))
        await desk.becomes(1, READY)
        state = await _call(desk, MISSED_CALL)
    assert (state.state, state.hold) == (WAITING, PERIOD_CAP)
    due = state.next_call_at.ToDatetime(UTC)
    assert due == first_at + timedelta(days=28)
    clock.move_wall_to(due - timedelta(seconds=1))
    assert (await desk.claim("agent")).HasField("empty")
    clock.move_wall_to(due)
    await desk.becomes(1, READY)


async def test_a_callback_does_not_lift_a_cap(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    for _ in range(3):
        await _call(desk, MISSED_CALL)
    (open_,) = await desk.callbacks()
    await desk.reschedule(open_.callback_id, clock.now() + timedelta(hours=1))
    clock.advance(timedelta(hours=2))
    assert (await desk.claim("agent")).HasField("empty")
    assert (await desk.state(1)).hold == DAILY_CAP


async def test_two_people_with_one_number_are_never_on_the_phone_at_a_time(
    desk: Desk, tables: Tables
) -> None:
    await desk.fill(*(_with_phone(unsigned(it), SHARED) for it in (1, 2, 3)))
    answers = await asyncio.gather(*(desk.claim(f"agent-{it}") for it in range(6)))
    assert sum(it.HasField("assignment") for it in answers) == 1
    assert await tables.value("SELECT count(*) FROM queue.assignments") == 1


async def test_after_a_call_others_with_the_number_wait(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(_with_phone(unsigned(1), SHARED), _with_phone(outstanding(2), SHARED))
    held = (await desk.claim("agent")).assignment
    assert held.user_id == 1
    await desk.record(held, NO_ANSWER)
    other = await desk.state(2)
    assert (other.state, other.hold) == (WAITING, SHARED_PHONE)
    assert other.next_call_at.ToDatetime(UTC) == clock.now() + timedelta(hours=2)
    clock.advance(timedelta(hours=2))
    await desk.becomes(2, READY)
    assert (await desk.claim("agent")).assignment.user_id == 2


async def test_a_skip_is_no_call_to_the_number(desk: Desk) -> None:
    await desk.fill(_with_phone(unsigned(1), SHARED), _with_phone(outstanding(2), SHARED))
    await desk.release((await desk.claim("agent")).assignment)
    assert (await desk.state(2)).state == READY


async def test_a_user_who_takes_over_a_number_just_called_waits_as_well(desk: Desk) -> None:
    await desk.fill(_with_phone(unsigned(1), SHARED), outstanding(2))
    await desk.record((await desk.claim("agent")).assignment, NO_ANSWER)
    await desk.fill(_with_phone(outstanding(2), SHARED))
    assert (await desk.state(2)).hold == SHARED_PHONE
    await desk.fill(_with_phone(unsigned(3), SHARED))
    assert (await desk.state(3)).hold == SHARED_PHONE


async def test_a_number_that_only_the_live_check_knows_to_be_shared_is_respected(
    desk: Desk, queue: RunningQueue
) -> None:
    """Change capture has not told of the new number yet."""
    await desk.fill(_with_phone(unsigned(1), SHARED), outstanding(2))
    await desk.record((await desk.claim("agent")).assignment, NO_ANSWER)
    queue.main_app.put(_with_phone(outstanding(2), SHARED))
    answer = await desk.claim("agent")
    assert answer.HasField("empty")
    assert answer.rejected_by_live_check == 0
    assert (await desk.state(2)).hold == SHARED_PHONE


async def test_a_call_to_the_number_that_an_entry_knows_nothing_of_is_found_at_the_hand_out(
    desk: Desk, tables: Tables
) -> None:
    """As when the other person came in at the very moment the call was recorded."""
    await desk.fill(_with_phone(unsigned(1), SHARED), _with_phone(outstanding(2), SHARED))
    await desk.record((await desk.claim("agent")).assignment, NO_ANSWER)
    await tables.rows(
        "UPDATE queue.entries SET state = 1, hold = NULL, due_at = NULL, phone_free_at = NULL"
        " WHERE user_id = 2"
    )
    assert (await desk.claim("agent")).HasField("empty")
    assert (await desk.state(2)).hold == SHARED_PHONE


async def test_people_abroad_are_called_by_their_own_clocks(desk: Desk, clock: FakeClock) -> None:
    """Athens is two hours ahead of London."""
    await desk.fill(_with_phone(unsigned(1), "+302101234567"), unsigned(2))
    clock.move_wall_to(datetime(2025, 6, 3, 5, 30, tzinfo=UTC))
    assert (await desk.claim("early")).assignment.user_id == 1
    assert (await desk.claim("early-too")).HasField("empty")
    clock.move_wall_to(datetime(2025, 6, 3, 17, 30, tzinfo=UTC))
    await desk.fill(_with_phone(unsigned(3), "+302101234568"))
    clock.advance(timedelta(hours=2, minutes=1))
    await desk.fill(_with_phone(unsigned(4), "+302101234569"))
    assert (await desk.claim("late")).HasField("empty")


async def test_a_zone_that_is_missing_here_falls_back_to_the_companys_and_is_counted(
    desk: Desk, clock: FakeClock, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    def count() -> float:
        labels = {"time_zone": "Atlantis/Poseidonis"}
        return REGISTRY.get_sample_value("dialler_queue_missing_time_zones_total", labels) or 0.0

    before = count()
    await desk.fill(unsigned(1), unsigned(2))
    await tables.rows("UPDATE queue.entries SET time_zone = 'Atlantis/Poseidonis'")
    assert (await desk.claim("agent")).assignment.user_id == 2
    # An outcome counts the calls of the person's day, an explanation tells of the person's hours.
    held = (await desk.claim("other")).assignment
    assert (await desk.record(held, NO_ANSWER)).call_state.attempts == 1
    told = {it.rule: it for it in (await desk.explain(1)).rules}
    assert told["CALLING_HOURS"].inputs["time_zone"] == "Europe/London"
    assert count() > before
    assert [it.message for it in caplog.records].count("time_zone_missing") == 1
    clock.move_wall_to(datetime(2025, 6, 3, 3, tzinfo=UTC))
    assert (await desk.claim("early")).empty.HasField("calling_hours_begin_at")


async def test_do_not_contact_stops_every_way_to_the_person_and_to_the_number(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(_with_phone(unsigned(1), SHARED), _with_phone(outstanding(2), SHARED))
    held = (await desk.claim("agent")).assignment
    await desk.record(held, call_state_pb2.OUTCOME_DO_NOT_CONTACT, notes="told us off")
    person, sharer = await desk.state(1), await desk.state(2)
    assert (person.state, person.reason) == (SUPPRESSED, "DO_NOT_CONTACT")
    assert (sharer.state, sharer.reason) == (SUPPRESSED, "PHONE_SUPPRESSED")
    await desk.fill(_with_phone(unsigned(3), SHARED))
    assert (await desk.state(3)).state == SUPPRESSED
    clock.advance(timedelta(days=28))
    assert (await desk.claim("agent")).HasField("empty")
    lifted = await desk.lift(1)
    assert (lifted.state, lifted.score) == (READY, 0)
    assert (await desk.state(2)).state == READY
    assert (await desk.state(3)).state == READY
    with pytest.raises(FailedPrecondition) as raised:
        await desk.lift(1)
    assert raised.value.reason == "NOT_SUPPRESSED"


async def test_lifting_ends_no_other_wait(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1, created_at=clock.now()))
    clock.advance(60)
    await desk.suppress(1)
    assert (await desk.lift(1)).hold == call_state_pb2.HOLD_COOLING
    assert (await desk.claim("agent")).HasField("empty")


async def test_a_supervisor_suppresses_a_user_during_the_hand_out(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))

    async def meanwhile(_: object) -> None:
        await desk.suppress(1)

    queue.main_app.after_read = meanwhile
    assert (await desk.claim("agent")).HasField("empty")
    assert (await desk.state(1)).state == SUPPRESSED


async def test_no_claim_is_lifted_by_a_supervisors_review(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    state = (await desk.record(held, call_state_pb2.OUTCOME_NO_CLAIM)).call_state
    assert (state.state, state.reason) == (call_state_pb2.ENTRY_STATE_OUT, "NO_CLAIM_REPORTED")
    assert (await desk.lift(1)).state == READY


async def test_suppressing_needs_a_reason_in_words(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    with pytest.raises(InvalidArgument) as raised:
        await desk.suppress(1, notes=" ")
    assert raised.value.reason == "NOTES_REQUIRED"


async def test_every_block_is_counted(desk: Desk) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 5)))
    await desk.import_phones(b"07700900001\n")
    await desk.suppress(2)
    held = (await desk.claim("agent")).assignment
    await desk.record(held, NO_ANSWER)
    figures = (await desk.stats()).queues[0]
    assert {it.reason: it.people for it in figures.blocked} == {
        "PHONE_LISTED": 1,
        "DO_NOT_CONTACT": 1,
    }
    assert {it.hold: it.people for it in figures.holds} == {call_state_pb2.HOLD_NEXT_CALL: 1}
    assert figures.ready == 1


async def test_a_number_in_a_call_blocks_no_user_behind(desk: Desk) -> None:
    await desk.fill(_with_phone(unsigned(9), SHARED), _with_phone(unsigned(8), SHARED), unsigned(1))
    taken = await asyncio.gather(*(desk.claim(f"agent-{it}") for it in range(3)))
    assert {it.assignment.user_id for it in taken} == {9, 1, 0}
    sharer = await until(lambda: desk.state(8), lambda it: it.state == READY)
    assert sharer.state != ASSIGNED
