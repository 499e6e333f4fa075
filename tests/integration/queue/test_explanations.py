"""Why a user is called or not, in words for supervisors; and the audit trail."""

from datetime import UTC, datetime, timedelta

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import FailedPrecondition, InvalidArgument, Unavailable
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, give_phones, outstanding, unsigned
from tests.integration.queue.bench import Desk

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
READY = call_state_pb2.ENTRY_STATE_READY
OUT = call_state_pb2.ENTRY_STATE_OUT
QUEUE_RULES = {"UNSIGNED_USERS", "OUTSTANDING_REQUESTS", "CALLBACKS"}


def _failing(told: queue_pb2.ExplainUserResponse) -> set[str]:
    return {it.rule for it in told.rules if not it.is_passed} - QUEUE_RULES


async def test_a_user_at_the_head_passes_every_rule(desk: Desk) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    told = await desk.explain(2)
    assert (told.is_callable_now, told.is_live, told.people_ahead) == (True, True, 0)
    assert (told.state, told.queue) == (READY, UNSIGNED)
    assert told.summary == "May be called now, from unsigned_users."
    assert _failing(told) == set()
    assert (await desk.explain(1)).people_ahead == 1
    assert sum(it.points for it in told.factors) == pytest.approx(told.score, abs=1e-6)
    assert (await desk.claim("agent")).assignment.user_id == 2


async def test_only_users_ready_by_the_explanation_are_handed_out(
    desk: Desk, clock: FakeClock
) -> None:
    disabled = unsigned(3)
    disabled.is_enabled = False
    fresh = unsigned(4, created_at=clock.now())
    abroad = unsigned(5)
    give_phones(abroad, "+12125550123")
    await desk.fill(unsigned(1), outstanding(2), disabled, fresh, abroad, done(6), unsigned(7))
    await desk.suppress(7)
    callable_ones = {it for it in range(1, 8) if (await desk.explain(it)).is_callable_now}
    taken = {(await desk.claim(f"agent-{it}")).assignment.user_id for it in range(8)}
    # It is five in the morning in New York.
    assert callable_ones == taken - {0} == {1, 2}


async def test_each_block_is_named_with_what_would_have_to_change(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 7)))
    await desk.import_phones(b"07700900001\n")
    await desk.suppress(2)
    await desk.schedule(3, clock.now() + timedelta(hours=3))
    sharers = [unsigned(11), unsigned(12)]
    for facts in sharers:
        give_phones(facts, "+447700900888")
    await desk.fill(*sharers)
    held = (await desk.claim("agent")).assignment
    assert held.user_id == 12
    assert _failing(await desk.explain(12)) == {"NOT_HELD"}
    assert _failing(await desk.explain(11)) == {"PHONE_NOT_IN_CALL"}
    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    expected = {
        1: {"PHONE_NOT_LISTED"},
        2: {"NOT_SUPPRESSED"},
        3: {"CALLBACK_TIME"},
        11: {"SHARED_PHONE"},
        12: {"NEXT_CALL"},
    }
    for user_id, rules in expected.items():
        told = await desk.explain(user_id)
        assert _failing(told) == rules, user_id
        assert not told.is_callable_now
        assert all(it.what_would_change_it for it in told.rules if not it.is_passed)
        assert all(not it.what_would_change_it for it in told.rules if it.is_passed)
        assert "7700" not in str(told)


