"""People by number, the calls of one, and the rules a desk is told."""

from collections.abc import AsyncIterator

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import InvalidArgument
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import give_phones, unsigned
from tests.integration.queue.bench import Desk

pytestmark = pytest.mark.integration

PHONE = "+447700900123"


async def test_all_users_with_a_number_are_found(desk: Desk, queue: RunningQueue) -> None:
    people = [unsigned(user_id) for user_id in (1, 2, 3)]
    give_phones(people[0], PHONE)
    give_phones(people[2], PHONE)
    give_phones(people[1], "+447700900124")
    await desk.fill(*people)
    request = queue_pb2.FindUsersByPhoneRequest(phone_e164=PHONE)
    assert list((await queue.stub.FindUsersByPhone(request)).user_ids) == [3, 1]
    request.limit = 1
    assert list((await queue.stub.FindUsersByPhone(request)).user_ids) == [3]


@pytest.mark.parametrize("phone", ["", "07700 900123", "+44", "+44 7700 900123", "x"])
async def test_only_whole_numbers_in_one_form_are_looked_up(
    queue: RunningQueue, phone: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await queue.stub.FindUsersByPhone(queue_pb2.FindUsersByPhoneRequest(phone_e164=phone))
    assert refusal.value.reason == "PHONE_NOT_VALID"


async def test_calls_come_page_by_page_the_latest_first(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(7))
    for number in range(3):
        held = await desk.claim("agent")
        notes = f"call {number}"
        await desk.record(
            held.assignment, call_state_pb2.OUTCOME_NO_ANSWER, agent_id="agent", notes=notes
        )
        clock.advance(24 * 3600)
        await desk.becomes(7, call_state_pb2.ENTRY_STATE_READY)
    first = await queue.stub.ListCalls(queue_pb2.ListCallsRequest(user_id=7, page_size=2))
    token = first.next_page_token
    request = queue_pb2.ListCallsRequest(user_id=7, page_size=2, page_token=token)
    last = await queue.stub.ListCalls(request)
    calls = [*first.calls, *last.calls]
    assert [it.notes for it in calls] == ["call 2", "call 1", "call 0"]
    assert {it.agent_id for it in calls} == {"agent"}
    assert calls[0].queue == call_state_pb2.QUEUE_UNSIGNED_USERS
    assert calls[0].outcome == call_state_pb2.OUTCOME_NO_ANSWER
    assert not calls[0].HasField("callback_at")
    assert last.next_page_token == ""
    other = queue_pb2.ListCallsRequest(user_id=8, page_token=token)
    with pytest.raises(InvalidArgument):
        await queue.stub.ListCalls(other)


async def test_the_rules_are_told_as_they_are_in_force(queue: RunningQueue) -> None:
    told = await queue.stub.GetReference(queue_pb2.GetReferenceRequest())
    rules = {it.outcome: it for it in told.outcomes}
    assert len(rules) == 16
    do_not = rules[call_state_pb2.OUTCOME_DO_NOT_CONTACT]
    assert (do_not.notes_required, do_not.stops_calls) == (True, True)
    assert not do_not.HasField("next_call_hours")
    missed = rules[call_state_pb2.OUTCOME_MISSED_CALL]
    assert missed.callback == queue_pb2.CALLBACK_RULE_IMMEDIATE
    assert missed.HasField("next_call_hours")
    assert missed.next_call_hours == 0
    assert missed.HasField("sets_score")
    assert not missed.HasField("adds_points")
    assert [it for it in rules if rules[it].holds_number] == [call_state_pb2.OUTCOME_BAD_NUMBER]
    assert rules[call_state_pb2.OUTCOME_WRONG_PERSON].until_phone_changes
    assert told.callback_longest_days == 365
    assert "NO_SIGNATURE" in told.reasons
    assert "SUPPRESSED" in told.actions
    assert len(told.rules_hash) == 32


async def test_a_list_whose_sender_goes_away_is_not_taken_over(queue: RunningQueue) -> None:
    """To the one who reads it, a stream that is cut off can look like one that has ended."""

    async def sent(*, is_ended: bool) -> AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest]:
        yield queue_pb2.ImportSuppressedPhonesRequest(
            list_name="tps", actor_id="supervisor", is_complete=True, must_end=True
        )
        yield queue_pb2.ImportSuppressedPhonesRequest(csv=f"{PHONE}\n".encode())
        if is_ended:
            yield queue_pb2.ImportSuppressedPhonesRequest(is_last=True)

    with pytest.raises(InvalidArgument) as refusal:
        await queue.stub.ImportSuppressedPhones(sent(is_ended=False))
    assert refusal.value.reason == "LIST_TRUNCATED"
    taken = await queue.stub.ImportSuppressedPhones(sent(is_ended=True))
    assert taken.added == 1
