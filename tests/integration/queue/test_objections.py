"""An objection holds from the moment it was heard, whatever the lease, and falls only by itself."""

from datetime import timedelta
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound
from servicekit.event_stream import EventStream
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import give_phones, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
ASSIGNED = call_state_pb2.ENTRY_STATE_ASSIGNED
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
DO_NOT_CONTACT = call_state_pb2.OUTCOME_DO_NOT_CONTACT
NO_CLAIM = call_state_pb2.OUTCOME_NO_CLAIM
NO_ANSWER = call_state_pb2.OUTCOME_NO_ANSWER

PHONE = "+447700900777"
_STANDING = "SELECT count(*) FROM queue.suppressions WHERE lifted_at IS NULL"


async def _lost_to_another(desk: Desk, clock: FakeClock) -> queue_pb2.Assignment:
    """The first agent's lease has lapsed, and another agent holds the person."""
    await desk.fill(unsigned(1))
    lost = (await desk.claim("first")).assignment
    clock.advance(121)
    await desk.becomes(1, READY)
    assert (await desk.claim("second")).assignment.user_id == 1
    return lost


async def test_an_objection_heard_before_the_lease_lapsed_is_taken_and_the_holder_is_told(
    desk: Desk, clock: FakeClock, tables: Tables, stream: EventStream
) -> None:
    start = await stream.position()
    lost = await _lost_to_another(desk, clock)
    answer = await desk.record(lost, DO_NOT_CONTACT, notes="never again")
    # The agent who holds the person keeps the assignment, and is told at once.
    assert (answer.call_state.state, answer.call_state.reason) == (ASSIGNED, "DO_NOT_CONTACT")

    async def told() -> list[str]:
        read = await stream.read(start, block_seconds=0, count=100)
        return [
            event.agent_id
            for _, event in read
            if event.type == event_pb2.EVENT_TYPE_OBJECTION_RECORDED and event.user_id == 1
        ]

    assert await until(told, bool) == ["second"]
    await desk.release(await desk.current("second"))
    state = await desk.state(1)
    assert (state.state, state.reason) == (SUPPRESSED, "DO_NOT_CONTACT")
    assert (await desk.claim("third")).HasField("empty")
    assert await tables.value("SELECT notes FROM queue.suppressions") == "never again"
    assert "SUPPRESSED" in {it.action for it in await desk.audit(user_id=1)}


