"""Dead letters are listed and sent again; too many of them raise an alarm."""

from typing import TYPE_CHECKING

import pytest

from servicekit.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from tests.integration.cdc_ingest.conftest import Bench, Operator

pytestmark = [pytest.mark.integration, pytest.mark.fault]

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _dead_letter_poison(bench: "Bench", operator: "Operator", people: range) -> None:
    """Have each of these people refused until all messages are dead-lettered."""
    bench.fakes.queue.faults.poison.update(people)
    for user_id in people:
        await bench.send(bench.change("users", {"id": user_id}), traceparent=TRACEPARENT)

    async def dead() -> int:
        return await bench.depth(bench.queue.dlq_url)

    await bench.until_async(dead, len(people))
    await bench.emptied()


async def test_what_is_dead_and_why(bench: "Bench") -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        await _dead_letter_poison(bench, operator, range(7, 8))
        await bench.send("no json")
        await bench.emptied()
        assert (await operator.dead_letters()).total == 2
        answer = await operator.dead_letters()
        assert answer.total == 2, "a search leaves the letters in the queue"
    found = {letter.reason: letter for letter in answer.dead_letters}
    assert set(found) == {"USER_POISONOUS", "BODY_NOT_JSON"}
    poison = found["USER_POISONOUS"]
    assert list(poison.concerns) == ["users/7"]
    assert poison.trace_id == TRACEPARENT.split("-")[1]
    assert poison.receive_count >= 1
    assert poison.first_seen_at.ToNanoseconds() <= poison.dead_lettered_at.ToNanoseconds()
    unread = found["BODY_NOT_JSON"]
    assert list(unread.concerns) == []
    assert len(unread.trace_id) == 32, "one that came without a trace gets one"
    assert unread.size_bytes == len("no json")


async def test_a_dry_run_sends_nothing(bench: "Bench") -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        await _dead_letter_poison(bench, operator, range(1, 31))
        answer = await operator.redrive(all=True, validate_only=True)
        assert (answer.matched, answer.sent, answer.complete) == (30, 0, True)
        assert len({letter.message_id for letter in answer.dead_letters}) == 30
        assert (await operator.dead_letters()).total == 30
        assert await bench.depth() == 0


async def test_one_some_or_all_are_sent_again(bench: "Bench") -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        await _dead_letter_poison(bench, operator, range(1, 31))
        await bench.send("no json")
        await bench.emptied()
        bench.fakes.queue.faults.poison.clear()
        letters = (await operator.dead_letters()).dead_letters
        chosen = {each.concerns[0]: each.message_id for each in letters if each.concerns}
        one = await operator.redrive(message_ids=[chosen["users/3"]])
        assert (one.matched, one.sent, one.failed) == (1, 1, 0)
        await bench.until(lambda: bench.fakes.queue.user_ids() == [3])
        some = await operator.redrive(message_ids=[chosen["users/4"], chosen["users/5"]])
        assert some.sent == 2
        by_reason = await operator.redrive(reason="USER_POISONOUS")
        assert (by_reason.sent, by_reason.complete) == (27, True)
        await bench.until(lambda: len(bench.fakes.queue.applied) == 30)
        # The cause of the last one is not repaired, so it is dead-lettered again.
        assert (await operator.redrive(all=True)).sent == 1
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert sorted(bench.fakes.queue.user_ids()) == list(range(1, 31))
    assert dead["body"] == "no json"


async def test_discarded_letters_are_gone_and_a_full_run_is_asked_for(bench: "Bench") -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        await _dead_letter_poison(bench, operator, range(1, 6))
        dry = await operator.discard(all=True, validate_only=True)
        assert (dry.matched, dry.discarded, dry.full_run_asked) == (5, 0, False)
        assert not bench.fakes.reconciler.reasons
        letters = (await operator.dead_letters()).dead_letters
        one = await operator.discard(message_ids=[letters[0].message_id])
        assert (one.matched, one.discarded, one.full_run_asked) == (1, 1, True)
        assert len(bench.fakes.reconciler.reasons) == 1
        rest = await operator.discard(reason="USER_POISONOUS")
        assert (rest.discarded, rest.complete) == (4, True)
        assert await bench.depth(bench.queue.dlq_url) == 0
        assert await bench.depth() == 0


async def test_nothing_is_discarded_while_no_full_run_can_be_asked_for(bench: "Bench") -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        await _dead_letter_poison(bench, operator, range(1, 3))
        bench.fakes.reconciler.faults.failure = Unavailable("GONE", "the reconciler is gone")
        with pytest.raises(Unavailable):
            await operator.discard(all=True)
        assert (await operator.dead_letters()).total == 2
        with pytest.raises(InvalidArgument, match="SELECTION_UNCLEAR"):
            await operator.discard()


