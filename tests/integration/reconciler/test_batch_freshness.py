"""Scheduled runs, also in place of change capture that is off or silent."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from dialler.reconciler.v1 import reconciler_pb2
from dialler.reconciler.v1.reconciler_pb2 import (
    FRESHNESS_MODE_BATCH,
    FRESHNESS_MODE_CHANGE_CAPTURE,
    RUN_KIND_CHANGED,
    RUN_KIND_FULL,
    RUN_KIND_HOUSEKEEPING,
    RUN_KIND_WARMING,
    RUN_STATE_SUCCEEDED,
)

from tests.fakes.user_context_rows import packed, person_rows

if TYPE_CHECKING:
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

    from tests.integration.reconciler.conftest import ReconcilerBench

pytestmark = pytest.mark.integration

NEVER = 1e6


async def _freshness(
    stub: "ReconcilerServiceAsyncStub",
) -> reconciler_pb2.GetFreshnessResponse:
    return await stub.GetFreshness(reconciler_pb2.GetFreshnessRequest())


async def _await_mode(
    bench: "ReconcilerBench",
    stub: "ReconcilerServiceAsyncStub",
    mode: reconciler_pb2.FreshnessMode.ValueType,
) -> reconciler_pb2.GetFreshnessResponse:
    async def is_in_mode() -> bool:
        return (await _freshness(stub)).mode == mode

    await bench.until_async(is_in_mode)
    return await _freshness(stub)


async def _runs(stub: "ReconcilerServiceAsyncStub") -> list[reconciler_pb2.Run]:
    request = reconciler_pb2.ListRunsRequest(page_size=100)
    return list((await stub.ListRuns(request)).runs)


async def test_each_kind_runs_on_its_schedule(bench: "ReconcilerBench") -> None:
    bench.fakes.apply_all_users()
    async with bench.running(
        full_every_seconds=0.3,
        changed_every_seconds=0.2,
        warming_every_seconds=0.2,
        housekeeping_every_seconds=0.2,
    ) as stub:

        async def have_all_run() -> bool:
            done = {run.kind for run in await _runs(stub) if run.state == RUN_STATE_SUCCEEDED}
            return done >= {
                RUN_KIND_FULL,
                RUN_KIND_CHANGED,
                RUN_KIND_WARMING,
                RUN_KIND_HOUSEKEEPING,
            }

        await bench.until_async(have_all_run)
        assert {run.reason for run in await _runs(stub)} == {"schedule, change_capture"}


async def test_with_capture_off_every_user_is_compared_again_and_again(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    async with bench.running(change_capture="off", batch_every_seconds=0.1) as stub:
        found = await _await_mode(bench, stub, FRESHNESS_MODE_BATCH)
        assert found.reason == "CAPTURE_OFF"
        fakes.user_context.people[3] = packed(person_rows(3, seed=1))
        await bench.until(lambda: fakes.queue.applied[3] == 1)
        runs = await _runs(stub)
    assert not sum(run.users_drifted for run in runs), "a difference is what is to be expected"


@pytest.mark.fault
async def test_silence_is_noticed_and_so_is_its_end(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    fakes.ingest.alive_at = datetime.now(UTC)
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target, silence_seconds=0.5, batch_every_seconds=0.2
    ) as stub:
        silent = await _await_mode(bench, stub, FRESHNESS_MODE_BATCH)
        assert silent.reason == "CAPTURE_SILENT"
        assert silent.capture_alive_at.ToDatetime(UTC) <= silent.since.ToDatetime(UTC)
        fakes.user_context.people[3] = packed(person_rows(3, seed=1))
        await bench.until(lambda: fakes.queue.applied[3] == 1)
        fakes.ingest.is_alive = True
        back = await _await_mode(bench, stub, FRESHNESS_MODE_CHANGE_CAPTURE)
        assert back.reason == ""

        async def is_gap_closed() -> bool:
            latest = (await _runs(stub))[0]
            is_for_it = latest.reason == "freshness: change capture is back"
            return is_for_it and latest.state == RUN_STATE_SUCCEEDED

        await bench.until_async(is_gap_closed)
        verified = (await _freshness(stub)).verified_at.ToDatetime(UTC)
        assert verified >= silent.since.ToDatetime(UTC)


@pytest.mark.fault
async def test_a_replica_that_takes_over_knows_the_mode(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    async with bench.running(change_capture="off", batch_every_seconds=NEVER) as stub:
        first = await _await_mode(bench, stub, FRESHNESS_MODE_BATCH)
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target, silence_seconds=NEVER, batch_every_seconds=NEVER
    ) as stub:
        assert (await _freshness(stub)).since == first.since
        # No replica has received a sign of change capture since.
        run = await bench.run(stub)
        assert run.state == RUN_STATE_SUCCEEDED
        assert (await _freshness(stub)).mode == FRESHNESS_MODE_BATCH
        fakes.ingest.alive_at = datetime.now(UTC) + timedelta(seconds=1)
        await _await_mode(bench, stub, FRESHNESS_MODE_CHANGE_CAPTURE)


@pytest.mark.fault
async def test_signs_from_different_futures_count_once(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target, silence_seconds=0.5, batch_every_seconds=0.2
    ) as stub:
        now = datetime.now(UTC)
        soon = now + timedelta(seconds=3)
        fakes.ingest.by_turns.extend((now + timedelta(hours=1), now + timedelta(hours=3), soon))
        silent = await _await_mode(bench, stub, FRESHNESS_MODE_BATCH)
        assert silent.reason == "CAPTURE_SILENT"

        async def is_past() -> bool:
            return datetime.now(UTC) > soon + timedelta(seconds=0.3)

        await bench.until_async(is_past)
        later = await _freshness(stub)
        assert (later.mode, later.since) == (FRESHNESS_MODE_BATCH, silent.since)
        fakes.ingest.is_alive = True
        await _await_mode(bench, stub, FRESHNESS_MODE_CHANGE_CAPTURE)


@pytest.mark.fault
async def test_a_sign_of_life_from_the_future_counts_once(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    fakes.ingest.alive_at = datetime.now(UTC) + timedelta(days=365)
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target, silence_seconds=0.5, batch_every_seconds=0.2
    ) as stub:
        silent = await _await_mode(bench, stub, FRESHNESS_MODE_BATCH)
        assert silent.reason == "CAPTURE_SILENT"
        assert silent.capture_alive_at.ToDatetime(UTC) <= datetime.now(UTC)
        fakes.ingest.is_alive = True
        await _await_mode(bench, stub, FRESHNESS_MODE_CHANGE_CAPTURE)
