"""Figures, pages and call states."""

from datetime import UTC, datetime, timedelta

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import InvalidArgument
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, outstanding, unsigned
from tests.integration.queue.bench import Desk

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
OUTSTANDING = call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
WAITING = call_state_pb2.ENTRY_STATE_WAITING
ASSIGNED = call_state_pb2.ENTRY_STATE_ASSIGNED
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
OUT = call_state_pb2.ENTRY_STATE_OUT


async def _list(
    queue: RunningQueue,
    of_queue: int = UNSIGNED,
    state: int = 0,
    page_size: int = 0,
    page_token: str = "",
) -> queue_pb2.ListEntriesResponse:
    request = queue_pb2.ListEntriesRequest(
        queue=call_state_pb2.Queue.ValueType(of_queue),
        state=call_state_pb2.EntryState.ValueType(state),
        page_size=page_size,
        page_token=page_token,
    )
    return await queue.stub.ListEntries(request)


async def test_the_figures_count_every_user(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    started = clock.now()
    await desk.fill(*(unsigned(it) for it in range(1, 5)), outstanding(9), done(10))
    clock.advance(3600)
    await desk.fill(unsigned(5, created_at=clock.now()))
    await desk.claim("agent")
    stats = await desk.stats()
    first, second, third = stats.queues
    assert (third.queue, third.ready) == (call_state_pb2.QUEUE_CALLBACKS, 0)
    assert [(it.hold, it.people) for it in first.holds] == [(call_state_pb2.HOLD_COOLING, 1)]
    assert (first.queue, first.ready, first.waiting, first.assigned) == (UNSIGNED, 3, 1, 1)
    assert (second.queue, second.ready, second.waiting, second.assigned) == (OUTSTANDING, 1, 0, 0)
    assert first.oldest_ready_since.ToSeconds() == started.timestamp()
    assert stats.agents_on_assignment == 1


async def test_a_day_begins_at_the_companys_midnight(desk: Desk, clock: FakeClock) -> None:
    """In June that is 23:00 UTC of the day before."""
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    clock.move_wall_to(datetime(2025, 6, 2, 22, 59, tzinfo=UTC))
    assert (await desk.stats()).calls_today == 1
    clock.advance(timedelta(minutes=1))
    assert (await desk.stats()).calls_today == 0


async def test_pages_go_through_the_queue_in_the_order_of_handing_out(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    for group in (range(1, 8), range(8, 15)):
        await desk.fill(*(unsigned(user_id) for user_id in group))
        clock.advance(timedelta(days=1))
    seen: list[int] = []
    token = ""
    while True:
        page = await _list(queue, page_size=4, page_token=token)
        assert len(page.entries) <= 4
        seen += [it.user_id for it in page.entries]
        token = page.next_page_token
        if not token:
            break
    assert seen == [*range(14, 7, -1), *range(7, 0, -1)]
    # The tenth goes to the person who has been ready longest.
    handed_out = [(await desk.claim(f"agent-{it}")).assignment.user_id for it in range(9)]
    assert handed_out == seen[:9]


async def test_a_page_that_ends_exactly_has_no_next(desk: Desk, queue: RunningQueue) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    page = await _list(queue, page_size=2)
    assert (len(page.entries), page.next_page_token) == (2, "")
    assert (await _list(queue, OUTSTANDING)) == queue_pb2.ListEntriesResponse()


async def test_every_state_can_be_listed(desk: Desk, queue: RunningQueue, clock: FakeClock) -> None:
    now = clock.now()
    await desk.fill(
        unsigned(1, created_at=now),
        unsigned(2, created_at=now - timedelta(hours=1)),
        unsigned(3, created_at=now),
        *(unsigned(it) for it in (4, 5, 6)),
    )
    claims = [(await desk.claim(f"agent-{it}")).assignment for it in range(3)]
    await desk.record(claims[0], call_state_pb2.OUTCOME_DO_NOT_CONTACT, notes="asked us to")
    await desk.record(claims[1], call_state_pb2.OUTCOME_NO_CLAIM)
    waiting = await _list(queue, state=WAITING, page_size=2)
    assert [it.user_id for it in waiting.entries] == [2, 3]
    rest = await _list(queue, state=WAITING, page_size=2, page_token=waiting.next_page_token)
    assert [it.user_id for it in rest.entries] == [1]
    assert rest.entries[0].next_call_at.ToSeconds() == (now + timedelta(hours=2)).timestamp()
    for state, user_id, reason in (
        (ASSIGNED, 4, "NO_SIGNATURE"),
        (SUPPRESSED, 6, "DO_NOT_CONTACT"),
        (OUT, 5, "NO_CLAIM_REPORTED"),
    ):
        (entry,) = (await _list(queue, state=state)).entries
        assert (entry.user_id, entry.state, entry.reason) == (user_id, state, reason)
        assert entry.queue == UNSIGNED
    assert (await _list(queue, state=ASSIGNED)).entries[0].assigned_agent_id == "agent-2"


async def test_lists_that_are_refused(desk: Desk, queue: RunningQueue) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 5)))
    token = (await _list(queue, page_size=1)).next_page_token
    for ask in (
        _list(queue, page_token="x"),
        _list(queue, OUTSTANDING, page_token=token),
        _list(queue, state=WAITING, page_token=token),
        _list(queue, of_queue=0),
        _list(queue, state=9),
    ):
        with pytest.raises(InvalidArgument):
            await ask


async def test_call_states_come_in_the_order_asked_for_with_ten_calls_at_most(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    for number in range(12):
        held = (await desk.claim("agent")).assignment
        assert held.user_id == 2
        await desk.record(held, call_state_pb2.OUTCOME_MISSED_CALL, notes=f"call {number}")
        # No more calls than caps allow.
        clock.advance(timedelta(weeks=1))
    request = queue_pb2.BatchGetCallStatesRequest(user_ids=[9, 2, 1, 2])
    states = (await queue.stub.BatchGetCallStates(request)).call_states
    assert [it.user_id for it in states] == [9, 2, 1]
    assert states[1].attempts == 12
    notes = [it.notes for it in states[1].recent_attempts]
    assert notes == [f"call {number}" for number in range(11, 1, -1)]
    assert (states[0].state, states[0].version) == (0, 0)
    too_many = queue_pb2.BatchGetCallStatesRequest(user_ids=range(1, 1002))
    with pytest.raises(InvalidArgument):
        await queue.stub.BatchGetCallStates(too_many)


async def test_versions_rise_with_every_change(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    versions = [(await desk.state(1)).version]
    held = (await desk.claim("agent")).assignment
    versions.append((await desk.state(1)).version)
    versions.append((await desk.record(held, call_state_pb2.OUTCOME_HUNG_UP)).call_state.version)
    assert versions == sorted(set(versions))
