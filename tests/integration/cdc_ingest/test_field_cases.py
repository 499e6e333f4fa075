"""Messages met in the field are not lost, dead-lettered or misread."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from dialler.model.v1.facts_pb2 import ClaimFacts, UserFacts

from tests.fakes import waiting
from tests.unit.cdc_ingest.wrappings import OF_DOCUMENTS, OF_TEXTS, RECORDS, kinesis_of

if TYPE_CHECKING:
    from tests.integration.cdc_ingest.conftest import Bench

pytestmark = [pytest.mark.integration, pytest.mark.fault]

CHECKED: dict[str, Any] = {"stale_patience_seconds": 600.0, "settle_seconds": 0.3}
# SQS takes no control characters but tab and line breaks.
WRAPPINGS = {
    name: wrap for name, wrap in (OF_DOCUMENTS | OF_TEXTS).items() if "sequence" not in name
}


async def test_the_person_is_refreshed_whatever_the_record_is_wrapped_in(bench: "Bench") -> None:
    wanted: set[int] = set()
    for record in RECORDS.values():
        for wrap in WRAPPINGS.values():
            user_id = len(wanted) + 1
            wanted.add(user_id)
            await bench.send(wrap(json.dumps(record(user_id))))
    async with bench.running() as parts, bench.operator(parts) as operator:
        await bench.emptied()
        status = await operator.status()
    assert set(bench.fakes.queue.user_ids()) == wanted
    assert (status.messages_dead, bench.fakes.reconciler.reasons) == (0, [])


async def test_rows_without_an_owner_never_stop_the_capture(bench: "Bench") -> None:
    for number in range(12):
        address = {"id": str(uuid.uuid4()), "user_id": -number}
        await bench.send(bench.change("user_addresses", address, operation="insert"))
        await bench.send(kinesis_of(b""))
        orphan = {"id": f"r{number}", "claim_id": 900 + number, "type": "id", "status": "PENDING"}
        await bench.send(bench.change("claim_requirements", orphan, operation="insert"))
    await bench.send(bench.change("users", {"id": 5}))
    async with (
        bench.running(dead_letters_per_minute=1, **CHECKED) as parts,
        bench.operator(parts) as operator,
    ):
        await bench.emptied()
        status = await operator.status()
    assert (status.messages_dead, status.dead_letter_alarm) == (0, False)
    assert status.records_ignored == 24
    assert set(bench.fakes.queue.user_ids()) == {5}


async def test_no_owner_in_a_signed_column_that_debezium_wrote_is_no_fault(bench: "Bench") -> None:
    # The queue holds no such id, and says so.
    bench.fakes.queue.faults.poison = {2**64 - 1}
    bench.fakes.user_context.people[2**64 - 1] = UserFacts(exists=False)
    source = {"db": "mainapp", "table": "user_addresses"}
    for owner in (-1, 5):
        row = {"id": f"a{owner}", "user_id": owner}
        await bench.send({"op": "c", "before": None, "after": row, "source": source})
    async with bench.running() as parts, bench.operator(parts) as operator:
        await bench.emptied()
        assert (await operator.status()).messages_dead == 0
    assert bench.fakes.queue.user_ids() == [5]


async def test_a_batch_that_was_given_up_elsewhere_asks_for_a_full_run(bench: "Bench") -> None:
    context = {"partnerResourceArn": "arn", "condition": "RetryAttemptsExhausted"}
    await bench.send({"version": "1.0", "context": context, "KinesisBatchInfo": {"batchSize": 9}})
    async with bench.running():
        await bench.emptied()
    assert bench.fakes.reconciler.reasons == ["cdc_ingest: batch-given-up"]


async def test_a_record_of_2099_vouches_for_nothing_and_shows(bench: "Bench") -> None:
    far = bench.change("users", {"id": 5})
    far["metadata"]["timestamp"] = "2099-01-01T00:00:00.000000Z"
    await bench.send(far)
    async with bench.running() as parts, bench.operator(parts) as operator:
        await bench.emptied()
        status = await operator.status()
    bound = datetime.now(UTC) + timedelta(seconds=1)
    for told in (status.capture_alive_at, status.applied_through, status.last_captured_at):
        assert told.ToDatetime(tzinfo=UTC) <= bound
    assert status.capture_ahead_seconds > 86_400 * 365
    timeline = bench.fakes.queue.applied[0].timeline
    assert timeline.captured_at.ToDatetime(tzinfo=UTC) <= bound


def _claim(status: str) -> dict[str, Any]:
    return {"id": 9, "user_id": 5, "status": status, "lender": None}


def _maxwell(kind: str, data: dict[str, Any], xid: int, **old: str) -> dict[str, Any]:
    made = {"database": "mainapp", "table": "claims", "type": kind, "ts": 1_748_854_800}
    made |= {"xid": xid, "commit": True, "data": data}
    return made | ({"old": old} if old else {})


@pytest.mark.parametrize(
    ("bodies", "claims"),
    [
        ([_maxwell("insert", _claim("open"), 1), _maxwell("delete", _claim("open"), 2)], []),
        (
            [
                _maxwell("update", _claim("checking"), 1, status="open"),
                _maxwell("update", _claim("open"), 2, status="checking"),
            ],
            [ClaimFacts(claim_id=9, status="open")],
        ),
    ],
    ids=["put in and taken out", "there and back"],
)
async def test_changes_of_one_moment_that_undo_each_other_are_done_soon(
    bench: "Bench", bodies: list[dict[str, Any]], claims: list[ClaimFacts]
) -> None:
    bench.fakes.user_context.people[5] = UserFacts(exists=True, claims=claims)
    async with bench.running(**CHECKED) as parts, bench.operator(parts) as operator:
        for body in bodies:
            await bench.send(body)
        async with waiting.limit(10):
            await bench.emptied()
        assert (await operator.status()).messages_dead == 0
