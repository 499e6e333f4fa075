"""Outcomes of later releases and what supervisors name: their effects, figures and records."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import FailedPrecondition, InvalidArgument
from services.queue.rules import DEFAULT_PATH
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import give_phones, unsigned
from tests.integration.queue.bench import Desk

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
BAD_NUMBER = call_state_pb2.OUTCOME_BAD_NUMBER
DECEASED = call_state_pb2.OUTCOME_DECEASED
DO_NOT_CONTACT = call_state_pb2.OUTCOME_DO_NOT_CONTACT
NOT_INTERESTED = call_state_pb2.OUTCOME_NOT_INTERESTED
HOME, MOBILE = "+442079460018", "+447700900018"


async def test_a_bad_number_is_not_called_for_its_other_holders(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(give_phones(unsigned(1), HOME), give_phones(unsigned(2), HOME, MOBILE))
    await desk.fill(give_phones(unsigned(3), HOME))
    held = (await desk.claim("agent")).assignment
    assert held.user_id == 3
    await desk.record(held, BAD_NUMBER)
    state = await desk.state(1)
    assert (state.state, state.hold) == (WAITING, call_state_pb2.HOLD_SHARED_PHONE)
    told = {it.rule: it for it in (await desk.explain(1)).rules}["SHARED_PHONE"]
    assert "found every one of the numbers to be bad" in told.words
    clock.advance(timedelta(hours=2))
    # The one with a number besides can be called on that.
    await desk.becomes(2, READY)
    assert (await desk.claim("agent")).assignment.user_id == 2
    assert (await desk.claim("other")).HasField("empty")
    clock.advance(timedelta(days=27))
    assert (await desk.state(1)).state == WAITING
    # One who is new with that number is held as well.
    await desk.fill(give_phones(unsigned(4), HOME))
    assert (await desk.state(4)).hold == call_state_pb2.HOLD_SHARED_PHONE
    clock.advance(timedelta(hours=22))
    await desk.becomes(1, READY)


async def test_a_death_is_an_objection_of_its_own_kind(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(give_phones(unsigned(1), HOME), give_phones(unsigned(2), HOME, MOBILE))
    held = (await desk.claim("agent")).assignment
    assert held.user_id == 2
    answer = await desk.record(held, DECEASED, notes="the widow said so")
    assert (answer.call_state.state, answer.call_state.reason) == (SUPPRESSED, "DECEASED")
    assert (await desk.state(1)).reason == "PHONE_SUPPRESSED"
    failing = {it.rule for it in (await desk.explain(2)).rules if not it.is_passed}
    assert "NOT_DECEASED" in failing
    assert "NOT_SUPPRESSED" not in failing
    # An ordinary objection stands beside it, and each is lifted by itself.
    await desk.suppress(2)
    listed = await queue.stub.ListSuppressions(queue_pb2.ListSuppressionsRequest(user_id=2))
    assert sorted(it.kind for it in listed.suppressions) == [
        queue_pb2.SUPPRESSION_KIND_OBJECTION,
        queue_pb2.SUPPRESSION_KIND_DECEASED,
    ]
    with pytest.raises(FailedPrecondition) as refusal:
        await desk.lift(2)
    assert refusal.value.reason == "SEVERAL_STAND"
    request = queue_pb2.LiftSuppressionRequest(
        user_id=2,
        actor_id="boss",
        notes="another person",
        request_id=str(uuid4()),
        what=queue_pb2.LIFTED_DECEASED,
    )
    lifted = (await queue.stub.LiftSuppression(request)).call_state
    assert (lifted.state, lifted.reason) == (SUPPRESSED, "DO_NOT_CONTACT")
    await desk.lift(2)
    assert (await desk.state(1)).reason == "NO_SIGNATURE"
    kinds = [dict(it.details).get("kind") for it in await desk.audit(action="SUPPRESSION_LIFTED")]
    assert kinds == [None, "deceased"]


async def test_a_death_is_noted_of_a_person_whose_call_can_no_longer_be_reported(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    lost = (await desk.claim("agent")).assignment
    await desk.release(lost)
    await desk.record(lost, DECEASED, notes="the widow rang back")
    assert (await desk.state(1)).reason == "DECEASED"
    (noted,) = await desk.audit(action="SUPPRESSED")
    assert noted.details["kind"] == "deceased"


async def test_a_supervisor_notes_a_death(desk: Desk, queue: RunningQueue) -> None:
    await desk.fill(unsigned(1))

    def asked(**given: object) -> queue_pb2.SuppressUserRequest:
        kind = queue_pb2.SUPPRESSION_KIND_DECEASED
        request = {"actor_id": "boss", "notes": "a letter", "request_id": str(uuid4())}
        return queue_pb2.SuppressUserRequest(kind=kind, **request, **given)  # type: ignore[arg-type]

    answer = await queue.stub.SuppressUser(asked(user_id=1))
    assert answer.call_state.reason == "DECEASED"
    await queue.stub.SuppressUser(asked(phone=HOME))
    listed = await queue.stub.ListSuppressions(queue_pb2.ListSuppressionsRequest(phone=HOME))
    assert [it.kind for it in listed.suppressions] == [queue_pb2.SUPPRESSION_KIND_OBJECTION]


@pytest.fixture
async def named(
    queue_url: str, redis_url: str, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[RunningQueue]:
    """A queue whose rules name a disposition."""
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    content["calling_hours"]["days"] = {
        day: {"from": "00:00", "until": "24:00"}
        for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    }
    named = {"code": "moved_abroad", "label": "Moved abroad", "outcome": "not_interested"}
    content["dispositions"] = [named]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(content))
    async with running_queue(queue_url, redis_url, clock=clock, rules_path=path) as running:
        yield running


async def test_a_disposition_has_the_effects_of_its_outcome_and_is_kept(
    named: RunningQueue,
) -> None:
    desk = Desk(named)
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    request = queue_pb2.RecordOutcomeRequest(
        assignment_id=held.assignment_id,
        agent_id="agent",
        disposition="moved_abroad",
        request_id=str(uuid4()),
    )
    answer = await named.stub.RecordOutcome(request)
    assert answer.call_state.last_outcome == NOT_INTERESTED
    assert answer.call_state == await desk.state(1)
    assert answer.call_state.recent_attempts[0].disposition == "moved_abroad"
    calls = await named.stub.ListCalls(queue_pb2.ListCallsRequest(user_id=1))
    assert [it.disposition for it in calls.calls] == ["moved_abroad"]
    stats = await desk.stats()
    assert [(it.code, it.calls) for it in stats.dispositions_today] == [("moved_abroad", 1)]
    assert [(it.outcome, it.calls) for it in stats.outcomes_today] == [(NOT_INTERESTED, 1)]
    assert [it.outcomes[0].calls for it in stats.agents_today] == [1]
    (noted,) = await desk.audit(action="OUTCOME_RECORDED")
    assert noted.details["disposition"] == "moved_abroad"
    told = await named.stub.GetReference(queue_pb2.GetReferenceRequest())
    assert [(it.code, it.label, it.outcome) for it in told.dispositions] == [
        ("moved_abroad", "Moved abroad", NOT_INTERESTED)
    ]
    other = queue_pb2.RecordOutcomeRequest(
        assignment_id=held.assignment_id,
        agent_id="agent",
        disposition="moved_in",
        request_id=str(uuid4()),
    )
    with pytest.raises(InvalidArgument) as refusal:
        await named.stub.RecordOutcome(other)
    assert refusal.value.reason == "DISPOSITION_UNKNOWN"
