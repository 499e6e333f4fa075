"""A report that is amended leaves the state that it would have left from the first."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import Conflict, FailedPrecondition, NotFound, PermissionDenied
from services.queue.types import Outcome
from services.queue.wire.messages import timestamp
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, give_phones, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
WAITING = call_state_pb2.ENTRY_STATE_WAITING
BAD_NUMBER = call_state_pb2.OUTCOME_BAD_NUMBER
CALL_BACK = call_state_pb2.OUTCOME_CALL_BACK
DO_NOT_CONTACT = call_state_pb2.OUTCOME_DO_NOT_CONTACT
HUNG_UP = call_state_pb2.OUTCOME_HUNG_UP
MIGHT_COMPLETE = call_state_pb2.OUTCOME_MIGHT_COMPLETE
NO_ANSWER = call_state_pb2.OUTCOME_NO_ANSWER
NO_CLAIM = call_state_pb2.OUTCOME_NO_CLAIM
NOTES = "said so"


async def _amend(
    queue: RunningQueue,
    held: queue_pb2.Assignment,
    outcome: int,
    *,
    agent: str = "",
    reason: str = "a mistake",
    request_id: str = "",
    **given: Any,
) -> call_state_pb2.CallState:
    """Amend as the agent, or else as the boss."""
    request = queue_pb2.AmendOutcomeRequest(
        assignment_id=held.assignment_id,
        actor_id=agent or "boss",
        outcome=call_state_pb2.Outcome.ValueType(outcome),
        reason=reason,
        request_id=request_id or str(uuid4()),
        own_only=bool(agent),
        **given,
    )
    return (await queue.stub.AmendOutcome(request)).call_state


# Of a person: the entry without what tells people apart, and all that the report has made.
_STATE = """
    SELECT to_jsonb(entry) - ARRAY['user_id', 'phones', 'lines', 'facts_version', 'fingerprint',
            'state_version', 'callback_id', 'callback_agent_id', 'last_agent_id'] AS entry,
        entry.last_agent_id IS NULL AS unspoken, entry.callback_agent_id IS NULL AS unkept,
        ARRAY(SELECT (call.outcome, call.notes, call.callback_at, call.ended_at)::text
            FROM queue.attempts AS call WHERE call.user_id = entry.user_id) AS calls,
        ARRAY(SELECT (it.scheduled_for, it.state, it.misses, it.closed_at, it.closed_reason)::text
            FROM queue.callbacks AS it WHERE it.user_id = entry.user_id
                AND it.closed_reason IS DISTINCT FROM 'AMENDED' ORDER BY created_at, 1) AS agreed,
        ARRAY(SELECT it.kind FROM queue.suppressions AS it
            WHERE it.user_id = entry.user_id AND it.lifted_at IS NULL ORDER BY 1) AS objections
    FROM queue.entries AS entry WHERE entry.user_id = :user_id
