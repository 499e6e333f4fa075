"""A conversion is credited to the agent who spoke with the person last, and to no other."""

from datetime import timedelta

import pytest
from dialler.model.v1 import call_state_pb2, event_pb2

from servicekit.event_stream import EventStream, StreamPosition
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
COMPLETED_FORM = call_state_pb2.OUTCOME_COMPLETED_FORM
HUNG_UP = call_state_pb2.OUTCOME_HUNG_UP
NO_ANSWER = call_state_pb2.OUTCOME_NO_ANSWER
MISSED_CALL = call_state_pb2.OUTCOME_MISSED_CALL
DO_NOT_CONTACT = call_state_pb2.OUTCOME_DO_NOT_CONTACT
BAD_NUMBER = call_state_pb2.OUTCOME_BAD_NUMBER


async def _call(desk: Desk, agent_id: str, outcome: call_state_pb2.Outcome.ValueType) -> None:
    """The agent is handed the person and reports how the call ended."""
    await desk.record((await desk.claim(agent_id)).assignment, outcome)


async def _sign(queue: RunningQueue, desk: Desk) -> None:
    queue.main_app.put(outstanding(1))
    assert (await desk.apply(1)).conversions == 1


async def _credited(desk: Desk, tables: Tables) -> str | None:
    """Return the agent to whom the one conversion is credited; every figure says the same."""
    ((stored,),) = await tables.rows("SELECT agent_id FROM queue.conversions")
    stats = await desk.stats()
    assert stats.conversions_today == 1
    by_agent = {it.agent_id: it.conversions for it in stats.agents_today if it.conversions}
    assert by_agent == ({} if stored is None else {stored: 1})
    agents = await desk.agents()
    of_agents = {name: it.today.conversions for name, it in agents.items() if it.today.conversions}
    assert of_agents == by_agent
    return None if stored is None else str(stored)


async def _event(stream: EventStream, start: StreamPosition) -> event_pb2.Event:
    """Return the event of the one conversion since then."""
    while True:
        told = await stream.read(start, block_seconds=4, count=1)
        assert told
        ((start, event),) = told
        if event.type == event_pb2.EVENT_TYPE_CONVERSION_RECORDED:
            return event


async def test_an_agent_who_spoke_with_the_person_is_credited(
    queue: RunningQueue, desk: Desk, tables: Tables, stream: EventStream
) -> None:
    await desk.fill(unsigned(1))
    await _call(desk, "anna", HUNG_UP)
    start = await stream.position()
    await _sign(queue, desk)
    assert await _credited(desk, tables) == "anna"
    event = await _event(stream, start)
    assert (event.agent_id, event.assignment_id) == ("anna", "")


@pytest.mark.parametrize("outcome", [NO_ANSWER, MISSED_CALL, BAD_NUMBER])
async def test_an_agent_who_did_not_reach_the_person_is_not_credited(
    outcome: call_state_pb2.Outcome.ValueType,
    queue: RunningQueue,
    desk: Desk,
    tables: Tables,
    stream: EventStream,
) -> None:
    await desk.fill(unsigned(1))
    await _call(desk, "anna", outcome)
    start = await stream.position()
    await _sign(queue, desk)
    assert await _credited(desk, tables) is None
    assert (await _event(stream, start)).agent_id == ""


@pytest.mark.parametrize(("days", "credited"), [(89, "anna"), (91, None)])
async def test_a_conversation_is_credited_for_ninety_days(
    days: int,
    credited: str | None,
    queue: RunningQueue,
    desk: Desk,
    tables: Tables,
    clock: FakeClock,
    stream: EventStream,
) -> None:
    await desk.fill(unsigned(1))
    await _call(desk, "anna", HUNG_UP)
    clock.advance(timedelta(days=days))
    start = await stream.position()
    await _sign(queue, desk)
    assert await _credited(desk, tables) == credited
    assert (await _event(stream, start)).agent_id == (credited or "")


