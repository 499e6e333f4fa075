"""Every kind of silent damage is found, reported and repaired; no other user is touched."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from dialler.reconciler.v1 import reconciler_pb2
from dialler.reconciler.v1.reconciler_pb2 import (
    DRIFT_KIND_ALTERED,
    DRIFT_KIND_CACHED_ALTERED,
    DRIFT_KIND_CACHED_OUTDATED,
    DRIFT_KIND_MISSING,
    DRIFT_KIND_ORPHANED,
    DRIFT_KIND_OUTDATED,
    RUN_KIND_CHANGED,
    RUN_KIND_HOUSEKEEPING,
    RUN_KIND_WARMING,
    RUN_STATE_SUCCEEDED,
)

from servicekit.errors import Unavailable
from services.reconciler.compare import reading
from services.reconciler.domain.fingerprints import unpack_rows
from tests.fakes.queue import AppliedEntry
from tests.fakes.upstreams import ReconcilerUpstreams
from tests.fakes.user_context_rows import context_of, packed, person_rows

if TYPE_CHECKING:
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

    from tests.integration.reconciler.conftest import ReconcilerBench

pytestmark = pytest.mark.integration

# Of the people of the bench: 3, 6, ... 300.
PERSON = 42


def _claims_moved(fakes: ReconcilerUpstreams) -> None:
    """A claim of one user is another's now, without a change message."""
    people = fakes.user_context.people
    giver, taker = unpack_rows(people[PERSON]), unpack_rows(people[45])
    claim_id = min(giver.hanging)
    left = {i: both for i, both in giver.hanging.items() if i != claim_id}
    people[PERSON] = packed(giver._replace(claims=giver.claims ^ 7, hanging=left))
    more = {**taker.hanging, claim_id: giver.hanging[claim_id]}
    people[45] = packed(taker._replace(claims=taker.claims ^ 11, hanging=more))


def _requirement_changed(fakes: ReconcilerUpstreams) -> None:
    rows = unpack_rows(fakes.user_context.people[PERSON])
    claim_id = max(rows.hanging)
    changed = {**rows.hanging, claim_id: (rows.hanging[claim_id][0] ^ 9, rows.hanging[claim_id][1])}
    fakes.user_context.people[PERSON] = packed(rows._replace(hanging=changed))


def _added(fakes: ReconcilerUpstreams) -> None:
    fakes.user_context.people[1_000] = packed(person_rows(1_000))


def _deleted(fakes: ReconcilerUpstreams) -> None:
    del fakes.user_context.people[PERSON]


def _entry_removed(fakes: ReconcilerUpstreams) -> None:
    del fakes.queue.entries[PERSON]


def _entry_invented(fakes: ReconcilerUpstreams) -> None:
    fakes.queue.entries[2_000] = fakes.queue.entries[PERSON]


def _entry_altered(fakes: ReconcilerUpstreams) -> None:
    entries = fakes.queue.entries
    entries[PERSON] = entries[PERSON]._replace(is_altered=True)


def _cache_altered(fakes: ReconcilerUpstreams) -> None:
    rows = fakes.user_context.people[PERSON]
    fakes.user_context.cached[PERSON] = context_of(rows), False


def _cache_outdated(fakes: ReconcilerUpstreams) -> None:
    fakes.user_context.cached[PERSON] = 123, True


def _cache_of_a_stranger(fakes: ReconcilerUpstreams) -> None:
    fakes.user_context.cached[2_000] = 123, True


Found = set[tuple[int, int, str]]

DAMAGE: list[tuple[Callable[[ReconcilerUpstreams], None], Found]] = [
    (
        _claims_moved,
        {
            (who, DRIFT_KIND_OUTDATED, table)
            for who in (PERSON, 45)
            for table in ("claims", "claim_requirements", "claim_vehicle_packages")
        },
    ),
    (_requirement_changed, {(PERSON, DRIFT_KIND_OUTDATED, "claim_requirements")}),
    (_added, {(1_000, DRIFT_KIND_MISSING, "")}),
    (_deleted, {(PERSON, DRIFT_KIND_ORPHANED, "")}),
    (_entry_removed, {(PERSON, DRIFT_KIND_MISSING, "")}),
    (_entry_invented, {(2_000, DRIFT_KIND_ORPHANED, "")}),
    (_entry_altered, {(PERSON, DRIFT_KIND_ALTERED, "")}),
    (_cache_altered, {(PERSON, DRIFT_KIND_CACHED_ALTERED, "")}),
    (_cache_outdated, {(PERSON, DRIFT_KIND_CACHED_OUTDATED, "")}),
    (_cache_of_a_stranger, {(2_000, DRIFT_KIND_CACHED_OUTDATED, "")}),
]