"""


@pytest.mark.parametrize("first", list(Outcome), ids=lambda it: it.name)
async def test_every_amendment_leaves_the_state_of_the_second_report_alone(
    desk: Desk, queue: RunningQueue, clock: FakeClock, tables: Tables, first: Outcome
) -> None:
    for second in Outcome:
        amended, plain = 2 * second + 1, 2 * second + 2
        await desk.fill(unsigned(amended), unsigned(plain))
        if (first + second) % 2:
            at = clock.now() + timedelta(minutes=1)
            await desk.schedule(amended, at, preferred="ann")
            await desk.schedule(plain, at, preferred="bob")
            clock.advance(60)
            await desk.becomes(amended, READY)
            await desk.becomes(plain, READY)
        # A callback is kept for an agent who is there.
        for agent in ("ann", "bob"):
            await desk.presence(agent, queue_pb2.PRESENCE_AVAILABLE)
        claimed = [(await desk.claim(it)).assignment for it in ("ann", "bob")]
        by_user = {held.user_id: held for held in claimed}
        assert set(by_user) == {amended, plain}
        await desk.record(by_user[amended], call_state_pb2.Outcome.ValueType(first), notes=NOTES)
        await _amend(queue, by_user[amended], second)
        await desk.record(by_user[plain], call_state_pb2.Outcome.ValueType(second), notes=NOTES)
        states = [await tables.rows(_STATE, user_id=it) for it in (amended, plain)]
        assert states[0] == states[1], (first.name, second.name)
        for user_id in (amended, plain):
            queue.main_app.put(done(user_id))
            await desk.apply(user_id)
            for callback in await desk.callbacks():
                await desk.cancel(callback.callback_id)
        clock.advance(60)


async def test_an_agent_amends_an_own_report_for_ten_minutes(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("ann")).assignment
    with pytest.raises(FailedPrecondition):
        await _amend(queue, held, HUNG_UP, agent="ann")
    await desk.record(held, NO_ANSWER, notes="rang for long")
    with pytest.raises(Conflict) as refusal:
        await _amend(queue, held, HUNG_UP, agent="bob")
    assert refusal.value.reason == "ASSIGNMENT_NOT_YOURS"
    clock.advance(600)
    key = str(uuid4())
    state = await _amend(queue, held, HUNG_UP, agent="ann", reason="", request_id=key)
    assert (state.last_outcome, state.attempts) == (HUNG_UP, 1)
    assert state.score == pytest.approx(2, abs=0.01)
    assert state.recent_attempts[0].notes == "rang for long"
    # The same request again, and the same report again, change nothing.
    assert await _amend(queue, held, HUNG_UP, agent="ann", reason="", request_id=key) == state
    await _amend(queue, held, HUNG_UP, agent="ann")
    assert len(await desk.audit(action="OUTCOME_AMENDED")) == 1
    clock.advance(1)
    with pytest.raises(Conflict) as refusal:
        await _amend(queue, held, NO_ANSWER, agent="ann")
    assert refusal.value.reason == "AMEND_TOO_LATE"
    await _amend(queue, held, MIGHT_COMPLETE, reason="heard the recording", notes="")
    (latest, _) = await desk.audit(action="OUTCOME_AMENDED")
    assert latest.notes == "heard the recording"
    assert (latest.details["from"], latest.details["to"]) == ("hung_up", "might_complete")
    (first,) = await desk.audit(action="OUTCOME_RECORDED")
    assert first.details["outcome"] == "no_answer"
    with pytest.raises(NotFound):
        await _amend(queue, queue_pb2.Assignment(assignment_id=str(uuid4())), HUNG_UP)


async def test_only_a_supervisor_takes_an_objection_back(desk: Desk, queue: RunningQueue) -> None:
    await desk.fill(give_phones(unsigned(1), "+442079460018"))
    await desk.fill(give_phones(unsigned(2), "+442079460018"))
    held = (await desk.claim("ann")).assignment
    other = 3 - held.user_id
    await desk.record(held, DO_NOT_CONTACT, notes="asked us to")
    with pytest.raises(PermissionDenied):
        await _amend(queue, held, HUNG_UP, agent="ann")
    assert (await desk.state(other)).reason == "PHONE_SUPPRESSED"
    assert (await _amend(queue, held, HUNG_UP)).state == WAITING
    assert (await desk.state(other)).reason == "NO_SIGNATURE"
    # An objection that was made apart from the call stands.
    await desk.suppress(held.user_id)
    await _amend(queue, held, DO_NOT_CONTACT, notes="once more")
    assert (await _amend(queue, held, HUNG_UP)).reason == "DO_NOT_CONTACT"


async def test_what_has_happened_since_stays(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    first = (await desk.claim("ann")).assignment
    await desk.record(first, NO_ANSWER)
    clock.advance(timedelta(hours=4))
    await desk.becomes(1, READY)
    second = (await desk.claim("ann")).assignment
    at = clock.now() + timedelta(hours=2)
    later = (await desk.record(second, CALL_BACK, callback_at=at)).call_state
    state = await _amend(queue, first, MIGHT_COMPLETE)
    for name in ("last_outcome", "next_call_at", "open_callback", "score", "state"):
        assert getattr(state, name) == getattr(later, name)
    assert {it.outcome for it in state.recent_attempts} == {MIGHT_COMPLETE, CALL_BACK}
    # A callback that was moved meanwhile stays where it is.
    moved = await desk.reschedule(state.open_callback.callback_id, at + timedelta(minutes=30))
    state = await _amend(queue, second, HUNG_UP)
    assert state.open_callback.scheduled_for == moved.scheduled_for
    assert (await _amend(queue, second, NO_CLAIM)).reason == "NO_CLAIM_REPORTED"
    assert await desk.callbacks() == []


async def test_a_number_is_held_and_freed_for_its_other_holders(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    for user_id in (1, 2):
        await desk.fill(give_phones(unsigned(user_id), "+442079460018"))
    held = (await desk.claim("ann")).assignment
    await desk.record(held, BAD_NUMBER)
    other = 3 - held.user_id
    bad = (await desk.state(other)).next_call_at
    await _amend(queue, held, NO_ANSWER)
    rested = (await desk.state(other)).next_call_at
    assert rested == timestamp(clock.now() + timedelta(hours=2))
    await _amend(queue, held, BAD_NUMBER)
    assert (await desk.state(other)).next_call_at == bad


async def test_a_conversion_is_credited_by_the_amended_report(
    desk: Desk, queue: RunningQueue, clock: FakeClock, tables: Tables
) -> None:
    credited = "SELECT agent_id FROM queue.conversions"
    await desk.fill(unsigned(1))
    held = (await desk.claim("ann")).assignment
    await desk.record(held, NO_ANSWER)
    clock.advance(60)
    queue.main_app.put(done(1))
    await desk.apply(1)
    assert await tables.value(credited) is None
    await _amend(queue, held, HUNG_UP)
    assert await tables.value(credited) == "ann"
    await _amend(queue, held, NO_ANSWER)
    assert await tables.value(credited) is None


async def test_the_reports_of_an_agent_are_withdrawn_together(
    desk: Desk, queue: RunningQueue, clock: FakeClock, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 6)))
    began = clock.now()
    reported = [HUNG_UP, NO_CLAIM, DO_NOT_CONTACT, CALL_BACK]
    calls = []
    for outcome in reported:
        calls.append((await desk.claim("ann")).assignment)
        await desk.record(calls[-1], outcome, notes=NOTES)
        clock.advance(60)
    await desk.record((await desk.claim("bob")).assignment, HUNG_UP)

    async def undo(*, dry_run: bool = False) -> queue_pb2.UndoOutcomesResponse:
        return await queue.stub.UndoOutcomes(
            queue_pb2.UndoOutcomesRequest(
                agent_id="ann",
                since=timestamp(began),
                until=timestamp(began + timedelta(hours=1)),
                actor_id="boss",
                reason="the cat",
                dry_run=dry_run,
                request_id=str(uuid4()),
            )
        )

    before = [await desk.state(it.user_id) for it in calls]
    told = await undo(dry_run=True)
    assert [it.outcome for it in told.calls] == list(reversed(reported))
    assert [it.outcome for it in told.calls if it.is_kept] == [DO_NOT_CONTACT]
    assert [await desk.state(it.user_id) for it in calls] == before
    assert await undo() == told
    states = [await desk.state(it.user_id) for it in calls]
    assert [it.reason for it in states] == [
        "NO_SIGNATURE", "NO_SIGNATURE", "DO_NOT_CONTACT", "NO_SIGNATURE",
    ]  # fmt: skip
    # Each is a call without a report, which rests and counts.
    assert {it.hold for it in states if it.state == WAITING} == {
        call_state_pb2.HOLD_UNREPORTED_CALL
    }
    assert [it.attempts for it in states] == [1, 1, 1, 1]
    assert await desk.callbacks() == []
    stats = await desk.stats()
    assert (stats.calls_today, stats.unreported_calls_today) == (2, 3)
    assert [it.is_kept for it in (await undo()).calls] == [True]
    state = await _amend(queue, calls[0], NO_ANSWER)
    assert (state.last_outcome, state.attempts) == (NO_ANSWER, 1)


async def test_what_the_person_has_said_since_stands(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    """A mistaken report is taken back; the same words, said once more by the person, are not."""
    await desk.fill(unsigned(1), unsigned(2))
    mistaken = {}
    for outcome in (DO_NOT_CONTACT, NO_CLAIM):
        held = (await desk.claim("ann")).assignment
        await desk.record(held, outcome, notes=NOTES)
        mistaken[outcome] = held
    clock.advance(3_600)
    await desk.suppress(mistaken[DO_NOT_CONTACT].user_id, "wrote to us")
    rang = (await desk.take(mistaken[NO_CLAIM].user_id, "bob")).assignment
    await desk.record(rang, NO_CLAIM, notes=NOTES)

    objecting = await _amend(queue, mistaken[DO_NOT_CONTACT], NO_ANSWER)
    assert (objecting.state, objecting.reason) == (SUPPRESSED, "DO_NOT_CONTACT")
    without_claim = await _amend(queue, mistaken[NO_CLAIM], NO_ANSWER)
    assert without_claim.reason == "NO_CLAIM_REPORTED"