async def test_an_objection_is_taken_once_however_often_it_is_reported(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    lost = await _lost_to_another(desk, clock)
    key = str(uuid4())
    first = await desk.record(lost, DO_NOT_CONTACT, notes="no", request_id=key)
    assert await desk.record(lost, DO_NOT_CONTACT, notes="no", request_id=key) == first
    await desk.record(lost, DO_NOT_CONTACT, notes="no")
    assert await tables.value(_STANDING) == 1
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 1


@pytest.mark.parametrize("before", ["outcome", "release", "long ago", "forgotten"])
async def test_an_objection_is_taken_of_an_assignment_however_it_ended(
    desk: Desk, clock: FakeClock, tables: Tables, before: str
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    if before == "release":
        await desk.release(held)
    else:
        await desk.record(held, NO_ANSWER)
    if before == "long ago":
        clock.advance(timedelta(days=60))
    if before == "forgotten":
        await tables.rows("DELETE FROM queue.assignments")
    answer = await desk.record(held, DO_NOT_CONTACT, notes="heard it too late")
    assert (answer.call_state.state, answer.call_state.reason) == (SUPPRESSED, "DO_NOT_CONTACT")
    # What was reported of the call before stays.
    outcomes = await tables.rows("SELECT outcome FROM queue.attempts")
    assert [it[0] for it in outcomes] == ([] if before == "release" else [NO_ANSWER])


async def test_only_the_agents_own_assignments_and_only_with_notes(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    lost = await _lost_to_another(desk, clock)
    with pytest.raises(Conflict) as refusal:
        await desk.record(lost, DO_NOT_CONTACT, notes="x", agent_id="thief")
    assert refusal.value.reason == "ASSIGNMENT_NOT_YOURS"
    with pytest.raises(InvalidArgument) as missing:
        await desk.record(lost, DO_NOT_CONTACT)
    assert missing.value.reason == "NOTES_REQUIRED"
    # Any other outcome comes too late.
    with pytest.raises(Conflict):
        await desk.record(lost, NO_ANSWER)
    assert await tables.value(_STANDING) == 0


async def _suppress_phone(
    queue: RunningQueue, phone: str, request_id: str = ""
) -> queue_pb2.SuppressUserResponse:
    request = queue_pb2.SuppressUserRequest(
        phone=phone, actor_id="agent", notes="a stranger", request_id=request_id or str(uuid4())
    )
    return await queue.stub.SuppressUser(request)


async def test_an_objection_to_a_bare_number_stops_all_who_have_it_now_and_later(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(
        give_phones(unsigned(1), PHONE),
        give_phones(unsigned(2), "+447700900002", PHONE),
        unsigned(3),
    )
    key = str(uuid4())
    made = await _suppress_phone(queue, "07700 900777 (the neighbour)", key)
    assert await _suppress_phone(queue, "07700 900777 (the neighbour)", key) == made
    again = await _suppress_phone(queue, "+44 7700 900777")
    assert again.suppression_id == made.suppression_id
    for user_id in (1, 2):
        state = await desk.state(user_id)
        assert (state.state, state.reason) == (SUPPRESSED, "PHONE_SUPPRESSED")
    assert (await desk.claim("agent")).assignment.user_id == 3
    await desk.fill(give_phones(unsigned(4), PHONE))
    assert (await desk.state(4)).reason == "PHONE_SUPPRESSED"
    await desk.rebuild()
    assert (await desk.claim("other")).HasField("empty")

    listed = await queue.stub.ListSuppressions(queue_pb2.ListSuppressionsRequest(phone=PHONE))
    assert [(it.user_id, it.phone_e164) for it in listed.suppressions] == [(0, PHONE)]
    lift = queue_pb2.LiftSuppressionRequest(
        suppression_id=made.suppression_id,
        actor_id="boss",
        notes="a mistake",
        request_id=str(uuid4()),
    )
    await queue.stub.LiftSuppression(lift)
    assert [(await desk.state(it)).state for it in (1, 2, 4)] == [READY] * 3
    lift.request_id = str(uuid4())
    with pytest.raises(FailedPrecondition) as refusal:
        await queue.stub.LiftSuppression(lift)
    assert refusal.value.reason == "NOT_SUPPRESSED"


@pytest.mark.parametrize("phone", ["", "x", "07700 900777 or 07700 900778"])
async def test_a_bare_number_is_exactly_one(queue: RunningQueue, phone: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await _suppress_phone(queue, phone)
    assert refusal.value.reason in ("PHONE_NOT_VALID", "USER_ID_MISSING")


@pytest.mark.parametrize("path", ["event", "rebuild"])
async def test_an_objection_of_a_person_not_known_yet_waits_for_the_person(
    desk: Desk, queue: RunningQueue, path: str
) -> None:
    queue.main_app.put(give_phones(unsigned(5), PHONE), give_phones(unsigned(6), PHONE))
    await desk.suppress(5)
    with pytest.raises(NotFound):
        await desk.suppress(999)
    if path == "event":
        await desk.apply(5, 6)
    else:
        await desk.rebuild()
    assert (await desk.state(5)).reason == "DO_NOT_CONTACT"
    assert (await desk.state(6)).reason == "PHONE_SUPPRESSED"
    assert (await desk.claim("agent")).HasField("empty")


async def test_an_objection_is_taken_while_the_main_app_is_away(
    desk: Desk, queue: RunningQueue
) -> None:
    queue.main_app.put(unsigned(5))
    queue.main_app.is_unavailable = True
    await desk.suppress(5)
    queue.main_app.is_unavailable = False
    await desk.apply(5)
    assert (await desk.state(5)).reason == "DO_NOT_CONTACT"


async def _lift(
    queue: RunningQueue, what: queue_pb2.Lifted.ValueType = queue_pb2.LIFTED_UNSPECIFIED
) -> call_state_pb2.CallState:
    request = queue_pb2.LiftSuppressionRequest(
        user_id=1, actor_id="boss", notes="wrote", request_id=str(uuid4()), what=what
    )
    return (await queue.stub.LiftSuppression(request)).call_state


async def test_objection_no_claim_and_list_stand_and_fall_each_by_itself(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    await desk.import_phones(b"07700900001\n")
    await desk.import_phones(b"07700900099\n", is_complete=True)
    held = (await desk.claim("agent")).assignment
    await desk.suppress(1)
    # The agent's report during the same call takes nothing back.
    state = (await desk.record(held, NO_CLAIM)).call_state
    assert (state.state, state.reason) == (SUPPRESSED, "DO_NOT_CONTACT")
    await desk.import_phones(b"07700900001\n")
    failing = {it.rule for it in (await desk.explain(1)).rules if not it.is_passed}
    assert {"NOT_SUPPRESSED", "NO_CLAIM_NOT_REPORTED", "PHONE_NOT_LISTED"} <= failing
    with pytest.raises(FailedPrecondition) as refusal:
        await _lift(queue)
    assert refusal.value.reason == "SEVERAL_STAND"

    state = await _lift(queue, queue_pb2.LIFTED_NO_CLAIM)
    assert state.reason == "DO_NOT_CONTACT"
    assert await tables.value(_STANDING) == 1
    state = await _lift(queue)
    assert state.reason == "PHONE_LISTED"
    with pytest.raises(FailedPrecondition) as listed:
        await _lift(queue)
    assert listed.value.reason == "PHONE_SUPPRESSED"
    await desk.import_phones(b"07700900099\n", is_complete=True)
    assert (await desk.state(1)).state == READY
    actions = [it.action for it in await desk.audit(user_id=1)]
    assert {"NO_CLAIM_LIFTED", "SUPPRESSION_LIFTED"} <= set(actions)


async def test_lifting_an_objection_leaves_the_no_claim_mark(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    await desk.record((await desk.claim("agent")).assignment, NO_CLAIM)
    await desk.suppress(1)
    state = await _lift(queue, queue_pb2.LIFTED_OBJECTION)
    assert state.reason == "NO_CLAIM_REPORTED"
    assert (await _lift(queue)).state == READY


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_objection_stands_for_the_numbers_of_the_call_and_of_now(
    desk: Desk, clock: FakeClock, is_late: bool
) -> None:
    """The person's number was changed in the main app while the agent was on the phone."""
    other = "+447700900888"
    await desk.fill(give_phones(unsigned(1), PHONE))
    held = (await desk.claim("agent")).assignment
    await desk.fill(
        give_phones(unsigned(1), other),
        give_phones(unsigned(2), other),
        give_phones(unsigned(3), PHONE),
    )
    if is_late:
        clock.advance(timedelta(hours=2))
    await desk.record(held, DO_NOT_CONTACT, notes="no")
    assert [(await desk.state(it)).reason for it in (2, 3)] == ["PHONE_SUPPRESSED"] * 2
    assert (await desk.claim("other")).HasField("empty")


async def test_an_objection_taken_without_numbers_stands_for_them_once_they_are_known(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(give_phones(unsigned(6), PHONE))
    queue.main_app.put(give_phones(unsigned(5), PHONE))
    queue.main_app.is_unavailable = True
    await desk.suppress(5)
    queue.main_app.is_unavailable = False
    await desk.apply(5)
    state = await until(lambda: desk.state(6), lambda it: it.state == SUPPRESSED)
    assert state.reason == "PHONE_SUPPRESSED"


async def test_a_holder_is_told_when_the_person_gets_a_number_that_is_objected_to(
    desk: Desk, queue: RunningQueue, stream: EventStream
) -> None:
    await _suppress_phone(queue, PHONE)
    await desk.fill(unsigned(1))
    start = await stream.position()
    await desk.claim("agent")
    await desk.fill(give_phones(unsigned(1), PHONE))

    async def told() -> list[str]:
        read = await stream.read(start, block_seconds=0, count=100)
        kind = event_pb2.EVENT_TYPE_OBJECTION_RECORDED
        return [event.agent_id for _, event in read if event.type == kind]

    assert await until(told, bool) == ["agent"]