async def test_sent_again_it_keeps_its_trace_and_when_it_was_first_seen(bench: "Bench") -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        await _dead_letter_poison(bench, operator, range(7, 8))
        (before,) = (await operator.dead_letters()).dead_letters
        await operator.redrive(message_ids=[before.message_id])
        await bench.until_async(lambda: _is_back(operator, before.message_id), True)
        (after,) = (await operator.dead_letters()).dead_letters
    assert after.message_id != before.message_id
    assert after.first_seen_at == before.first_seen_at
    assert after.trace_id == before.trace_id


async def _is_back(operator: "Operator", earlier: str) -> bool:
    letters = (await operator.dead_letters()).dead_letters
    return [each.message_id for each in letters] not in ([], [earlier])


@pytest.mark.parametrize("request_", [{}, {"all": True, "reason": "USER_POISONOUS"}])
async def test_an_unclear_selection_is_refused(bench: "Bench", request_: dict[str, object]) -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        with pytest.raises(InvalidArgument, match="SELECTION_UNCLEAR"):
            await operator.redrive(**request_)


async def test_entries_that_fail_to_be_sent_stay(bench: "Bench") -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        await _dead_letter_poison(bench, operator, range(1, 6))
        await bench.order_faults("SendMessageBatch", entries=2)
        bench.fakes.queue.faults.poison.clear()
        answer = await operator.redrive(all=True)
        assert answer.sent + answer.failed == answer.matched
        assert answer.failed == 2
        assert (await operator.redrive(all=True)).sent == 2
        await bench.until(lambda: len(bench.fakes.queue.applied) == 5)
    assert sorted(bench.fakes.queue.user_ids()) == [1, 2, 3, 4, 5]


async def test_too_many_dead_letters_close_the_receive_gate_until_an_operator_resumes(
    bench: "Bench",
) -> None:
    poison = range(1, 21)
    bench.fakes.queue.faults.poison.update(poison)
    for user_id in poison:
        await bench.send(bench.change("users", {"id": user_id}))
    async with (
        bench.running(dead_letters_per_minute=5) as parts,
        bench.operator(parts) as operator,
    ):

        async def is_alarmed() -> bool:
            return (await operator.status()).dead_letter_alarm

        await bench.until_async(is_alarmed, True)

        async def is_paused() -> bool:
            return (await operator.status()).paused

        await bench.until_async(is_paused, True)
        async with bench.running() as other, bench.operator(other) as second:
            assert (await second.status()).paused, "one replica's alarm stops them all"
        await bench.send(bench.change("users", {"id": 99}))
        await bench.seen_by_others()
        assert await bench.depth(bench.queue.dlq_url) <= 5
        assert 99 not in bench.fakes.queue.user_ids()
        bench.fakes.queue.faults.poison.clear()
        await operator.resume()
        assert not (await operator.status()).dead_letter_alarm
        await bench.emptied()
        assert (await operator.status()).messages_dead == 5
    assert len(set(bench.fakes.queue.user_ids())) == 16


async def test_fifo_queues_too(fifo_bench: "Bench") -> None:
    bench = fifo_bench
    bench.fakes.queue.faults.poison.add(7)
    for user_id in range(1, 31):
        change = bench.change("users", {"id": user_id})
        await bench.send(change, group=f"group-{user_id % 3}")
    async with bench.running() as parts, bench.operator(parts) as operator:
        await bench.emptied()
        assert set(bench.fakes.queue.user_ids()) == set(range(1, 31)) - {7}
        (letter,) = (await operator.dead_letters()).dead_letters
        assert list(letter.concerns) == ["users/7"]
        bench.fakes.queue.faults.poison.clear()
        assert (await operator.redrive(all=True)).sent == 1
        await bench.until(lambda: 7 in bench.fakes.queue.user_ids())
        await bench.emptied()


async def test_a_failure_in_a_fifo_group_holds_back_no_person_for_good(fifo_bench: "Bench") -> None:
    bench = fifo_bench
    bench.fakes.user_context.faults.broken.add(2)
    for user_id in range(1, 6):
        await bench.send(bench.change("users", {"id": user_id}), group="all")
    async with bench.running(max_receives=2) as parts, bench.operator(parts) as operator:
        await bench.emptied()
        assert (await operator.status()).messages_dead == 1
    assert set(bench.fakes.queue.user_ids()) == {1, 3, 4, 5}
