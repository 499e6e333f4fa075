"""Agents: whether they are there, what they may take, and what a supervisor can do about it."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import Conflict, FailedPrecondition, PermissionDenied
from services.queue.rules import DEFAULT_PATH
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
OUTSTANDING = call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
CALLBACKS = call_state_pb2.QUEUE_CALLBACKS
READY = call_state_pb2.ENTRY_STATE_READY
CALL_BACK = call_state_pb2.OUTCOME_CALL_BACK
HUNG_UP = call_state_pb2.OUTCOME_HUNG_UP
SKIPPED = queue_pb2.RELEASE_REASON_SKIPPED
AVAILABLE = queue_pb2.PRESENCE_AVAILABLE
ON_CALL = queue_pb2.PRESENCE_ON_CALL
WRAP_UP = queue_pb2.PRESENCE_WRAP_UP
BREAK = queue_pb2.PRESENCE_BREAK
OFFLINE = queue_pb2.PRESENCE_OFFLINE


async def test_an_agent_has_its_own_presence_on_call_while_holding_a_user_and_offline_when_silent(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    assert (await desk.presence("agent", AVAILABLE)).presence == AVAILABLE
    held = (await desk.claim("agent")).assignment
    on_call = (await desk.agents())["agent"]
    assert (on_call.presence, on_call.assignment.assignment_id) == (ON_CALL, held.assignment_id)
    await desk.record(held, call_state_pb2.OUTCOME_HUNG_UP)
    assert (await desk.presence("agent", WRAP_UP)).presence == WRAP_UP
    since = clock.now()
    clock.advance(60)
    again = await desk.presence("agent", WRAP_UP)
    assert again.presence_since.ToSeconds() == since.timestamp()
    clock.advance(120)
    assert (await desk.agents())["agent"].presence == OFFLINE
    # A sign of life brings back what they said, never more.
    assert (await desk.claim("agent")).HasField("empty")
    assert (await desk.agents())["agent"].presence == WRAP_UP


@pytest.mark.parametrize("presence", [BREAK, OFFLINE])
async def test_no_user_is_handed_to_an_agent_that_takes_no_calls(
    desk: Desk, presence: queue_pb2.Presence.ValueType
) -> None:
    await desk.fill(unsigned(1))
    await desk.presence("agent", presence)
    with pytest.raises(FailedPrecondition) as raised:
        await desk.claim("agent")
    assert raised.value.reason == "AGENT_NOT_AVAILABLE"
    assert (await desk.state(1)).state == READY


async def test_a_break_said_during_a_call_outlasts_it(desk: Desk) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    held = (await desk.claim("agent")).assignment
    await desk.presence("agent", BREAK)
    assert (await desk.agents())["agent"].presence == ON_CALL
    assert (await desk.claim("agent")).assignment == held
    await desk.record(held, call_state_pb2.OUTCOME_HUNG_UP)
    assert (await desk.agents())["agent"].presence == BREAK
    with pytest.raises(FailedPrecondition):
        await desk.claim("agent")


async def test_an_agent_takes_from_the_queues_they_are_limited_to(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), outstanding(2), unsigned(3))
    await desk.schedule(3, clock.now() + timedelta(minutes=1))
    clock.advance(60)
    await desk.becomes(3, READY)
    request = queue_pb2.SetAgentQueuesRequest(
        agent_id="novice", allowed_queues=[OUTSTANDING], actor_id="boss"
    )
    assert list((await queue.stub.SetAgentQueues(request)).agent.allowed_queues) == [OUTSTANDING]
    await desk.presence("novice", AVAILABLE)
    with pytest.raises(PermissionDenied) as raised:
        await desk.claim("novice", UNSIGNED)
    assert raised.value.reason == "QUEUE_NOT_ALLOWED"
    held = (await desk.claim("novice", UNSIGNED, OUTSTANDING)).assignment
    assert held.user_id == 2
    await desk.release(held)
    await queue.stub.SetAgentQueues(
        queue_pb2.SetAgentQueuesRequest(agent_id="novice", actor_id="boss")
    )
    assert (await desk.claim("novice")).assignment.user_id == 3


async def test_a_skipped_user_does_not_come_back_at_once_while_others_wait(desk: Desk) -> None:
    """The skipped one stays at the head: the others have waited a year and are far behind."""
    await desk.fill(unsigned(1))
    first = (await desk.claim("agent")).assignment
    await desk.fill(outstanding(2))
    await desk.release(first, SKIPPED)
    second = (await desk.claim("agent")).assignment
    assert (first.user_id, second.user_id) == (1, 2)
    await desk.release(second)
    # Handed another user in between, the agent may have the first one again.
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_a_skipped_user_comes_back_when_no_other_user_waits(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    await desk.release((await desk.claim("agent")).assignment, SKIPPED)
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_a_skipped_user_is_handed_to_another_agent(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    await desk.release((await desk.claim("agent")).assignment, SKIPPED)
    assert (await desk.claim("other")).assignment.user_id == 1


async def test_an_agent_may_skip_only_so_many_people_in_an_hour(
    queue_url: str, redis_url: str, clock: FakeClock, tmp_path: Path
) -> None:
    """The rest of the hour the agent keeps the person or calls; others are not concerned."""
    rules = tmp_path / "rules.yaml"
    text = DEFAULT_PATH.read_text(encoding="utf-8")
    rules.write_text(text.replace("skips_per_hour: null", "skips_per_hour: 2"), encoding="utf-8")
    async with running_queue(queue_url, redis_url, clock=clock, rules_path=rules) as running:
        desk = Desk(running)
        await desk.fill(*(unsigned(it) for it in range(1, 6)))
        for _ in range(2):
            await desk.release((await desk.claim("agent")).assignment, SKIPPED)
            clock.advance(60)
        held = (await desk.claim("agent")).assignment
        once = str(uuid4())
        for _ in range(2):
            with pytest.raises(FailedPrecondition) as raised:
                await desk.release(held, SKIPPED, request_id=once)
            assert raised.value.reason == "SKIP_LIMIT"
            assert raised.value.metadata == {"skips_per_hour": "2"}
        assert (await desk.agents())["agent"].assignment.assignment_id == held.assignment_id
        assert (await desk.agents())["agent"].skips_last_hour == 2
        await desk.release((await desk.claim("other")).assignment, SKIPPED)
        # To be released without a skip is no way out: the same person comes again.
        await desk.release(held)
        held = (await desk.claim("agent")).assignment
        # The first skip is an hour ago.
        clock.advance(3_600 - 120 + 1)
        held = (await desk.claim("agent")).assignment
        await desk.release(held, SKIPPED, request_id=once)
        assert (await desk.agents())["agent"].skips_last_hour == 2
        assert (await desk.agents())["other"].skips_last_hour == 1


async def test_an_agent_keeps_only_so_many_callbacks_for_itself(
    queue_url: str, redis_url: str, clock: FakeClock, tmp_path: Path
) -> None:
    """A further one is refused with nothing recorded; others' and those of any agent are not."""
    rules = tmp_path / "rules.yaml"
    text = DEFAULT_PATH.read_text(encoding="utf-8")
    rules.write_text(text.replace("open_callbacks: null", "open_callbacks: 1"), encoding="utf-8")
    async with running_queue(queue_url, redis_url, clock=clock, rules_path=rules) as running:
        desk = Desk(running)
        await desk.fill(*(unsigned(it) for it in range(1, 5)))
        at = clock.now() + timedelta(hours=2)
        first = (await desk.claim("agent")).assignment
        await desk.record(first, CALL_BACK, callback_at=at, notes="at eleven")
        held = (await desk.claim("agent")).assignment
        with pytest.raises(FailedPrecondition) as raised:
            await desk.record(held, CALL_BACK, callback_at=at, notes="at eleven")
        assert raised.value.reason == "CALLBACK_LIMIT"
        assert raised.value.metadata == {"open_callbacks": "1"}
        agent = (await desk.agents())["agent"]
        assert (agent.assignment.assignment_id, agent.open_callbacks) == (held.assignment_id, 1)
        await desk.record(held, HUNG_UP)
        others = {1, 2, 3, 4} - {first.user_id, held.user_id}
        with pytest.raises(FailedPrecondition):
            await desk.schedule(others.pop(), at, preferred="agent", actor_id="agent")
        await desk.schedule(others.pop(), at, preferred="agent", actor_id="boss")
        assert (await desk.agents())["agent"].open_callbacks == 2


