"""From a message in SQS to people refreshed and applied."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.cdc_ingest.conftest import Bench

pytestmark = pytest.mark.integration

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_change_is_refreshed_applied_and_then_deleted(bench: "Bench") -> None:
    captured = datetime(2025, 6, 2, 9, 0, 1, 500_000, tzinfo=UTC)
    await bench.send(
        bench.change("users", {"id": 5}),
        traceparent=TRACEPARENT,
        captured_at_us=str(round(captured.timestamp() * 1e6)),
        committed_at_us=str(round(captured.timestamp() * 1e6) - 1_500_000),
    )
    async with bench.running():
        await bench.emptied()
    (applied,) = bench.fakes.queue.applied
    assert (applied.user_id, applied.version) == (5, 1)
    assert applied.timeline.captured_at.ToDatetime(tzinfo=UTC) == captured
    assert applied.timeline.committed_at.ToMilliseconds() % 60_000 == 0
    received_us = applied.timeline.received_at.ToMicroseconds()
    assert applied.timeline.refreshed_at.ToMicroseconds() >= received_us
    assert applied.traceparent is not None
    assert applied.traceparent.split("-")[1] == TRACEPARENT.split("-")[1]


async def test_nothing_is_deleted_before_both_calls(bench: "Bench") -> None:
    fakes = bench.fakes
    fakes.user_context.faults.gate.clear()
    fakes.queue.faults.gate.clear()
    await bench.send(bench.change("users", {"id": 5}))
    async with bench.running():
        await bench.until(lambda: fakes.user_context.faults.entered == 1)
        assert await bench.depth() == 1
        fakes.user_context.faults.gate.set()
        await bench.until(lambda: fakes.queue.faults.entered == 1)
        assert await bench.depth() == 1
        fakes.queue.faults.gate.set()
        await bench.emptied()


async def test_a_moved_claim_refreshes_both(bench: "Bench") -> None:
    await bench.send(bench.change("claims", {"id": 9, "user_id": 5}, {"id": 9, "user_id": 4}))
    async with bench.running():
        await bench.emptied()
    assert bench.fakes.user_context.refreshes == [[4, 5]]


async def test_a_requirement_is_found_through_its_claim(bench: "Bench") -> None:
    bench.fakes.user_context.owners[("claims", "9")] = 5
    await bench.send(
        [
            bench.change("claim_requirements", {"id": "r1", "claim_id": 9}),
            bench.change("claim_requirements", {"id": "r2", "claim_id": "9"}),
            bench.change("claim_requirements", {"id": "r3", "claim_id": 10}),
        ]
    )
    async with bench.running():
        await bench.emptied()
    (asked,) = bench.fakes.user_context.resolves
    assert sorted(asked) == [("claims", "10"), ("claims", "9")]
    assert bench.fakes.queue.user_ids() == [5], "a deleted parent leads to no person"


async def test_a_claim_in_the_same_batch_serves_its_requirements(bench: "Bench") -> None:
    await bench.send(bench.change("claim_requirements", {"id": "r", "claim_id": 9}))
    await bench.send(bench.change("claims", {"id": 9, "user_id": 5}, operation="insert"))
    async with bench.running(receivers=1):
        await bench.emptied()
    assert bench.fakes.user_context.resolves == []
    assert bench.fakes.queue.user_ids() == [5]


async def test_a_claim_deleted_with_its_children_refreshes_its_person(bench: "Bench") -> None:
    # InnoDB writes no events of the children.
    await bench.send(
        bench.change("claims", {"id": 9, "user_id": 5}, {"id": 9, "user_id": 5}, "delete")
    )
    async with bench.running():
        await bench.emptied()
    assert bench.fakes.queue.user_ids() == [5]


async def test_an_array_refreshes_every_person_in_it_once(bench: "Bench") -> None:
    await bench.send([bench.change("users", {"id": n % 40 + 1}) for n in range(200)])
    async with bench.running():
        await bench.emptied()
    assert bench.fakes.user_context.refreshes == [list(range(1, 41))]


async def test_many_messages_about_few_people_are_few_refreshes(bench: "Bench") -> None:
    faults = bench.fakes.user_context.faults
    faults.gate.clear()
    await bench.send(bench.change("users", {"id": 1}))
    async with bench.running(batches_in_flight=1) as parts, bench.operator(parts) as operator:
        await bench.until(lambda: faults.entered == 1)
        for number in range(60):
            await bench.send(bench.change("users", {"id": number % 6 + 1}))
        await bench.until_async(lambda: _received(operator), 61)
        faults.gate.set()
        await bench.emptied()
        status = await operator.status()
    assert bench.fakes.user_context.refreshes == [[1], [1, 2, 3, 4, 5, 6]]
    assert (status.messages_done, status.users_refreshed, status.records) == (61, 7, 61)


async def _received(operator: object) -> int:
    status = await operator.status()  # type: ignore[attr-defined]
    return int(status.messages_received)


async def test_more_people_than_a_batch_holds(bench: "Bench") -> None:
    await bench.send([bench.change("users", {"id": n}) for n in range(1, 1_301)])
    async with bench.running():
        await bench.emptied()
    assert sorted(map(len, bench.fakes.user_context.refreshes)) == [300, 500, 500]
    assert sorted(bench.fakes.queue.user_ids()) == list(range(1, 1_301))


async def test_a_small_change_overtakes_the_bulk(bench: "Bench") -> None:
    faults = bench.fakes.queue.faults
    faults.gate.clear()
    await bench.send([bench.change("users", {"id": n}) for n in range(1, 3_001)])
    async with bench.running(batches_in_flight=2):
        await bench.until(lambda: faults.entered == 1)
        await bench.send(bench.change("users", {"id": 9_999}))
        await bench.until(lambda: [9_999] in bench.fakes.user_context.refreshes)
        assert len(bench.fakes.user_context.refreshes) == 2
        faults.gate.set()
        await bench.emptied()


async def test_a_change_packed_behind_bulk_overtakes_it(bench: "Bench") -> None:
    records = [bench.change("users", {"id": n}) for n in [*range(1, 3_001), 9_999]]
    for number, record in enumerate(records):
        record["metadata"]["transaction-id"] = 1 if number < 3_000 else 2
    await bench.send(records)
    async with bench.running(batches_in_flight=2):
        await bench.emptied()
    # One place each: the first bulk batch begins at the same time.
    assert [9_999] in bench.fakes.user_context.refreshes[:2]
    assert len(bench.fakes.queue.applied) == 3_001


async def test_a_message_that_concerns_no_person_is_counted_and_deleted(bench: "Bench") -> None:
    await bench.send(bench.change("jobs", {"id": 5}))
    await bench.send({"metadata": {"record-type": "control", "operation": "create-table"}})
    async with bench.running() as parts, bench.operator(parts) as operator:
        await bench.emptied()
        status = await operator.status()
    assert (status.records, status.records_ignored, status.messages_done) == (2, 2, 2)
    assert bench.fakes.user_context.refreshes == []


@pytest.mark.parametrize("operation", ["truncate-table", "gap"])
async def test_losing_track_asks_for_a_full_run(bench: "Bench", operation: str) -> None:
    await bench.send(
        {
            "metadata": {
                "record-type": "control",
                "operation": operation,
                "table-name": "claims",
            }
        }
    )
    async with bench.running():
        await bench.emptied()
    assert bench.fakes.reconciler.reasons == [f"cdc_ingest: {operation} claims"]


async def test_losing_track_without_a_reconciler_is_told_and_done(bench: "Bench") -> None:
    await bench.send({"metadata": {"record-type": "control", "operation": "gap"}})
    async with bench.running(reconciler_target=None):
        await bench.emptied()


async def test_duplicates_and_any_order_are_harmless(bench: "Bench") -> None:
    bodies = [bench.change("users", {"id": n}) for n in (3, 1, 2)]
    for body in [*bodies, *reversed(bodies), *bodies]:
        await bench.send(body)
    async with bench.running():
        await bench.emptied()
    newest = {each.user_id: each.version for each in bench.fakes.queue.applied}
    assert set(newest) == {1, 2, 3}


async def test_pause_and_resume(bench: "Bench") -> None:
    async with bench.running() as parts, bench.operator(parts) as operator:
        await operator.pause()
        assert (await operator.status()).paused
        await bench.send(bench.change("users", {"id": 5}))
        # Whether or not a poll that was under way took it, it is there for others.
        await bench.seen_by_others()
        assert (await operator.status()).messages_done == 0
        assert bench.fakes.user_context.refreshes == []
        await operator.resume()
        await bench.emptied()
        assert not (await operator.status()).paused


async def test_a_pause_is_for_every_copy_and_outlives_a_restart(bench: "Bench") -> None:
    async with (
        bench.running() as one,
        bench.running() as another,
        bench.operator(one) as operator,
        bench.operator(another) as second,
    ):

        async def is_paused() -> bool:
            return (await second.status()).paused

        await operator.pause()
        await bench.until_async(is_paused, True)
    await bench.send(bench.change("users", {"id": 5}))
    async with bench.running() as parts, bench.operator(parts) as operator:
        assert (await operator.status()).paused
        await bench.seen_by_others()
        assert bench.fakes.user_context.refreshes == []
        await operator.resume()
        await bench.emptied()
    assert bench.fakes.queue.user_ids() == [5]


async def test_latency_is_from_capture_to_applied(bench: "Bench") -> None:
    captured_us = round((time.time() - 30.0) * 1e6)
    await bench.send(bench.change("users", {"id": 5}), captured_at_us=str(captured_us))
    async with bench.running() as parts, bench.operator(parts) as operator:
        await bench.emptied()
        status = await operator.status()
    assert status.change_latency.count == 1
    assert 30.0 <= status.change_latency.p50_seconds < 45.0
    assert status.last_captured_at.ToMicroseconds() == captured_us


async def test_a_lone_change_goes_through_at_once(bench: "Bench") -> None:
    took: list[float] = []
    async with bench.running():
        for user_id in range(1, 21):
            started = time.perf_counter()
            await bench.send(bench.change("users", {"id": user_id}))
            await bench.until(lambda wanted=user_id: wanted in bench.fakes.queue.user_ids())  # type: ignore[misc]
            took.append(time.perf_counter() - started)
    assert sorted(took)[10] < 0.25, took
