"""Handing out: the right person, checked now, to one agent only."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import Conflict, InvalidArgument, Unavailable
from services.queue.rules import DEFAULT_PATH
from tests.fakes import waiting
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import done, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
OUTSTANDING = call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
CALLBACKS = call_state_pb2.QUEUE_CALLBACKS
READY = call_state_pb2.ENTRY_STATE_READY
ASSIGNED = call_state_pb2.ENTRY_STATE_ASSIGNED


async def test_the_lowest_score_first_then_the_newest_and_unsigned_before_the_rest(
    desk: Desk,
) -> None:
    await desk.fill(*(unsigned(it) for it in (1, 2, 3)), *(outstanding(it) for it in (8, 9)))
    first = await desk.claim("first")
    assert first.assignment.user_id == 3
    # Gets a worse score than the rest, and comes after them.
    await desk.release(first.assignment, queue_pb2.RELEASE_REASON_SKIPPED)
    order = [(await desk.claim(f"agent-{it}")).assignment.user_id for it in range(5)]
    assert order == [2, 1, 3, 9, 8]


async def test_only_from_the_queues_asked_for_in_their_order(desk: Desk) -> None:
    await desk.fill(unsigned(1), unsigned(2), outstanding(8))
    assert (await desk.claim("a", OUTSTANDING, UNSIGNED)).assignment.user_id == 8
    assert (await desk.claim("b", OUTSTANDING)).HasField("empty")
    assert (await desk.claim("c", CALLBACKS)).HasField("empty")
    taken = (await desk.claim("d", OUTSTANDING, UNSIGNED)).assignment
    assert (taken.user_id, taken.queue, taken.reason) == (2, UNSIGNED, "NO_SIGNATURE")


async def test_an_agent_that_holds_a_user_gets_the_user_again(desk: Desk) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    first = await desk.claim("agent")
    assert not first.already_held
    again = await desk.claim("agent")
    assert again.already_held
    assert again.assignment == first.assignment
    assert await desk.current("agent") == first.assignment
    assert (await desk.state(2)).assigned_agent_id == "agent"


@pytest.mark.parametrize("ending", ["outcome", "release", "lease", "force"])
async def test_a_repeat_gets_the_first_answer_while_the_agent_holds_the_person(
    desk: Desk, queue: RunningQueue, clock: FakeClock, ending: str
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    request_id = str(uuid4())
    first = await desk.claim("agent", request_id=request_id)
    clock.advance(60)
    await desk.heartbeat(first.assignment)
    clock.advance(100)
    assert await desk.claim("agent", request_id=request_id) == first
    held = first.assignment
    if ending == "outcome":
        await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    elif ending == "release":
        await desk.release(held, queue_pb2.RELEASE_REASON_SKIPPED)
    elif ending == "lease":
        # Not noticed by any sweep: the claim itself must look.
        clock.advance(20)
    else:
        request = queue_pb2.ForceReleaseAssignmentRequest(
            assignment_id=held.assignment_id, actor_id="boss", request_id=str(uuid4()), notes="end"
        )
        await queue.stub.ForceReleaseAssignment(request)
    await _refused_as_ended(desk, request_id)
    # Nor does it return what the agent holds by another claim since, be it the same person again.
    assert (await desk.claim("agent")).HasField("assignment")
    await _refused_as_ended(desk, request_id)


async def _refused_as_ended(desk: Desk, request_id: str) -> None:
    with pytest.raises(Conflict) as raised:
        await desk.claim("agent", request_id=request_id)
    assert raised.value.reason == "CLAIM_ENDED"


async def test_a_request_id_cannot_be_used_for_another_request(desk: Desk) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    request_id = str(uuid4())
    await desk.claim("agent", request_id=request_id)
    with pytest.raises(InvalidArgument) as raised:
        await desk.claim("agent", OUTSTANDING, request_id=request_id)
    assert raised.value.reason == "REQUEST_ID_REUSED"
    # Another agent's id is another id.
    assert (await desk.claim("other", request_id=request_id)).assignment.user_id == 1


async def test_a_user_who_has_just_signed_is_not_handed_out(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    """Change capture has not said anything: the live check alone notices."""
    await desk.fill(unsigned(1), unsigned(2), unsigned(3), unsigned(4))
    queue.main_app.put(done(4), outstanding(3))
    claimed = await desk.claim("agent")
    assert claimed.assignment.user_id == 2
    assert claimed.rejected_by_live_check == 2
    assert (await desk.stats()).wrong_calls_prevented_today == 2
    assert (await desk.stats()).conversions_today == 2
    assert (await desk.state(4)).reason == "NOTHING_OUTSTANDING"
    moved = await desk.state(3)
    assert (moved.queue, moved.state) == (OUTSTANDING, READY)
    assert await tables.value("SELECT count(*) FROM queue.conversions") == 2


async def test_a_user_gone_from_the_main_app_is_not_handed_out(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.people.clear()
    claimed = await desk.claim("agent")
    assert not claimed.HasField("assignment")
    assert claimed.rejected_by_live_check == 1
    assert (await desk.state(1)).reason == "USER_NOT_FOUND"


async def test_a_head_full_of_outdated_people_is_got_through_in_one_request(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(*(unsigned(user_id) for user_id in range(1, 72)))
    queue.main_app.put(*(done(user_id) for user_id in range(2, 72)))
    claimed = await desk.claim("agent")
    assert claimed.assignment.user_id == 1
    assert claimed.rejected_by_live_check == 70
    assert (await desk.stats()).queues[0].ready == 0


async def test_more_outdated_people_than_one_request_may_check_are_put_right_meanwhile(
    queue_url: str, redis_url: str, clock: FakeClock, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    shipped = DEFAULT_PATH.read_text()
    rules.write_text(shipped.replace("candidates_at_most: 100", "candidates_at_most: 3"))
    people = range(1, 62)
    async with running_queue(queue_url, redis_url, clock=clock, rules_path=rules) as running:
        desk = Desk(running)
        await desk.fill(*(unsigned(user_id) for user_id in people))
        running.main_app.put(*(done(user_id) for user_id in people if user_id > 1))
        with pytest.raises(Unavailable) as raised:
            await desk.claim("agent")
        assert raised.value.reason == "CANDIDATES_OUTDATED"
        assert (await _claimed_at_last(desk)).assignment.user_id == 1


async def test_no_user_is_handed_out_outside_calling_hours(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    held = (await desk.claim("early")).assignment
    # Saturday at 17:00 in London, where Monday's hours begin at 08:00.
    clock.move_wall_to(datetime(2025, 6, 7, 16, tzinfo=UTC))
    empty = (await desk.claim("late")).empty
    assert empty.calling_hours_begin_at.ToDatetime(UTC) == datetime(2025, 6, 9, 7, tzinfo=UTC)
    assert queue.main_app.reads == [[held.user_id]]
    clock.move_wall_to(datetime(2025, 6, 9, 7, tzinfo=UTC))
    claimed = await desk.claim("late")
    assert claimed.assignment.user_id in (1, 2)
    assert not claimed.HasField("empty")


async def test_an_agent_keeps_the_user_when_calling_hours_end(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    clock.move_wall_to(datetime(2025, 6, 2, 18, 59, 30, tzinfo=UTC))
    held = (await desk.claim("agent")).assignment
    clock.advance(60)
    again = await desk.claim("agent")
    assert (again.already_held, again.assignment.user_id) == (True, 1)
    await desk.record(held, call_state_pb2.OUTCOME_MISSED_CALL)
    # Due at once, and yet handed to no agent tonight.
    await desk.becomes(1, READY)
    assert not (await desk.claim("agent")).HasField("assignment")


async def test_calling_hours_that_end_during_the_live_check_hand_no_user_out(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    clock.move_wall_to(datetime(2025, 6, 2, 18, 59, 59, tzinfo=UTC))

    async def past_the_hour(_: object) -> None:
        clock.advance(2)

    queue.main_app.after_read = past_the_hour
    answer = await desk.claim("agent")
    assert answer.empty.HasField("calling_hours_begin_at")
    assert answer.rejected_by_live_check == 0
    assert (await desk.state(1)).state == READY


async def _claimed_at_last(desk: Desk) -> queue_pb2.ClaimNextResponse:
    for _ in range(20):
        try:
            return await desk.claim("agent")
        except Unavailable:
            continue
    raise AssertionError("the head is blocked")


async def test_a_change_between_the_first_and_second_reading_does_not_block_the_head(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    """The live check turns the person down, the refresh finds them in order again."""
    await desk.fill(unsigned(1), unsigned(2))
    queue.main_app.put(done(2))

    async def signed_away_again(_: object) -> None:
        queue.main_app.put(unsigned(2))

    queue.main_app.after_read = signed_away_again
    assert (await desk.claim("agent")).assignment.user_id == 1
    queue.main_app.after_read = None
    assert not (await desk.claim("other")).HasField("assignment")
    clock.advance(timedelta(seconds=60))
    await _eventually_claims(desk, "other", 2)


async def _eventually_claims(desk: Desk, agent_id: str, user_id: int) -> None:
    async with waiting.limit(10):
        while True:
            claimed = await desk.claim(agent_id)
            if claimed.HasField("assignment"):
                break
    assert claimed.assignment.user_id == user_id


async def test_without_the_main_app_no_user_is_handed_out_and_none_is_lost(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.is_unavailable = True
    with pytest.raises(Unavailable) as raised:
        await desk.claim("agent")
    assert raised.value.reason == "MAIN_APP_UNAVAILABLE"
    assert raised.value.retry_after_seconds
    assert (await desk.state(1)).state == READY
    queue.main_app.is_unavailable = False
    # At once: the person was given back, not left to a reservation that lapses.
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_one_whose_check_fails_does_not_block_the_head(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2), unsigned(3))
    queue.main_app.faulty = {3}
    claimed = await desk.claim("agent")
    assert claimed.assignment.user_id == 2
    assert claimed.rejected_by_live_check == 0
    # The first claim had reserved this one to spare, and gives them back just after its answer.
    await _eventually_claims(desk, "other", 1)
    assert not (await desk.claim("third")).HasField("assignment")
    queue.main_app.faulty = set()
    clock.advance(timedelta(seconds=60))
    await _eventually_claims(desk, "third", 3)


async def test_when_every_check_fails_the_queue_is_not_set_aside(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(*(unsigned(user_id) for user_id in range(1, 31)))
    queue.main_app.faulty = set(range(1, 31))
    with pytest.raises(Unavailable) as raised:
        await desk.claim("agent")
    assert raised.value.reason == "MAIN_APP_UNAVAILABLE"
    ready = queue_pb2.ListEntriesRequest(queue=UNSIGNED)
    assert len((await queue.stub.ListEntries(ready)).entries) >= 27


async def test_an_empty_queue_says_why(desk: Desk, clock: FakeClock) -> None:
    assert (await desk.claim("agent")).empty == queue_pb2.EmptyQueue()
    await desk.fill(unsigned(1), unsigned(2, created_at=clock.now()), outstanding(3))
    await desk.claim("holder", UNSIGNED)
    empty = (await desk.claim("agent", UNSIGNED)).empty
    assert (empty.waiting, empty.assigned) == (1, 1)
    assert empty.next_due_at.ToDatetime() == clock.now().replace(tzinfo=None) + timedelta(hours=2)


async def test_fifty_at_once_never_share_a_person(
    desk: Desk, queue_url: str, redis_url: str, clock: FakeClock, tables: Tables
) -> None:
    """Two copies of the service, fewer people than agents, twice over."""
    async with running_queue(queue_url, redis_url, clock=clock) as second:
        other = Desk(second)
        await desk.fill(*(unsigned(user_id) for user_id in range(1, 31)))
        second.main_app.put(*(unsigned(user_id) for user_id in range(1, 31)))
        desks = (desk, other)
        claims = await asyncio.gather(
            *(desks[number % 2].claim(f"agent-{number}") for number in range(50))
        )
        held = [it.assignment for it in claims if it.HasField("assignment")]
        # Agents that found no user may have asked while others were still being checked.
        more = await asyncio.gather(
            *(desks[number % 2].claim(f"agent-{number}") for number in range(50))
        )
        held += [it.assignment for it in more if it.HasField("assignment") and not it.already_held]
    assert len({it.user_id for it in held}) == len(held) == 30
    assert len({it.agent_id for it in held}) == 30
    live = await tables.rows(
        "SELECT a.user_id, e.agent_id, a.agent_id, e.state FROM queue.assignments a"
        " JOIN queue.entries e USING (user_id) WHERE a.ended_at IS NULL"
    )
    assert len(live) == 30
    assert all(row[1] == row[2] and row[3] == ASSIGNED for row in live)


async def test_one_agent_claiming_many_times_at_once_gets_one_person(
    desk: Desk, queue_url: str, redis_url: str, clock: FakeClock, tables: Tables
) -> None:
    async with running_queue(queue_url, redis_url, clock=clock) as second:
        people = [unsigned(user_id) for user_id in range(1, 31)]
        second.main_app.put(*people)
        await desk.fill(*people)
        desks = (desk, Desk(second))
        claims = await asyncio.gather(*(desks[it % 2].claim("agent") for it in range(20)))
    assert len({it.assignment.assignment_id for it in claims}) == 1
    assert sum(not it.already_held for it in claims) == 1
    states = await tables.rows("SELECT state, count(*) FROM queue.entries GROUP BY state")
    # The others who had been reserved are back.
    assert {row[0]: row[1] for row in states} == {READY: 29, ASSIGNED: 1}


async def test_a_person_reserved_when_the_facts_change_is_not_handed_out(
    desk: Desk, queue: RunningQueue
) -> None:
    """The change lands between the live check and the hand-out."""
    await desk.fill(unsigned(1), unsigned(2))

    async def signs_after_the_check(user_ids: object) -> None:
        queue.main_app.after_read = None
        queue.main_app.put(done(2))
        await desk.apply(2)

    queue.main_app.after_read = signs_after_the_check
    assert (await desk.claim("agent")).assignment.user_id == 1
    assert (await desk.state(2)).state == call_state_pb2.ENTRY_STATE_OUT


@pytest.mark.parametrize(
    ("agent_id", "request_id", "reason"),
    [
        ("", "0b0f7f0e-5a1c-4d0e-9d0e-5a1c4d0e9d0e", "AGENT_ID_INVALID"),
        ("agent", "no-uuid", "REQUEST_ID_INVALID"),
    ],
)
async def test_requests_for_the_next_user_that_are_refused(
    desk: Desk, agent_id: str, request_id: str, reason: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await desk.claim(agent_id, request_id=request_id)
    assert raised.value.reason == reason