async def test_an_agent_is_shown_alone_as_in_the_list_and_offline_when_never_seen(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    await desk.record(held, call_state_pb2.OUTCOME_HUNG_UP)
    alone = (await queue.stub.GetAgent(queue_pb2.GetAgentRequest(agent_id="agent"))).agent
    assert alone == (await desk.agents())["agent"]
    assert [(it.outcome, it.calls) for it in alone.today.outcomes] == [
        (call_state_pb2.OUTCOME_HUNG_UP, 1)
    ]
    other = (await queue.stub.GetAgent(queue_pb2.GetAgentRequest(agent_id="new"))).agent
    assert (other.agent_id, other.presence, other.skips_last_hour) == ("new", OFFLINE, 0)


async def test_a_supervisor_ends_an_assignment_whose_report_is_still_taken(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    request = queue_pb2.ForceReleaseAssignmentRequest(
        assignment_id=held.assignment_id, actor_id="boss", request_id=str(uuid4())
    )
    answer = await queue.stub.ForceReleaseAssignment(request)
    assert answer.call_state.state == READY
    assert await queue.stub.ForceReleaseAssignment(request) == answer
    with pytest.raises(Conflict):
        await desk.heartbeat(held)
    with pytest.raises(Conflict) as raised:
        await queue.stub.ForceReleaseAssignment(
            queue_pb2.ForceReleaseAssignmentRequest(
                assignment_id=held.assignment_id, actor_id="boss", request_id=str(uuid4())
            )
        )
    assert raised.value.reason == "ASSIGNMENT_NOT_LIVE"
    state = (await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)).call_state
    assert state.attempts == 1
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 1


async def test_what_agents_have_done_today_is_told_by_agent_and_outcome(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 4)))
    for agent_id, outcome in (
        ("ann", call_state_pb2.OUTCOME_NO_ANSWER),
        ("ann", call_state_pb2.OUTCOME_HUNG_UP),
        ("ben", call_state_pb2.OUTCOME_MIGHT_COMPLETE),
    ):
        held = (await desk.claim(agent_id)).assignment
        await desk.record(held, outcome)
        signed = outstanding(held.user_id)
        if agent_id == "ben":
            await desk.fill(signed)
    stats = await desk.stats()
    assert (stats.calls_today, stats.conversions_today) == (3, 1)
    told = {
        it.agent_id: ({o.outcome: o.calls for o in it.outcomes}, it.conversions)
        for it in stats.agents_today
    }
    assert told == {
        "ann": ({call_state_pb2.OUTCOME_NO_ANSWER: 1, call_state_pb2.OUTCOME_HUNG_UP: 1}, 0),
        "ben": ({call_state_pb2.OUTCOME_MIGHT_COMPLETE: 1}, 1),
    }
    assert (await desk.agents())["ben"].today.conversions == 1
    assert {it.outcome: it.calls for it in stats.outcomes_today} == {
        call_state_pb2.OUTCOME_NO_ANSWER: 1,
        call_state_pb2.OUTCOME_HUNG_UP: 1,
        call_state_pb2.OUTCOME_MIGHT_COMPLETE: 1,
    }
