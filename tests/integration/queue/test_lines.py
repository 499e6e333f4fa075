"""Several numbers a person, several people a number: what counts is the line."""

from datetime import timedelta

import pytest
from dialler.model.v1 import call_state_pb2, facts_pb2
from dialler.queue.v1 import queue_pb2

from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import give_phones, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
OUT = call_state_pb2.ENTRY_STATE_OUT
DAILY_CAP = call_state_pb2.HOLD_DAILY_CAP
NO_ANSWER = call_state_pb2.OUTCOME_NO_ANSWER
MISSED_CALL = call_state_pb2.OUTCOME_MISSED_CALL
HUNG_UP = call_state_pb2.OUTCOME_HUNG_UP

HOME = "+442079460018"


def _with(user_id: int, *phones: str) -> facts_pb2.UserFacts:
    return give_phones(unsigned(user_id), *phones)


async def test_every_number_of_a_person_counts_for_objections_and_lists(desk: Desk) -> None:
    await desk.fill(
        unsigned(1), _with(2, "+447700900002", "+447700900001"), _with(3, "+447700900003", HOME)
    )
    await desk.suppress(1)
    assert (await desk.state(2)).reason == "PHONE_SUPPRESSED"
    await desk.import_phones(b"020 7946 0018 (home)\n")
    assert (await desk.state(3)).reason == "PHONE_LISTED"
    assert (await desk.claim("agent")).HasField("empty")
    # The second number of one who objects stops others, too.
    await desk.fill(_with(4, "+447700900004", "+447700900044"), _with(5, "+447700900044"))
    await desk.suppress(4)
    assert (await desk.state(5)).reason == "PHONE_SUPPRESSED"


