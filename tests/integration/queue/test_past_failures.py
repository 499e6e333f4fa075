"""What went wrong in the first system of this kind, one test for each; the names say it all.

Its other failures lie outside the queue: callbacks showing "Unknown user" and page loads of one
context per row in `tests/integration/user_context`, consumers that lose messages in
`tests/integration/cdc_ingest`, DMS pointed straight at SQS in `deploy/aws`.
"""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2

from servicekit.errors import Conflict, Unavailable
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
OUT = call_state_pb2.ENTRY_STATE_OUT
CALLBACKS = call_state_pb2.QUEUE_CALLBACKS


async def test_a_score_of_0_is_a_score(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    clock.advance(timedelta(days=7))
    await desk.fill(unsigned(2))
    assert (await desk.state(2)).score == 0
    # Both wait; the one with 0 comes first.
    assert (await desk.claim("a")).assignment.user_id == 2
    assert (await desk.claim("b")).assignment.user_id == 1


async def test_no_next_call_time_means_now(desk: Desk, tables: Tables) -> None:
    await desk.fill(unsigned(1, created_at=None))
    await tables.rows("UPDATE queue.entries SET rest_until = NULL, due_at = NULL")
    await desk.apply(1)
    assert not (await desk.state(1)).HasField("next_call_at")
    await desk.rebuild()
    assert not (await desk.state(1)).HasField("next_call_at")


@pytest.mark.parametrize("path", ["event", "live check", "outcome", "rebuild"])
async def test_a_conversion_is_recorded_once_whichever_path_sees_it_first(
    desk: Desk, queue: RunningQueue, tables: Tables, clock: FakeClock, path: str
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("ann")).assignment
    if path != "outcome":
        await desk.record(held, call_state_pb2.OUTCOME_HUNG_UP)
        clock.advance(timedelta(hours=4))
        await desk.becomes(1, READY)
    queue.main_app.put(done(1))
    if path == "event":
        await desk.apply(1)
    elif path == "live check":
        assert (await desk.claim("ben")).rejected_by_live_check == 1
    elif path == "outcome":
        answer = await desk.record(held, call_state_pb2.OUTCOME_COMPLETED_FORM)
        assert answer.conversion != 0
    else:
        await desk.rebuild()
    # Every other path sees it as well, afterwards.
    await desk.apply(1)
    await desk.rebuild()
    await desk.claim("ben")
    rows = await tables.rows("SELECT user_id, agent_id FROM queue.conversions")
    assert [tuple(row) for row in rows] == [(1, "ann")]
    assert (await desk.state(1)).state == OUT


async def test_two_paths_never_assign_one_person(desk: Desk, tables: Tables) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 6)))
    answers = await asyncio.gather(*(desk.claim(f"agent-{it}") for it in range(20)))
    taken = [it.assignment.user_id for it in answers if it.HasField("assignment")]
    assert sorted(taken) == [1, 2, 3, 4, 5]
    assert await tables.value("SELECT count(*) FROM queue.assignments") == 5


async def test_an_entry_that_another_process_takes_away_is_not_handed_out(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1), unsigned(2))

    async def meanwhile(_: object) -> None:
        queue.main_app.after_read = None
        queue.main_app.put(done(2))
        await desk.apply(2)

    queue.main_app.after_read = meanwhile
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_a_due_callback_that_no_longer_validates_does_not_block_the_head(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    await desk.schedule(1, clock.now() + timedelta(hours=1))
    clock.advance(3600)
    await desk.becomes(1, READY)
    disabled = unsigned(1)
    disabled.is_enabled = False
    queue.main_app.put(disabled)
    answer = await desk.claim("agent")
    assert (answer.assignment.user_id, answer.rejected_by_live_check) == (2, 1)
    assert (await desk.state(1)).reason == "USER_DISABLED"

    found = await until(lambda: desk.callbacks(call_state_pb2.CALLBACK_STATE_CLOSED), bool)
    assert [it.closed_reason for it in found] == ["USER_DISABLED"]
    # Enabled again, the person has their turn, and nothing of the callback is left.
    queue.main_app.put(unsigned(1))
    await desk.apply(1)
    assert (await desk.state(1)).queue == call_state_pb2.QUEUE_UNSIGNED_USERS


async def test_a_callback_is_not_offered_before_its_hour(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    await desk.schedule(1, clock.now() + timedelta(hours=1))
    clock.advance(3599)
    assert (await desk.claim("agent")).HasField("empty")
    clock.advance(1)
    await desk.becomes(1, READY)
    assert (await desk.claim("agent")).assignment.queue == CALLBACKS


async def test_one_number_in_different_spellings_is_one_number(desk: Desk) -> None:
    """`user_context` hands numbers over in E.164; lists come in any spelling."""
    await desk.fill(unsigned(1))
    for spelling in (b"07700 900 001", b"+447700900001", b"0044 7700 900001", b"(07700) 900-001"):
        answer = await desk.import_phones(spelling + b"\n")
        assert answer.invalid == 0
    assert (await desk.state(1)).state == SUPPRESSED


async def test_a_double_click_records_one_outcome(desk: Desk, tables: Tables) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    request_id = str(uuid4())
    clicks = [
        desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER, request_id=request_id) for _ in range(5)
    ]
    answers = await asyncio.gather(*clicks)
    assert all(it == answers[0] for it in answers)
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 1
    assert (await desk.state(1)).attempts == 1


async def test_an_outcome_of_a_call_that_was_just_cleaned_up_is_not_lost(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    clock.advance(121)
    await desk.becomes(1, READY)
    state = (await desk.record(held, call_state_pb2.OUTCOME_GOING_TO_COMPLETE)).call_state
    assert (state.attempts, state.state) == (1, WAITING)


async def test_a_closed_browser_does_not_keep_the_call_for_ever(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("gone")).assignment
    clock.advance(120)
    await desk.becomes(1, READY)
    with pytest.raises(Conflict):
        await desk.heartbeat(held)
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_a_rebuild_that_breaks_off_leaves_no_half_queue(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 4)))
    queue.main_app.put(*(outstanding(it) for it in range(10, 20)))

    async def break_off(read: object) -> None:
        if read == [13, 14]:
            raise Unavailable("MAIN_APP_UNAVAILABLE", "away on purpose")

    queue.main_app.after_block = break_off
    with pytest.raises(Unavailable):
        await desk.rebuild()
    before, after = (await desk.stats()).queues[:2]
    assert (before.ready, after.ready) == (3, 0)
    queue.main_app.after_block = None
    await desk.rebuild()
    assert (await desk.stats()).queues[1].ready == 10
