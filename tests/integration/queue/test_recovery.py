"""What a restore has lost is entered again from the log, and no person is called twice for it."""

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from devstack.postgres_database import PostgresDatabase
from devstack.servers import PostgreSQL
from servicekit.logs import JsonFormatter
from servicekit.migrations import upgrade
from services.queue.app import recovering
from services.queue.maintenance.recovery import Recovered, deeds_in, objections_in
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import done, give_phones, outstanding, unsigned
from tests.integration.queue.bench import Desk

pytestmark = pytest.mark.integration

PEOPLE = range(1, 8)
OBJECTION = call_state_pb2.OUTCOME_DO_NOT_CONTACT


@pytest.fixture
async def restored(
    postgres: PostgreSQL, redis_url: str, queue: RunningQueue, clock: FakeClock
) -> AsyncIterator[RunningQueue]:
    """A queue that knows all people and nothing of what agents did, as if restored."""
    database = PostgresDatabase.create(postgres)
    await upgrade(database.url, package="services.queue", schema="queue")
    async with running_queue(
        database.url, redis_url, clock=clock, main_app=queue.main_app
    ) as running:
        await Desk(running).apply(*PEOPLE)
        yield running
    database.drop()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "services.queue.store.audit")
    return caplog


async def _recover(
    restored: RunningQueue, clock: FakeClock, log: pytest.LogCaptureFixture
) -> Recovered:
    formatter = JsonFormatter("queue", lambda: None)
    lines = [f"queue-7f9c | {formatter.format(record)}" for record in log.records]
    async with recovering(restored.settings, clock) as recovery:
        return await recovery.run(deeds_in(["no JSON", '{"event":"audit"}', *lines]))


@pytest.fixture
async def desk(queue: RunningQueue) -> Desk:
    """The desk of the queue whose database is to be lost, which knows all people."""
    desk = Desk(queue)
    await desk.fill(*(unsigned(user_id) for user_id in PEOPLE))
    return desk


async def test_calls_outcomes_and_objections_are_entered_again(
    desk: Desk, restored: RunningQueue, clock: FakeClock, log: pytest.LogCaptureFixture
) -> None:
    calls = [(await desk.claim(f"agent-{number}")).assignment for number in range(5)]
    unanswered, agreed, objecting, unreported, released = calls
    callback_at = clock.now() + timedelta(hours=3)
    await desk.record(unanswered, call_state_pb2.OUTCOME_NO_ANSWER)
    await desk.record(agreed, call_state_pb2.OUTCOME_CALL_BACK, callback_at=callback_at)
    await desk.record(objecting, OBJECTION, notes="never again")
    await desk.release(released)
    await desk.suppress(2)
    clock.advance(600)

    recovered = await _recover(restored, clock, log)
    assert (recovered.calls, recovered.outcomes, recovered.objections) == (4, 3, 1)
    assert (recovered.known, recovered.by_hand) == (0, [])
    after = Desk(restored)
    states = {it.user_id: await after.state(it.user_id) for it in calls}
    assert states[unanswered.user_id].last_outcome == call_state_pb2.OUTCOME_NO_ANSWER
    assert states[unanswered.user_id].attempts == 1
    (callback,) = await after.callbacks()
    assert callback.user_id == agreed.user_id
    assert callback.scheduled_for.ToDatetime(clock.now().tzinfo) == callback_at
    assert states[objecting.user_id].reason == "DO_NOT_CONTACT"
    assert (await after.state(2)).reason == "DO_NOT_CONTACT"
    assert states[unreported.user_id].hold == call_state_pb2.HOLD_UNREPORTED_CALL
    assert states[released.user_id].state == call_state_pb2.ENTRY_STATE_READY

    # Only people whom no agent called are handed out ...
    given = [await after.claim(f"agent-{number}") for number in range(4)]
    called = {it.user_id for it in calls if it is not released} | {2}
    handed_out = {it.assignment.user_id for it in given if it.HasField("assignment")}
    assert handed_out == set(PEOPLE) - called
    # ... and the agent who was cut off reports the call late.
    answer = await after.record(unreported, call_state_pb2.OUTCOME_MIGHT_COMPLETE)
    assert answer.call_state.last_outcome == call_state_pb2.OUTCOME_MIGHT_COMPLETE


