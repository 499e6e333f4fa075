"""Callbacks: agreed, due before any score, kept for whom they prefer, tried again, closed."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from services.queue.rules import DEFAULT_PATH
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import done, give_phones, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
CALLBACKS = call_state_pb2.QUEUE_CALLBACKS
READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
OUT = call_state_pb2.ENTRY_STATE_OUT
OPEN = call_state_pb2.CALLBACK_STATE_OPEN
DONE = call_state_pb2.CALLBACK_STATE_DONE
MISSED = call_state_pb2.CALLBACK_STATE_MISSED
CLOSED = call_state_pb2.CALLBACK_STATE_CLOSED
CANCELLED = call_state_pb2.CALLBACK_STATE_CANCELLED
REPLACED = call_state_pb2.CALLBACK_STATE_REPLACED
SKIPPED = queue_pb2.RELEASE_REASON_SKIPPED
AVAILABLE = queue_pb2.PRESENCE_AVAILABLE
HOUR = timedelta(hours=1)


async def test_a_callback_is_due_before_any_score_whatever_queue_the_agent_has_picked(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2), unsigned(3))
    at = clock.now() + HOUR
    await desk.schedule(1, at)
    waiting = await desk.state(1)
    assert (waiting.state, waiting.queue) == (WAITING, UNSIGNED)
    assert waiting.hold == call_state_pb2.HOLD_CALLBACK
    assert waiting.next_call_at.ToSeconds() == at.timestamp()
    assert waiting.open_callback.scheduled_for.ToSeconds() == at.timestamp()
    assert (await desk.claim("early")).assignment.user_id == 3
    clock.advance(HOUR)
    due = await desk.becomes(1, READY)
    assert (due.queue, due.reason) == (CALLBACKS, "CALLBACK_DUE")
    held = (await desk.claim("agent", UNSIGNED)).assignment
    assert (held.user_id, held.queue) == (1, CALLBACKS)
    await desk.record(held, call_state_pb2.OUTCOME_MIGHT_COMPLETE)
    assert [it.state for it in await desk.callbacks(DONE)] == [DONE]
    after = await desk.state(1)
    assert not after.HasField("open_callback")
    assert (after.queue, after.hold) == (UNSIGNED, call_state_pb2.HOLD_NEXT_CALL)


async def test_due_callbacks_come_in_the_order_of_their_time(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1), unsigned(2), unsigned(3))
    now = clock.now()
    for user_id, minutes in ((3, 30), (1, 10), (2, 20)):
        await desk.schedule(user_id, now + timedelta(minutes=minutes))
    clock.advance(HOUR)
    for user_id in (1, 2, 3):
        await desk.becomes(user_id, READY)
    taken = [(await desk.claim(f"agent-{it}")).assignment.user_id for it in range(3)]
    assert taken == [1, 2, 3]


async def test_a_user_with_nothing_outstanding_is_called_back_as_scheduled(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(done(1))
    await desk.schedule(1, clock.now() + HOUR)
    waiting = await desk.state(1)
    assert (waiting.state, waiting.queue, waiting.reason) == (WAITING, CALLBACKS, "CALLBACK_AGREED")
    clock.advance(HOUR)
    await desk.becomes(1, READY)
    held = (await desk.claim("agent")).assignment
    assert held.user_id == 1
    after = await desk.record(held, call_state_pb2.OUTCOME_COMPLETED_FORM)
    assert after.call_state.state == OUT


async def test_a_due_callback_is_kept_ten_minutes_for_its_agent_if_they_are_there(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    await desk.schedule(1, clock.now() + HOUR, preferred="friend")
    clock.advance(HOUR)
    await desk.becomes(1, READY)
    await desk.presence("friend", AVAILABLE)
    assert (await desk.claim("other")).assignment.user_id == 2
    assert (await desk.claim("third")).HasField("empty")
    assert (await desk.claim("friend")).assignment.user_id == 1


async def test_a_due_callback_is_any_agents_after_ten_minutes(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    await desk.schedule(1, clock.now() + HOUR, preferred="friend")
    clock.advance(HOUR)
    await desk.becomes(1, READY)
    clock.advance(timedelta(minutes=10))
    await desk.presence("friend", AVAILABLE)
    assert (await desk.claim("other")).assignment.user_id == 1


@pytest.mark.parametrize("absence", [queue_pb2.PRESENCE_BREAK, queue_pb2.PRESENCE_OFFLINE, None])
async def test_a_due_callback_is_any_agents_while_its_agent_is_away(
    desk: Desk, clock: FakeClock, absence: queue_pb2.Presence.ValueType | None
) -> None:
    await desk.fill(unsigned(1))
    await desk.presence("friend", AVAILABLE if absence is None else absence)
    await desk.schedule(1, clock.now() + HOUR, preferred="friend")
    # Long enough for a silent agent to count as offline.
    clock.advance(HOUR)
    await desk.becomes(1, READY)
    assert (await desk.claim("other")).assignment.user_id == 1


@pytest.mark.parametrize("limit", ["token", "supervisor"])
async def test_an_agent_without_the_callbacks_gets_no_callback_but_the_agents_own(
    desk: Desk, queue: RunningQueue, clock: FakeClock, limit: str
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 6)))
    for user_id, preferred in ((1, ""), (2, "other"), (3, "limited")):
        await desk.schedule(user_id, clock.now() + HOUR, preferred=preferred)
    # Long enough ago that none is kept any more: an unlimited agent may have each of them.
    clock.advance(2 * HOUR)
    for user_id in (1, 2, 3):
        await desk.becomes(user_id, READY)
    if limit == "supervisor":
        allowed = queue_pb2.SetAgentQueuesRequest(
            agent_id="limited", allowed_queues=[UNSIGNED], actor_id="boss"
        )
        await queue.stub.SetAgentQueues(allowed)
        await desk.presence("limited", AVAILABLE)
    taken = []
    for _ in range(4):
        request = queue_pb2.ClaimNextRequest(
            agent_id="limited",
            queues=[UNSIGNED] if limit == "token" else [],
            request_id=str(uuid4()),
            own_callbacks_only=limit == "token",
        )
        answer = await queue.stub.ClaimNext(request)
        held = answer.assignment
        taken.append((held.user_id, held.queue))
        if answer.HasField("assignment"):
            await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    assert taken == [(3, CALLBACKS), (5, UNSIGNED), (4, UNSIGNED), (0, 0)]
    assert {(await desk.claim(f"any-{it}")).assignment.user_id for it in range(2)} == {1, 2}


async def test_agents_who_claim_together_get_their_own_callbacks_only(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    """They wait for a live check under way, and are served in one batch after it."""
    await desk.fill(*(unsigned(it) for it in range(1, 5)), outstanding(9))
    for user_id, preferred in ((1, "a"), (2, "a"), (3, "b"), (4, "c")):
        await desk.schedule(user_id, clock.now() + HOUR, preferred=preferred)
    clock.advance(HOUR)
    for user_id in range(1, 5):
        await desk.becomes(user_id, READY)
    checking, may_answer = asyncio.Event(), asyncio.Event()

    async def hold(_: object) -> None:
        queue.main_app.before_read = None
        checking.set()
        await may_answer.wait()

    async def claim(agent_id: str) -> int:
        request = queue_pb2.ClaimNextRequest(
            agent_id=agent_id, request_id=str(uuid4()), own_callbacks_only=True
        )
        return (await queue.stub.ClaimNext(request)).assignment.user_id

    queue.main_app.before_read = hold
    occupied = asyncio.create_task(claim("occupied"))
    await checking.wait()
    first, second, stranger = await asyncio.gather(*map(claim, ("a", "b", "stranger")))
    may_answer.set()
    assert await occupied == 9
    assert first in (1, 2)
    assert (second, stranger) == (3, 0)
    assert (await desk.claim("c")).assignment.user_id == 4


async def test_the_outcome_call_back_makes_one_and_keeps_the_preferred_agent(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("first")).assignment
    at = clock.now() + timedelta(hours=2)
    await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK, callback_at=at)
    (made,) = await desk.callbacks()
    assert (made.preferred_agent_id, made.created_by) == ("first", "first")
    assert made.scheduled_for.ToSeconds() == at.timestamp()
    clock.advance(timedelta(hours=2))
    await desk.becomes(1, READY)
    held = (await desk.claim("second")).assignment
    await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK)
    (again,) = await desk.callbacks()
    assert (again.preferred_agent_id, again.created_by) == ("first", "second")
    assert again.scheduled_for.ToSeconds() == (clock.now() + timedelta(hours=24)).timestamp()
    assert [it.callback_id for it in await desk.callbacks(DONE)] == [made.callback_id]


async def test_a_missed_call_is_called_back_at_once(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    held = (await desk.claim("agent")).assignment
    answer = await desk.record(held, call_state_pb2.OUTCOME_MISSED_CALL)
    assert (answer.call_state.queue, answer.call_state.state) == (CALLBACKS, READY)
    assert (await desk.claim("agent")).assignment.user_id == held.user_id


@pytest.mark.parametrize("miss", ["skip", "no_answer"])
async def test_a_missed_callback_is_tried_once_more_after_fifteen_minutes_then_left_to_a_supervisor(
    desk: Desk, clock: FakeClock, miss: str
) -> None:
    async def missed() -> call_state_pb2.CallState:
        held = (await desk.claim("agent")).assignment
        assert (held.user_id, held.queue) == (1, CALLBACKS)
        if miss == "skip":
            return (await desk.release(held, SKIPPED)).call_state
        return (await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)).call_state

    await desk.fill(unsigned(1))
    await desk.schedule(1, clock.now() + HOUR)
    clock.advance(HOUR)
    await desk.becomes(1, READY)
    first = await missed()
    assert (first.state, first.hold) == (WAITING, call_state_pb2.HOLD_CALLBACK)
    retry_at = clock.now() + timedelta(minutes=15)
    assert first.next_call_at.ToSeconds() == retry_at.timestamp()
    assert first.open_callback.misses == 1
    clock.advance(timedelta(minutes=15))
    await desk.becomes(1, READY)
    second = await missed()
    assert not second.HasField("open_callback")
    assert second.queue == UNSIGNED
    (left,) = await desk.callbacks(MISSED)
    assert (left.misses, left.closed_reason) == (2, "SKIPPED" if miss == "skip" else "NO_ANSWER")
    assert (await desk.stats()).callbacks_missed == 1
    # The person is called all the same, when their turn comes.
    clock.advance(timedelta(hours=4))
    await desk.becomes(1, READY)
    assert (await desk.claim("other")).assignment.queue == UNSIGNED


async def test_a_missed_callback_can_be_moved_by_a_supervisor(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    await desk.schedule(1, clock.now() + HOUR)
    clock.advance(HOUR)
    for _ in range(2):
        await desk.becomes(1, READY)
        await desk.release((await desk.claim("agent")).assignment, SKIPPED)
        clock.advance(timedelta(minutes=15))
    (left,) = await desk.callbacks(MISSED)
    moved = await desk.reschedule(left.callback_id, clock.now() + HOUR, preferred="friend")
    assert (moved.state, moved.misses, moved.preferred_agent_id) == (OPEN, 0, "friend")
    clock.advance(HOUR)
    due = await until(lambda: desk.state(1), lambda it: it.queue == CALLBACKS)
    assert due.state == READY


async def test_an_agent_that_vanishes_with_a_callback_leaves_it_at_the_head(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    await desk.schedule(1, clock.now() + HOUR)
    clock.advance(HOUR)
    await desk.becomes(1, READY)
    assert (await desk.claim("gone")).assignment.user_id == 1
    clock.advance(120)
    back = await desk.becomes(1, READY)
    assert (back.queue, back.open_callback.misses) == (CALLBACKS, 0)
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_a_cancelled_callback_leaves_the_person_to_their_turn(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    made = await desk.schedule(1, clock.now() + timedelta(days=9))
    ended = await desk.cancel(made.callback_id)
    assert (ended.state, ended.closed_reason) == (CANCELLED, "CANCELLED")
    assert (await desk.state(1)).state == READY
    with pytest.raises(FailedPrecondition) as raised:
        await desk.cancel(made.callback_id)
    assert raised.value.reason == "CALLBACK_ENDED"


async def test_an_agent_changes_only_callbacks_kept_for_them_or_of_whom_they_hold(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    made = await desk.schedule(1, clock.now() + timedelta(days=9), preferred="friend")
    for change in (
        desk.cancel(made.callback_id, agent="agent"),
        desk.reschedule(made.callback_id, clock.now() + HOUR, agent="agent"),
    ):
        with pytest.raises(PermissionDenied) as raised:
            await change
        assert raised.value.reason == "NOT_YOURS"
    assert (await desk.callbacks())[0].scheduled_for == made.scheduled_for
    # Once it is given away it is the other's, and a repeat of the request that did so is not new.
    at, once = clock.now() + timedelta(days=8), str(uuid4())
    given = await desk.reschedule(made.callback_id, at, "agent", agent="friend", request_id=once)
    again = await desk.reschedule(made.callback_id, at, "agent", agent="friend", request_id=once)
    assert given == again
    with pytest.raises(PermissionDenied):
        await desk.cancel(made.callback_id, agent="friend")
    ended = await desk.cancel(made.callback_id, agent="agent", request_id=once)
    assert ended == await desk.cancel(made.callback_id, agent="agent", request_id=once)


async def test_an_agent_changes_the_callback_of_whom_they_hold_until_the_lease_is_over(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    made = await desk.schedule(held.user_id, clock.now() + timedelta(days=9), preferred="friend")
    moved = await desk.reschedule(made.callback_id, clock.now() + 2 * HOUR, agent="agent")
    assert moved.scheduled_for != made.scheduled_for
    clock.advance(timedelta(minutes=10))
    with pytest.raises(PermissionDenied):
        await desk.cancel(made.callback_id, agent="agent")


async def test_a_later_agreement_takes_the_place_of_one_that_is_not_due(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    await desk.schedule(1, clock.now() + timedelta(days=2))
    at = clock.now() + timedelta(days=1)
    await desk.record(held, call_state_pb2.OUTCOME_GOING_TO_COMPLETE, callback_at=at)
    (open_,) = await desk.callbacks()
    assert open_.scheduled_for.ToSeconds() == at.timestamp()
    assert len(await desk.callbacks(REPLACED)) == 1


async def test_one_that_is_not_due_outlasts_a_call_in_between(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    made = await desk.schedule(1, clock.now() + timedelta(days=2))
    state = (await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)).call_state
    assert state.open_callback.callback_id == made.callback_id
    assert state.next_call_at == made.scheduled_for


async def test_do_not_contact_ends_the_callback_too(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    await desk.schedule(1, clock.now() + HOUR)
    await desk.record(held, call_state_pb2.OUTCOME_DO_NOT_CONTACT, notes="never again")
    (closed,) = await desk.callbacks(CLOSED)
    assert closed.closed_reason == "DO_NOT_CONTACT"
    clock.advance(HOUR)
    assert (await desk.claim("other")).HasField("empty")


async def test_a_callback_is_refused_for_a_user_whom_no_agent_may_call(
    desk: Desk, clock: FakeClock
) -> None:
    disabled = unsigned(1)
    disabled.is_enabled = False
    await desk.fill(disabled)
    with pytest.raises(FailedPrecondition) as raised:
        await desk.schedule(1, clock.now() + HOUR)
    assert raised.value.metadata["cause"] == "USER_DISABLED"
    with pytest.raises(NotFound):
        await desk.schedule(77, clock.now() + HOUR)


async def test_a_person_has_one_open_callback(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    made = await desk.schedule(1, clock.now() + HOUR)
    with pytest.raises(AlreadyExists) as raised:
        await desk.schedule(1, clock.now() + 2 * HOUR)
    assert raised.value.metadata["callback_id"] == made.callback_id


async def test_callbacks_lie_ahead(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    for ahead, reason in (
        (timedelta(0), "CALLBACK_NOT_IN_FUTURE"),
        (-HOUR, "CALLBACK_NOT_IN_FUTURE"),
        (timedelta(days=366), "CALLBACK_TOO_FAR"),
    ):
        with pytest.raises(InvalidArgument) as raised:
            await desk.schedule(1, clock.now() + ahead)
        assert raised.value.reason == reason
    held = (await desk.claim("agent")).assignment
    with pytest.raises(InvalidArgument):
        await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK, callback_at=clock.now())


async def test_the_same_request_agrees_one_callback(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    request_id = str(uuid4())
    at = clock.now() + HOUR
    first = await desk.schedule(1, at, request_id=request_id)
    clock.advance(2 * HOUR)
    assert await desk.schedule(1, at, request_id=request_id) == first
    assert await tables.value("SELECT count(*) FROM queue.callbacks") == 1


async def test_callbacks_are_listed_by_agent_page_by_page(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 8)))
    for user_id in range(1, 8):
        agent = "mine" if user_id % 2 else "other"
        await desk.schedule(user_id, clock.now() + user_id * HOUR, preferred=agent)
    seen: list[int] = []
    token = ""
    while True:
        request = queue_pb2.ListCallbacksRequest(
            preferred_agent_id="mine", page_size=3, page_token=token
        )
        page = await queue.stub.ListCallbacks(request)
        seen += [it.user_id for it in page.callbacks]
        token = page.next_page_token
        if not token:
            break
    assert seen == [1, 3, 5, 7]
    with pytest.raises(InvalidArgument) as raised:
        await queue.stub.ListCallbacks(queue_pb2.ListCallbacksRequest(page_token="eA=="))
    assert raised.value.reason == "PAGE_TOKEN_INVALID"


def _london(day: int, hour: int, minute: int = 0) -> datetime:
    """Return a moment of June 2025 by the clocks of London; the 2nd is a Monday."""
    return datetime(2025, 6, day, hour - 1, minute, tzinfo=UTC)


async def test_no_callback_is_agreed_outside_the_persons_calling_hours(
    desk: Desk, tables: Tables
) -> None:
    await desk.fill(unsigned(1), give_phones(unsigned(2), "+12125550123"))
    for moment, next_open_at in (
        (_london(2, 20, 0), _london(3, 8)),
        (_london(7, 17, 30), _london(9, 8)),
        (_london(8, 12), _london(9, 8)),
    ):
        with pytest.raises(InvalidArgument) as refusal:
            await desk.schedule(1, moment)
        assert refusal.value.reason == "CALLBACK_OUTSIDE_HOURS"
        assert datetime.fromisoformat(refusal.value.metadata["next_open_at"]) == next_open_at
    # Nine in London is four in New York.
    with pytest.raises(InvalidArgument):
        await desk.schedule(2, _london(3, 9))
    assert await desk.callbacks() == []
    made = await desk.schedule(1, _london(2, 19, 59))
    with pytest.raises(InvalidArgument):
        await desk.reschedule(made.callback_id, _london(2, 20, 1))
    assert [it.scheduled_for.ToDatetime(UTC) for it in await desk.callbacks()] == [
        _london(2, 19, 59)
    ]


async def test_an_outcome_with_such_a_time_is_refused_whole(desk: Desk, tables: Tables) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("ann")).assignment
    with pytest.raises(InvalidArgument) as refusal:
        await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK, callback_at=_london(2, 21))
    assert refusal.value.reason == "CALLBACK_OUTSIDE_HOURS"
    assert (await desk.current("ann")).assignment_id == held.assignment_id
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 0
    await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK, callback_at=_london(2, 19))


async def test_the_preferred_agents_minutes_begin_when_the_person_can_first_be_called(
    queue_url: str, redis_url: str, clock: FakeClock, tables: Tables, tmp_path: Path
) -> None:
    """Hours that are shortened later close over the agreed time."""
    path = tmp_path / "rules.yaml"
    text = DEFAULT_PATH.read_text()
    path.write_text(text)
    intervals: dict[str, Any] = {"promotion_interval_seconds": 0.02, "rules_interval_seconds": 0.05}
    async with running_queue(
        queue_url, redis_url, clock=clock, rules_path=path, **intervals
    ) as running:
        desk = Desk(running)
        await desk.fill(unsigned(1), unsigned(2))
        await desk.schedule(1, _london(2, 19), preferred="friend")
        path.write_text(text.replace('until: "20:00"', 'until: "18:00"'))
        # Both editions are applied: all people have been placed by the shorter hours.
        applied = "SELECT count(*) FROM queue.rule_editions WHERE applied_at IS NOT NULL"
        await until(lambda: tables.value(applied), lambda it: it == 2)
        clock.move_wall_to(_london(3, 8))
        await until(lambda: desk.state(1), lambda it: it.queue == CALLBACKS and it.state == READY)
        await desk.presence("friend", queue_pb2.PRESENCE_AVAILABLE)
        rules = {it.rule: it for it in (await desk.explain(1, "other")).rules}
        assert not rules["CALLBACK_OFFERED"].is_passed
        assert rules["CALLBACK_OFFERED"].inputs["kept_until"].startswith("2025-06-03T07:10")
        assert (await desk.claim("other")).assignment.user_id == 2
        assert (await desk.claim("friend")).assignment.user_id == 1


async def test_they_begin_when_a_shared_line_is_free_again(desk: Desk, clock: FakeClock) -> None:
    line = "+442079460018"
    await desk.fill(give_phones(unsigned(1), line), give_phones(unsigned(2), line), unsigned(3))
    await desk.schedule(1, clock.now() + timedelta(minutes=30), preferred="friend")
    assert (await desk.claim("x")).assignment.user_id == 3
    held = (await desk.claim("y")).assignment
    assert held.user_id == 2
    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    clock.advance(timedelta(hours=2))
    await desk.becomes(1, READY)
    await desk.presence("friend", queue_pb2.PRESENCE_AVAILABLE)
    await desk.becomes(3, READY)
    other = (await desk.claim("other")).assignment
    assert other.user_id == 3
    await desk.record(other, call_state_pb2.OUTCOME_NO_ANSWER)
    clock.advance(timedelta(minutes=9))
    await desk.presence("friend", queue_pb2.PRESENCE_AVAILABLE)
    assert (await desk.claim("another")).HasField("empty")
    clock.advance(timedelta(minutes=1))
    await desk.presence("friend", queue_pb2.PRESENCE_AVAILABLE)
    assert (await desk.claim("another")).assignment.user_id == 1