async def test_caps_and_hours_are_told_with_their_figures(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    for _ in range(3):
        held = (await desk.claim("agent")).assignment
        await desk.record(held, call_state_pb2.OUTCOME_MISSED_CALL)
    told = await desk.explain(1)
    (cap,) = [it for it in told.rules if it.rule == "DAILY_CAP"]
    assert dict(cap.inputs) == {"calls": "3", "calls_on_a_line": "3", "calls_at_most": "3"}
    assert cap.words.startswith("3 of 3 calls made today")
    clock.move_wall_to(datetime(2025, 6, 3, 22, 0, tzinfo=UTC))
    (hours,) = [it for it in (await desk.explain(1)).rules if it.rule == "CALLING_HOURS"]
    assert not hours.is_passed
    assert dict(hours.inputs) == {
        "time_zone": "Europe/London",
        "begins_at": "2025-06-04T07:00:00+00:00",
    }


async def test_the_explanation_is_of_the_main_app_as_it_is_now(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.put(outstanding(1))
    told = await desk.explain(1)
    assert told.queue == call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
    (rule,) = [it for it in told.rules if it.rule == "UNSIGNED_USERS"]
    assert (rule.is_passed, rule.words) == (False, "the signature is there")
    assert rule.inputs["open_claims"] == "1"
    # It changes nothing.
    assert (await desk.state(1)).queue == UNSIGNED


async def test_people_in_no_queue_and_people_never_heard_of_are_explained_too(
    desk: Desk, queue: RunningQueue
) -> None:
    queue.main_app.put(unsigned(5))
    unheard_of = await desk.explain(5)
    assert (unheard_of.is_callable_now, unheard_of.queue) == (True, UNSIGNED)
    unknown = await desk.explain(404)
    assert (unknown.state, _failing(unknown)) == (
        OUT,
        {"CONTACT_ALLOWED", "CALLABLE_NUMBER"},
    )
    await desk.fill(done(6))
    nothing_owed = await desk.explain(6)
    assert nothing_owed.summary == "Not called: nothing is owed and no callback is agreed."
    assert (await desk.state(5)).version == 0


async def test_without_the_main_app_what_is_known_is_explained(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.is_unavailable = True
    told = await desk.explain(1)
    assert (told.is_live, told.queue) == (False, UNSIGNED)
    with pytest.raises(Unavailable) as raised:
        await desk.explain(2)
    assert raised.value.reason == "MAIN_APP_UNAVAILABLE"


async def test_a_person_who_cannot_be_read_is_explained_by_what_is_known(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.faulty = {1, 2}
    told = await desk.explain(1)
    assert (told.is_live, told.queue, told.state) == (False, UNSIGNED, READY)
    with pytest.raises(FailedPrecondition) as raised:
        await desk.explain(2)
    assert raised.value.reason == "USER_UNREADABLE"
    assert raised.value.metadata == {"cause": "DATABASE_ERROR"}


async def test_an_agents_own_limits_are_explained(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    await desk.presence("agent", queue_pb2.PRESENCE_AVAILABLE)
    await desk.release((await desk.claim("agent")).assignment, queue_pb2.RELEASE_REASON_SKIPPED)
    assert _failing(await desk.explain(1, "agent")) == {"NOT_JUST_SKIPPED"}
    assert _failing(await desk.explain(1, "other")) == set()
    await desk.presence("other", queue_pb2.PRESENCE_BREAK)
    request = queue_pb2.SetAgentQueuesRequest(
        agent_id="other", allowed_queues=[call_state_pb2.QUEUE_CALLBACKS], actor_id="boss"
    )
    await queue.stub.SetAgentQueues(request)
    assert _failing(await desk.explain(1, "other")) == {"AGENT_TAKES_CALLS", "AGENT_QUEUES"}
    await desk.schedule(1, clock.now() + timedelta(minutes=5), preferred="agent")
    clock.advance(300)
    await desk.becomes(1, READY)
    await desk.presence("agent", queue_pb2.PRESENCE_AVAILABLE)
    assert "CALLBACK_OFFERED" in _failing(await desk.explain(1, "third"))
    assert "CALLBACK_OFFERED" not in _failing(await desk.explain(1, "agent"))
    # An agent's own callbacks are the agent's whatever queues a supervisor allows.
    for agent_id in ("agent", "third"):
        request = queue_pb2.SetAgentQueuesRequest(
            agent_id=agent_id, allowed_queues=[UNSIGNED], actor_id="boss"
        )
        await queue.stub.SetAgentQueues(request)
    assert "AGENT_QUEUES" not in _failing(await desk.explain(1, "agent"))
    assert "AGENT_QUEUES" in _failing(await desk.explain(1, "third"))


async def test_the_audit_says_who_saw_and_changed_whom(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    held = (await desk.claim("ann")).assignment
    await queue.stub.RecordAccess(
        queue_pb2.RecordAccessRequest(actor_id="ann", user_ids=[2], action="VIEWED_CONTEXT")
    )
    clock.advance(60)
    await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK)
    (callback,) = await desk.callbacks()
    await desk.cancel(callback.callback_id)
    await desk.suppress(2, notes="a letter from Mrs Canary")
    await desk.lift(2)
    told = [(it.action, it.actor_id) for it in await desk.audit(user_id=2)]
    assert told == [
        ("SUPPRESSION_LIFTED", "boss"),
        ("SUPPRESSED", "boss"),
        ("CALLBACK_CANCELLED", "boss"),
        ("OUTCOME_RECORDED", "ann"),
        ("VIEWED_CONTEXT", "ann"),
        ("HANDED_OUT", "ann"),
    ]
    by_ann = await desk.audit(actor_id="ann")
    assert {it.action for it in by_ann} == {"HANDED_OUT", "VIEWED_CONTEXT", "OUTCOME_RECORDED"}
    (outcome,) = await desk.audit(action="OUTCOME_RECORDED")
    assert dict(outcome.details) == {
        "assignment_id": held.assignment_id,
        "outcome": "call_back",
    }
    assert "Canary" not in str(await desk.audit())
    pages: list[str] = []
    token = ""
    while True:
        request = queue_pb2.ListAuditEntriesRequest(page_size=2, page_token=token)
        page = await queue.stub.ListAuditEntries(request)
        pages += [it.action for it in page.entries]
        token = page.next_page_token
        if not token:
            break
    assert pages == [action for action, _ in told]
    with pytest.raises(InvalidArgument):
        await queue.stub.RecordAccess(
            queue_pb2.RecordAccessRequest(actor_id="ann", user_ids=[2], action="Mrs Canary")
        )


async def test_an_access_to_no_person_is_in_the_audit(desk: Desk, queue: RunningQueue) -> None:
    await queue.stub.RecordAccess(
        queue_pb2.RecordAccessRequest(actor_id="break-glass:alice:INC-1", action="BREAK_GLASS")
    )
    (entry,) = await desk.audit(action="BREAK_GLASS")
    assert (entry.actor_id, entry.user_id) == ("break-glass:alice:INC-1", 0)


async def test_lists_are_narrowed_by_hold_reason_outcome_agent_and_attempts(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 8)))
    for agent_id, outcome in (
        ("ann", call_state_pb2.OUTCOME_MIGHT_COMPLETE),
        ("ann", call_state_pb2.OUTCOME_HUNG_UP),
        ("ben", call_state_pb2.OUTCOME_MIGHT_COMPLETE),
        # Who rings in vain has not spoken with the person.
        ("cat", call_state_pb2.OUTCOME_NO_ANSWER),
    ):
        await desk.record((await desk.claim(agent_id)).assignment, outcome)
    await desk.schedule(1, clock.now() + timedelta(hours=1))

    async def listed(**asked: object) -> set[int]:
        waiting = {"queue": UNSIGNED, "state": call_state_pb2.ENTRY_STATE_WAITING}
        request = queue_pb2.ListEntriesRequest(**(waiting | asked))  # type: ignore[arg-type]
        return {it.user_id for it in (await queue.stub.ListEntries(request)).entries}

    assert await listed() == {7, 6, 5, 4, 1}
    assert await listed(hold=call_state_pb2.HOLD_CALLBACK) == {1}
    assert await listed(last_outcome=call_state_pb2.OUTCOME_MIGHT_COMPLETE) == {7, 5}
    assert await listed(agent_id="ann") == {7, 6}
    assert await listed(agent_id="cat") == set()
    assert await listed(attempts_at_least=1) == {7, 6, 5, 4}
    assert await listed(reason="NO_SIGNATURE", agent_id="ben") == {5}
    with pytest.raises(InvalidArgument):
        await listed(reason="BECAUSE")
    request = queue_pb2.ListEntriesRequest(queue=UNSIGNED, page_size=1)
    token = (await queue.stub.ListEntries(request)).next_page_token
    other = queue_pb2.ListEntriesRequest(queue=UNSIGNED, agent_id="ann", page_token=token)
    with pytest.raises(InvalidArgument) as raised:
        await queue.stub.ListEntries(other)
    assert raised.value.reason == "PAGE_TOKEN_INVALID"
