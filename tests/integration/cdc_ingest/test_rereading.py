"""A message is not deleted for a reading that is older than its change."""

from typing import TYPE_CHECKING, Any

import pytest
from dialler.model.v1.facts_pb2 import ClaimFacts, UserFacts

if TYPE_CHECKING:
    from tests.integration.cdc_ingest.conftest import Bench

pytestmark = [pytest.mark.integration, pytest.mark.fault]

OPEN = {"id": 9, "user_id": 5, "status": "open", "lender": None}
MYSQL = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
ENDED = OPEN | {"status": "ended"}
CHECKED: dict[str, Any] = {"stale_patience_seconds": 60.0, "settle_seconds": 0.3}


def facts(status: str) -> UserFacts:
    return UserFacts(exists=True, claims=[ClaimFacts(claim_id=9, status=status)])


async def test_a_reading_that_is_older_than_its_message_is_repeated_soon(bench: "Bench") -> None:
    readings = bench.fakes.user_context.refreshes
    bench.fakes.user_context.people[5] = facts("open")
    await bench.send(bench.change("claims", ENDED, OPEN))
    async with bench.running(**CHECKED):
        await bench.until(lambda: len(readings) >= 3)
        assert await bench.depth() == 1, "not acknowledged"
        bench.fakes.user_context.people[5] = facts("ended")
        seen = len(readings)
        await bench.emptied()
    assert len(readings) <= seen + 2
    assert len(bench.fakes.queue.applied) == len(readings), "what was read is applied all the same"


async def test_a_replica_that_lags_sends_the_message_back_for_a_later_try(bench: "Bench") -> None:
    bench.fakes.user_context.people[5] = facts("open")
    await bench.send(bench.change("claims", ENDED, OPEN))
    async with bench.running(**CHECKED) as parts, bench.operator(parts) as operator:

        async def was_put_back() -> bool:
            return (await operator.status()).messages_retried > 0

        await bench.until_async(was_put_back, True)
        bench.fakes.user_context.people[5] = facts("ended")
        await bench.emptied()
        assert (await operator.status()).messages_dead == 0


async def test_a_reading_that_stays_older_is_dead_lettered_with_its_reason(bench: "Bench") -> None:
    bench.fakes.user_context.people[5] = facts("open")
    await bench.send(bench.change("claims", ENDED, OPEN))
    await bench.send(bench.change("users", {"id": 6}))
    async with bench.running(**CHECKED | {"stale_patience_seconds": 0.5}):
        (dead,) = await bench.dead_letters()
        await bench.emptied()
    assert dead["dead_reason"] == "READING_STALE"
    assert {5, 6} <= set(bench.fakes.queue.user_ids())


async def test_what_another_copy_saw_set_back_is_deleted_by_a_copy_that_did_not(
    bench: "Bench",
) -> None:
    """The bulk change of several claims, and no copy that has received what came after."""
    records = []
    for n in range(1, 61):
        row = {"id": n, "user_id": n, "lender": None}
        made = bench.change("claims", row | {"status": "ended"}, row | {"status": "open"})
        made["metadata"]["source-gtid"] = f"{MYSQL}:7"
        records.append(made)
        status = "open" if n % 2 else "ended"
        bench.fakes.user_context.people[n] = UserFacts(
            exists=True, claims=[ClaimFacts(claim_id=n, status=status)]
        )
    bench.fakes.user_context.executed_gtids = f"{MYSQL}:1-6"
    await bench.send(records)
    async with bench.running(**CHECKED) as parts, bench.operator(parts) as operator:

        async def was_put_back() -> bool:
            return (await operator.status()).messages_retried > 0

        await bench.until_async(was_put_back, True)
        bench.fakes.user_context.executed_gtids = f"{MYSQL}:1-8"
        await bench.emptied()
        assert (await operator.status()).messages_dead == 0
    assert await bench.depth(bench.queue.dlq_url) == 0


async def test_what_facts_do_not_show_is_read_twice_and_what_they_show_once(
    bench: "Bench",
) -> None:
    bench.fakes.user_context.people[5] = facts("ended")
    await bench.send(bench.change("users", {"id": 6, "last_login": "x"}, {"id": 6}))
    await bench.send(bench.change("claims", ENDED, OPEN))
    async with bench.running(**CHECKED) as parts, bench.operator(parts) as operator:
        await bench.emptied()
        status = await operator.status()
    readings = [each for batch in bench.fakes.user_context.refreshes for each in batch]
    assert sorted(readings) == [5, 6, 6]
    assert status.users_refreshed == 2, "a second reading is not another change"


async def test_bulk_that_facts_show_is_read_once(bench: "Bench") -> None:
    people = range(1, 1_201)
    records = []
    for n in people:
        row = {"id": n, "user_id": n, "lender": None}
        bench.fakes.user_context.people[n] = UserFacts(
            exists=True, claims=[ClaimFacts(claim_id=n, status="ended")]
        )
        records.append(bench.change("claims", row | {"status": "ended"}, row | {"status": "open"}))
    await bench.send(records)
    async with bench.running(**CHECKED):
        await bench.emptied()
    assert sorted(bench.fakes.queue.user_ids()) == list(people)


async def test_a_stop_gives_back_who_was_to_be_read_again(bench: "Bench") -> None:
    await bench.send(bench.change("users", {"id": 6}))
    async with bench.running(**CHECKED | {"settle_seconds": 60.0}, visibility_seconds=600):
        await bench.until(lambda: bench.fakes.queue.user_ids() == [6])
    await bench.seen_by_others()