async def test_of_two_who_spoke_the_later_is_credited(
    queue: RunningQueue, desk: Desk, tables: Tables, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    for agent_id, outcome in (("anna", HUNG_UP), ("bob", HUNG_UP), ("cleo", NO_ANSWER)):
        await desk.becomes(1, READY)
        await _call(desk, agent_id, outcome)
        clock.advance(timedelta(hours=4))
    await _sign(queue, desk)
    assert await _credited(desk, tables) == "bob"


@pytest.mark.parametrize(
    ("outcome", "credited"), [(COMPLETED_FORM, "bob"), (HUNG_UP, "bob"), (NO_ANSWER, "anna")]
)
async def test_the_report_says_whether_the_agent_on_the_call_is_credited(
    outcome: call_state_pb2.Outcome.ValueType,
    credited: str,
    queue: RunningQueue,
    desk: Desk,
    tables: Tables,
    clock: FakeClock,
    stream: EventStream,
) -> None:
    await desk.fill(unsigned(1))
    await _call(desk, "anna", HUNG_UP)
    clock.advance(timedelta(hours=4))
    await desk.becomes(1, READY)
    held = (await desk.claim("bob")).assignment
    start = await stream.position()
    await _sign(queue, desk)
    # Until then to the agent who spoke before; but the agent on the call is told of it.
    assert await _credited(desk, tables) == "anna"
    event = await _event(stream, start)
    assert (event.agent_id, event.assignment_id) == ("bob", held.assignment_id)
    await desk.record(held, outcome)
    assert await _credited(desk, tables) == credited


async def test_no_answer_credits_no_agent_of_a_first_call(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("anna")).assignment
    await _sign(queue, desk)
    answer = await desk.record(held, NO_ANSWER)
    assert answer.conversion == event_pb2.CONVERSION_SIGNATURE_OBTAINED
    assert await _credited(desk, tables) is None


async def test_a_release_credits_no_agent(queue: RunningQueue, desk: Desk, tables: Tables) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("anna")).assignment
    await _sign(queue, desk)
    await desk.release(held)
    assert await _credited(desk, tables) is None


async def test_a_late_report_that_they_spoke_is_credited(
    queue: RunningQueue, desk: Desk, tables: Tables, clock: FakeClock
) -> None:
    """The agent is cut off in the call, within which the person signs."""
    await desk.fill(unsigned(1))
    held = (await desk.claim("anna")).assignment
    clock.advance(60)
    await desk.heartbeat(held)
    await _sign(queue, desk)
    clock.advance(121)
    await desk.becomes(1, WAITING)
    assert await _credited(desk, tables) is None
    await desk.record(held, HUNG_UP)
    assert await _credited(desk, tables) == "anna"


async def test_what_the_main_app_says_at_the_report_is_credited(
    queue: RunningQueue, desk: Desk, tables: Tables, stream: EventStream
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("anna")).assignment
    queue.main_app.put(done(1))
    start = await stream.position()
    answer = await desk.record(held, COMPLETED_FORM)
    assert answer.conversion == event_pb2.CONVERSION_SIGNATURE_OBTAINED
    assert await _credited(desk, tables) == "anna"
    assert (await _event(stream, start)).agent_id == "anna"


@pytest.mark.parametrize(("seconds", "credited"), [(60, "bob"), (180, "anna")])
async def test_an_objection_told_after_the_call_credits_what_came_during_the_call(
    seconds: int,
    credited: str,
    queue: RunningQueue,
    desk: Desk,
    tables: Tables,
    clock: FakeClock,
) -> None:
    await desk.fill(unsigned(1))
    await _call(desk, "anna", HUNG_UP)
    clock.advance(timedelta(hours=4))
    await desk.becomes(1, READY)
    lost = (await desk.claim("bob")).assignment
    clock.advance(seconds)
    await _sign(queue, desk)
    clock.advance(timedelta(hours=2))
    await desk.record(lost, DO_NOT_CONTACT, notes="never again")
    assert await _credited(desk, tables) == credited