async def test_people_whose_second_numbers_meet_are_never_on_the_phone_at_a_time(
    desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(_with(1, "+447700900001", HOME), _with(2, "+447700900002", HOME))
    held = (await desk.claim("ben")).assignment
    assert held.user_id == 2
    assert (await desk.claim("cat")).HasField("empty")
    await desk.record(held, HUNG_UP)
    state = await desk.state(1)
    assert (state.state, state.hold) == (WAITING, call_state_pb2.HOLD_SHARED_PHONE)
    clock.advance(timedelta(hours=2))
    await desk.becomes(1, READY)
    assert (await desk.claim("cat")).assignment.user_id == 1


async def test_a_line_is_called_as_often_a_day_as_a_person(
    desk: Desk, clock: FakeClock, tables: Tables
) -> None:
    """One person registered twice."""
    await desk.fill(_with(1, HOME), _with(2, HOME))
    called = []
    for _ in range(3):
        held = (await desk.claim("agent")).assignment
        called.append(held.user_id)
        await desk.record(held, NO_ANSWER)
        clock.advance(timedelta(hours=2))
        await until(desk.stats, lambda it: it.queues[0].ready > 0 or len(called) == 3)
    assert sorted(set(called)) == [1, 2]
    for user_id in (1, 2):
        state = await desk.state(user_id)
        assert (state.state, state.hold) == (WAITING, DAILY_CAP)
    explained = {it.rule: it for it in (await desk.explain(1)).rules}
    assert not explained["DAILY_CAP"].is_passed
    assert explained["DAILY_CAP"].inputs["calls_on_a_line"] == "3"
    # Another person who gets the number is capped as well.
    await desk.fill(_with(3, HOME))
    assert (await desk.state(3)).hold == DAILY_CAP
    # One who gives the number up is free of the line's calls, not of the person's.
    await desk.fill(_with(3, "+447700900003"))
    assert (await desk.state(3)).state == READY


async def test_the_period_counts_by_line_too(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(_with(1, HOME), _with(2, HOME))
    made = 0
    for _ in range(60):
        answer = await desk.claim("agent")
        if answer.HasField("assignment"):
            made += 1
            await desk.record(answer.assignment, NO_ANSWER)
        clock.advance(timedelta(hours=5))
        await desk.rebuild()
        if clock.now().day >= 26:
            break
    assert made == 10
    assert {(await desk.state(it)).hold for it in (1, 2)} == {call_state_pb2.HOLD_PERIOD_CAP}


async def test_a_person_without_a_number_is_not_offered_and_is_listed(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(_with(1), unsigned(2))
    state = await desk.state(1)
    assert (state.state, state.reason) == (OUT, "NO_CALLABLE_NUMBER")
    # A number that is removed in MySQL is removed here, and one that comes back counts again.
    await desk.fill(_with(2))
    assert (await desk.state(2)).reason == "NO_CALLABLE_NUMBER"
    assert (await desk.claim("agent")).HasField("empty")
    blocked = (await desk.stats()).queues[0].blocked
    assert [(it.reason, it.people) for it in blocked] == [("NO_CALLABLE_NUMBER", 2)]
    listed = await queue.stub.ListEntries(
        queue_pb2.ListEntriesRequest(
            queue=call_state_pb2.QUEUE_UNSIGNED_USERS, state=OUT, reason="NO_CALLABLE_NUMBER"
        )
    )
    assert [it.user_id for it in listed.entries] == [2, 1]
    explained = await desk.explain(1)
    assert "CALLABLE_NUMBER" in {it.rule for it in explained.rules if not it.is_passed}
    await desk.fill(unsigned(2))
    assert (await desk.claim("agent")).assignment.user_id == 2


async def test_a_number_that_the_live_check_does_not_find_any_more_is_not_called(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.put(_with(1))
    assert (await desk.claim("agent")).HasField("empty")
    assert (await desk.state(1)).reason == "NO_CALLABLE_NUMBER"


async def test_facts_of_an_older_release_are_no_lack_of_numbers(
    desk: Desk, queue: RunningQueue
) -> None:
    facts = unsigned(1)
    facts.ClearField("phones")
    await desk.fill(facts)
    assert (await desk.claim("agent")).assignment.user_id == 1


@pytest.mark.parametrize("path", ["one by one", "together", "rebuild"])
async def test_a_number_of_too_many_people_counts_as_none(
    desk: Desk, queue: RunningQueue, tables: Tables, path: str
) -> None:
    people = [_with(user_id, HOME) for user_id in range(1, 21)]
    own = _with(21, "+447700900021", HOME)
    if path == "one by one":
        for facts in (*people, own):
            await desk.fill(facts)
    elif path == "together":
        await desk.fill(*people, own)
    else:
        queue.main_app.put(*people, own)
        await desk.rebuild()

    async def offered() -> set[int]:
        states = [await desk.state(it) for it in range(1, 22)]
        return {it.user_id for it in states if it.reason != "NO_CALLABLE_NUMBER"}

    assert await until(offered, lambda it: it == {21}) == {21}
    # A call to the person's own number is none of the others'.
    before = await tables.rows(
        "SELECT user_id, state_version FROM queue.entries WHERE user_id < 21"
    )
    held = (await desk.claim("agent")).assignment
    assert held.user_id == 21
    await desk.record(held, NO_ANSWER)
    after = await tables.rows("SELECT user_id, state_version FROM queue.entries WHERE user_id < 21")
    assert sorted(after) == sorted(before)
    # With one person less the number counts again, for the twenty who have it.
    await desk.fill(_with(21, "+447700900021"))
    assert await until(offered, lambda it: len(it) == 21)
    found = await queue.stub.FindUsersByPhone(
        queue_pb2.FindUsersByPhoneRequest(phone_e164=HOME, limit=50)
    )
    assert len(found.user_ids) == 20


async def test_a_number_that_one_person_leaves_as_another_comes_has_as_many_people_as_before(
    desk: Desk, tables: Tables
) -> None:
    await desk.fill(*(_with(user_id, HOME) for user_id in range(1, 21)), _with(21))
    await desk.fill(_with(20), _with(21, HOME))
    assert await tables.value("SELECT count(*) FROM queue.placeholder_phones") == 0
    await desk.fill(_with(20, HOME))
    assert await tables.value("SELECT count(*) FROM queue.placeholder_phones") == 1
    await desk.fill(_with(1), _with(2), _with(22, HOME))
    assert await tables.value("SELECT count(*) FROM queue.placeholder_phones") == 0
    assert await tables.value("SELECT count(*) FROM queue.person_phones") == 20


async def test_two_transactions_that_make_a_placeholder_together_are_found_out(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(*(_with(user_id, HOME) for user_id in range(1, 23)))
    await tables.rows("DELETE FROM queue.placeholder_phones")
    await queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())
    assert await tables.value("SELECT count(*) FROM queue.placeholder_phones") == 1