async def test_a_case_opened_in_the_lost_time_does_not_begin_afresh_after_its_call(
    desk: Desk, restored: RunningQueue, clock: FakeClock, log: pytest.LogCaptureFixture
) -> None:
    """The restored queue knows the person as one with nothing outstanding."""
    after, person = Desk(restored), 50
    await after.fill(done(person))
    await desk.fill(outstanding(person))
    claimed = [await desk.claim(f"agent-{it}") for it in range(len(PEOPLE) + 1)]
    (held,) = [it.assignment for it in claimed if it.assignment.user_id == person]
    await desk.record(held, call_state_pb2.OUTCOME_MIGHT_COMPLETE)
    clock.advance(60)
    assert (await _recover(restored, clock, log)).outcomes == 1
    await after.apply(person)
    assert (await after.state(person)).state == call_state_pb2.ENTRY_STATE_WAITING


async def test_a_repeat_enters_nothing_twice(
    desk: Desk, restored: RunningQueue, clock: FakeClock, log: pytest.LogCaptureFixture
) -> None:
    held = (await desk.claim("agent")).assignment
    await desk.record(held, call_state_pb2.OUTCOME_NO_ANSWER)
    assert (await _recover(restored, clock, log)).calls == 1
    again = await _recover(restored, clock, log)
    assert (again.calls, again.outcomes, again.by_hand) == (0, 0, [])
    assert (await Desk(restored).state(held.user_id)).attempts == 1


async def test_what_the_log_cannot_tell_in_full_is_left_to_people(
    queue: RunningQueue,
    desk: Desk,
    restored: RunningQueue,
    clock: FakeClock,
    log: pytest.LogCaptureFixture,
) -> None:
    number = queue_pb2.SuppressUserRequest(
        phone="+447700900999",
        actor_id="boss",
        notes="wrote to us",
        request_id="7d9c1a52-7b0c-4a5a-9d35-0d4f0f1a9b11",
    )
    await queue.stub.SuppressUser(number)
    await desk.schedule(3, clock.now() + timedelta(hours=2))
    recovered = await _recover(restored, clock, log)
    assert [(it.action, reason) for it, reason in recovered.by_hand] == [
        ("SUPPRESSED", "ENTER_BY_HAND"),
        ("CALLBACK_SCHEDULED", "ENTER_BY_HAND"),
    ]
    assert "7700900999" not in log.text


async def test_objections_are_entered_again_from_an_export(
    queue: RunningQueue,
    desk: Desk,
    restored: RunningQueue,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the numbers of then, which their people may have changed since; a repeat is harmless."""
    # So that there are several messages.
    monkeypatch.setattr("services.queue.calls.suppressions._EXPORTED_AT_ONCE", 1)
    await desk.suppress(1)
    clock.advance(1)
    await queue.stub.SuppressUser(
        queue_pb2.SuppressUserRequest(
            phone="07700 900002", actor_id="boss", notes="by letter", request_id=str(uuid4())
        )
    )
    await desk.suppress(3)
    await desk.lift(3)
    call = queue.stub.ExportObjections(queue_pb2.ExportObjectionsRequest(actor_id="boss"))
    exported = [it async for part in call for it in part.objections]
    assert [(it.suppression.user_id, list(it.phones)) for it in exported] == [
        (0, ["+447700900002"]),
        (1, ["+447700900001"]),
    ]
    entries = await queue.stub.ListAuditEntries(queue_pb2.ListAuditEntriesRequest(actor_id="boss"))
    assert "OBJECTIONS_EXPORTED" in {it.action for it in entries.entries}

    lines = ["suppression_id,user_id,phone,created_by,created_at,notes"]
    for it in exported:
        made = it.suppression
        cells = (made.suppression_id, made.user_id or "", it.phones[0], made.created_by, "", "note")
        lines.append(",".join(map(str, cells)))
    after = Desk(restored)
    # Person 1 has another number by now, and a person of later has the old one.
    facts = [give_phones(unsigned(1), "+447700900101"), give_phones(unsigned(9), "+447700900001")]
    await after.fill(*facts)
    for _ in range(2):
        async with recovering(restored.settings, clock) as recovery:
            assert await recovery.enter_objections(objections_in(lines)) == []
    reasons = {it: (await after.state(it)).reason for it in (1, 2, 3, 9)}
    assert reasons == {
        1: "DO_NOT_CONTACT",
        2: "PHONE_SUPPRESSED",
        3: "NO_SIGNATURE",
        9: "PHONE_SUPPRESSED",
    }


def test_what_is_no_export_is_refused() -> None:
    with pytest.raises(ValueError, match="not an export"):
        objections_in(["phone", "07700 900001"])