async def _drift(stub: "ReconcilerServiceAsyncStub", run: reconciler_pb2.Run) -> Found:
    found: Found = set()
    token = ""
    while True:
        page = await stub.ListDrift(
            reconciler_pb2.ListDriftRequest(run_id=run.run_id, page_size=2, page_token=token)
        )
        found |= {(it.user_id, it.kind, it.table) for it in page.drift}
        token = page.next_page_token
        if not token:
            return found


def _is_all_right(fakes: ReconcilerUpstreams) -> bool:
    held = {u: it.rows for u, it in fakes.queue.entries.items() if not it.is_absent}
    is_cache_right = all(
        cached == (context_of(fakes.user_context.people[user_id]), True)
        for user_id, cached in fakes.user_context.cached.items()
    )
    is_altered = any(it.is_altered for it in fakes.queue.entries.values())
    return held == fakes.user_context.people and is_cache_right and not is_altered


@pytest.mark.parametrize(("damage", "expected"), DAMAGE, ids=lambda it: getattr(it, "__name__", ""))
async def test_damage_is_found_reported_and_repaired(
    bench: "ReconcilerBench", damage: Callable[[ReconcilerUpstreams], None], expected: Found
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    damage(fakes)
    async with bench.running() as stub:
        run = await bench.run(stub)
        assert run.state == RUN_STATE_SUCCEEDED
        assert await _drift(stub, run) == expected
        assert run.users_drifted == len({who for who, _, _ in expected})
        assert {(it.kind, it.table) for it in run.drift} == {it[1:] for it in expected}
        assert _is_all_right(fakes)
        assert set(fakes.user_context.refreshed) == {who for who, _, _ in expected}
        again = await bench.run(stub)
    assert (again.users_drifted, again.users_refreshed) == (0, 0)


async def test_a_change_in_flight_is_no_drift(bench: "ReconcilerBench") -> None:
    """MySQL has it already, the queue applies it between the first look and the second."""
    fakes = bench.fakes
    fakes.apply_all_users()
    _requirement_changed(fakes)
    rows = fakes.user_context.people[PERSON]

    def arrive() -> None:
        if fakes.user_context.calls["ReadRowFingerprints"] == 1:
            fakes.queue.entries[PERSON] = AppliedEntry(9, context_of(rows), rows)

    fakes.user_context.on_read_rows = arrive
    async with bench.running() as stub:
        run = await bench.run(stub)
    assert (run.users_drifted, run.users_unsettled) == (0, 0)


async def test_a_user_who_keeps_changing_is_refreshed_without_a_drift_report(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _requirement_changed(fakes)
    seeds = iter(range(1, 100))

    def change() -> None:
        rows = person_rows(PERSON, seed=next(seeds))
        hanging = person_rows(PERSON).hanging
        fakes.user_context.people[PERSON] = packed(rows._replace(hanging=hanging))

    fakes.user_context.on_read_rows = change
    async with bench.running() as stub:
        run = await bench.run(stub)
    assert (run.users_drifted, run.users_unsettled, run.users_refreshed) == (0, 1, 1)
    assert _is_all_right(fakes)


async def test_changes_captured_before_the_first_read_are_waited_for(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _requirement_changed(fakes)
    rows = fakes.user_context.people[PERSON]
    fakes.ingest.alive_at = fakes.ingest.applied_through = datetime.now(UTC)
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target, recheck_longest_seconds=60.0
    ) as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: fakes.user_context.calls["ReadRowFingerprints"] == 1)
        fakes.queue.entries[PERSON] = AppliedEntry(9, context_of(rows), rows)
        fakes.ingest.applied_through = datetime.now(UTC) + timedelta(seconds=1)
        ended = await bench.ended(stub, run.run_id)
    assert (ended.users_drifted, ended.users_refreshed) == (0, 0)


async def test_the_copy_of_the_ingest_that_is_behind_is_asked_among_six(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _requirement_changed(fakes)
    rows = fakes.user_context.people[PERSON]
    behind, later = datetime.now(UTC), datetime.now(UTC) + timedelta(hours=1)
    fakes.ingest.alive_at = behind
    fakes.ingest.applied_by_turns.extend([later] * 5 + [behind])
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target, recheck_longest_seconds=60.0, watch_seconds=600.0
    ) as stub:
        run = await bench.start_run(stub)
        # Until each has answered, and the one that is behind has been waited for.
        await bench.until(lambda: len(fakes.ingest.calls) > 12)
        fakes.queue.entries[PERSON] = AppliedEntry(9, context_of(rows), rows)
        fakes.ingest.applied_by_turns.clear()
        fakes.ingest.applied_through = later
        ended = await bench.ended(stub, run.run_id)
    assert (ended.users_drifted, ended.users_refreshed) == (0, 0)


async def test_unverified_users_are_refreshed_once_and_report_no_drift(
    bench: "ReconcilerBench",
) -> None:
    """As a rebuild leaves them: placed by facts alone."""
    fakes = bench.fakes
    fakes.apply_all_users()
    for user_id in (3, 6, 9):
        fakes.queue.entries[user_id] = fakes.queue.entries[user_id]._replace(rows=b"", context=0)
    async with bench.running() as stub:
        run = await bench.run(stub)
        assert (run.users_drifted, run.users_refreshed) == (0, 3)
        assert (await bench.run(stub)).users_refreshed == 0


async def test_without_a_cache_the_rest_is_compared(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _requirement_changed(fakes)
    fakes.user_context.cache_failure = Unavailable("CACHE_UNAVAILABLE", "no Redis")
    async with bench.running() as stub:
        run = await bench.run(stub)
    assert (run.state, run.users_drifted) == (RUN_STATE_SUCCEEDED, 1)


@pytest.mark.fault
async def test_a_broken_stream_goes_on_where_it_was(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    fakes.user_context.people |= {it: packed(person_rows(it)) for it in range(301, 901)}
    fakes.apply_all_users()

    def fail_once(chunk: int) -> None:
        if chunk == 8:
            raise Unavailable("MAIN_APP_UNAVAILABLE", "away")

    fakes.user_context.on_chunk = fail_once
    async with bench.running() as stub:
        run = await bench.run(stub)
    assert (run.state, run.users_drifted, run.users_refreshed) == (RUN_STATE_SUCCEEDED, 0, 0)
    assert not fakes.user_context.calls["ReadOwnerFingerprints"], "what was added up is right"


@pytest.mark.fault
async def test_ranges_summed_up_before_a_stop_are_not_read_again(
    bench: "ReconcilerBench", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_KEEP_SECONDS", 0.0)
    fakes = bench.fakes
    fakes.user_context.people |= {it: packed(person_rows(it)) for it in range(301, 901)}
    fakes.apply_all_users()
    async with bench.running() as stub:
        await bench.run(stub)
        whole = fakes.user_context.chunks_sent
        fakes.user_context.chunks_sent = 0

        def fail_from_the_twentieth(chunk: int) -> None:
            if chunk >= 20:
                raise Unavailable("MAIN_APP_UNAVAILABLE", "away")

        fakes.user_context.on_chunk = fail_from_the_twentieth
        run = await bench.start_run(stub)
        await bench.until(lambda: fakes.user_context.chunks_sent > 20)
    fakes.user_context.on_chunk = lambda _: None
    fakes.user_context.chunks_sent = 0
    async with bench.running() as stub:
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.users_drifted) == (RUN_STATE_SUCCEEDED, 0)
    assert fakes.user_context.chunks_sent == whole - 19
    assert not fakes.user_context.calls["ReadOwnerFingerprints"], "what was added up is right"


async def test_changed_users_are_compared(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _requirement_changed(fakes)
    fakes.user_context.changed = {PERSON, 45}
    async with bench.running() as stub:
        run = await bench.run(stub, RUN_KIND_CHANGED)
    assert (run.users_checked, run.users_drifted, run.users_refreshed) == (2, 1, 1)
    assert not fakes.user_context.calls["StreamRangeFingerprints"]
    assert _is_all_right(fakes)


@pytest.mark.parametrize("contexts_per_answer", [500, 7])
async def test_the_heads_of_the_queues_are_cached(
    bench: "ReconcilerBench", contexts_per_answer: int
) -> None:
    fakes = bench.fakes
    fakes.user_context.contexts_per_answer = contexts_per_answer
    fakes.apply_all_users()
    async with bench.running(warming_users=60) as stub:
        run = await bench.run(stub, RUN_KIND_WARMING)
    assert run.done == {"contexts_cached": 180}
    assert set(fakes.user_context.cached) == {n * 3 for n in range(1, 61)}


async def test_warming_goes_on_past_a_person_whose_context_no_message_can_hold(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.user_context.too_large = {3}
    fakes.apply_all_users()
    async with bench.running(warming_users=60) as stub:
        run = await bench.run(stub, RUN_KIND_WARMING)
    assert run.done == {"contexts_cached": 177, "contexts_too_large": 3}


async def test_housekeeping_goes_on_until_nothing_is_left(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    fakes.queue.misplaced = {PERSON}
    async with bench.running(runs_kept_days=1e-9) as stub:
        for _ in range(2):
            await bench.run(stub)
        run = await bench.run(stub, RUN_KIND_HOUSEKEEPING)
        listed = (await stub.ListRuns(reconciler_pb2.ListRunsRequest())).runs
    assert run.done == {"requests_deleted": 30, "runs_deleted": 1}
    assert len(listed) == 2, "the latest of each kind stays"
    assert (run.users_checked, run.users_drifted) == (100, 1)
