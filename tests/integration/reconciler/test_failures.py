"""Trouble on the way: every run ends all the same, and no drift is reported for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from dialler.reconciler.v1 import reconciler_pb2
from dialler.reconciler.v1.reconciler_pb2 import (
    DRIFT_KIND_ALTERED,
    FRESHNESS_MODE_BATCH,
    RUN_KIND_CHANGED,
    RUN_KIND_HOUSEKEEPING,
    RUN_STATE_FAILED,
    RUN_STATE_SUCCEEDED,
)
from sqlalchemy.engine import make_url

from servicekit.database import postgres_engine
from servicekit.errors import Unavailable
from services.reconciler import app, report
from services.reconciler.domain.runs import RunKind
from services.reconciler.domain.schedule import Schedule
from services.reconciler.runs import jobs
from services.reconciler.store import RunStore
from tests.fakes.queue import AppliedEntry
from tests.fakes.upstreams import ReconcilerUpstreams
from tests.fakes.user_context_rows import context_of, packed, person_rows

if TYPE_CHECKING:
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

    from tests.integration.reconciler.conftest import ReconcilerBench

pytestmark = [pytest.mark.integration, pytest.mark.fault]

# Of the people of the bench: 3, 6, ... 300.
PERSON = 42
NEVER = 1e6
AWAY = Unavailable("MAIN_APP_UNAVAILABLE", "away")


def _change(fakes: ReconcilerUpstreams, user_id: int = PERSON) -> None:
    """The main app changes a user, and the queue has not received it."""
    fakes.user_context.people[user_id] = packed(person_rows(user_id, seed=1))


async def _listed(stub: "ReconcilerServiceAsyncStub") -> list[reconciler_pb2.Run]:
    return list((await stub.ListRuns(reconciler_pb2.ListRunsRequest(page_size=100))).runs)


@pytest.mark.parametrize("spoilt", [b"", b"12345", b"\xff" * 16], ids=["end", "inside", "more"])
async def test_spoilt_fingerprints_are_drift_like_any_other(
    bench: "ReconcilerBench", spoilt: bytes
) -> None:
    """Whatever another writer wrote into our tables, the run ends and repairs it."""
    fakes = bench.fakes
    fakes.apply_all_users()
    entry = fakes.queue.entries[PERSON]
    rows = entry.rows[:-3] if not spoilt else entry.rows + spoilt
    fakes.queue.entries[PERSON] = entry._replace(rows=rows, is_altered=True)
    async with bench.running() as stub:
        run = await bench.run(stub)
        found = await stub.ListDrift(reconciler_pb2.ListDriftRequest(run_id=run.run_id))
    assert run.state == RUN_STATE_SUCCEEDED
    assert DRIFT_KIND_ALTERED in {it.kind for it in found.drift}
    assert {it.user_id for it in found.drift} == {PERSON}
    assert fakes.queue.entries[PERSON].rows == fakes.user_context.people[PERSON]
    assert set(fakes.user_context.refreshed) == {PERSON}


async def test_a_defect_ends_its_run_and_no_other(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _change(fakes)
    fakes.user_context.is_garbled = True
    async with bench.running() as stub:
        broken = await bench.run(stub)
        other = await bench.run(stub, RUN_KIND_HOUSEKEEPING)
    assert (broken.state, broken.error) == (RUN_STATE_FAILED, "broke: ValueError")
    assert other.state == RUN_STATE_SUCCEEDED


class _Obstacle:
    """Something that statements of the reconciler have to wait for, until one has in vain."""

    def __init__(self, bench: "ReconcilerBench") -> None:
        self._bench = bench
        self._dsn = make_url(bench.postgres_url).set(drivername="postgresql")

    @asynccontextmanager
    async def of(self, statement: str) -> "AsyncIterator[_Obstacle]":
        """Hold what the statement locks, and let go of it at the end."""
        async with self._connected() as holder, holder.transaction():
            await holder.execute(statement)
            yield self

    async def has_been_run_into(self, like: str) -> None:
        """Return once a statement like that has waited and run out of time."""
        async with self._connected() as watcher:

            async def since() -> object:
                return await watcher.fetchval(_WAITING, like)

            async def is_waiting() -> bool:
                return await since() is not None

            await self._bench.until_async(is_waiting)
            first = await since()

            async def waits_no_more() -> bool:
                return await since() != first

            await self._bench.until_async(waits_no_more)

    @asynccontextmanager
    async def _connected(self) -> "AsyncIterator[Any]":
        connection = await asyncpg.connect(self._dsn.render_as_string(hide_password=False))
        try:
            yield connection
        finally:
            await connection.close()


_WAITING = """
    SELECT query_start FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'reconciler@%'
        AND wait_event_type = 'Lock' AND query LIKE $1
"""


async def test_a_database_that_is_slow_for_a_moment_ends_no_run(
    bench: "ReconcilerBench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what a gap left behind would wait for the next full run, hours later."""
    monkeypatch.setattr(app, "_STATEMENT_SECONDS", 0.5)
    fakes = bench.fakes
    fakes.queue.free_calls = 2
    async with bench.running(pages_in_flight=1) as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: fakes.queue.calls > 2)
        async with _Obstacle(bench).of("SELECT FROM reconciler.runs FOR UPDATE") as obstacle:
            fakes.queue.gate.set()
            await obstacle.has_been_run_into("UPDATE reconciler.runs%")
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.error) == (RUN_STATE_SUCCEEDED, "")


async def test_a_stream_that_always_breaks_ends_the_run_in_time(bench: "ReconcilerBench") -> None:
    """What it tells again each time it begins is no progress."""
    fakes = bench.fakes
    fakes.apply_all_users()
    fakes.user_context.changed = {PERSON}
    fakes.user_context.changed_failure = AWAY
    async with bench.running(give_up_seconds=0.5) as stub:
        run = await bench.run(stub, RUN_KIND_CHANGED)
    assert run.state == RUN_STATE_FAILED
    assert "MAIN_APP_UNAVAILABLE" in run.error


async def test_a_full_run_that_gave_up_is_done_when_it_can_be(bench: "ReconcilerBench") -> None:
    """It may be the one that was to close a gap."""
    fakes = bench.fakes
    fakes.apply_all_users()
    _change(fakes)
    fakes.queue.failure = AWAY
    async with bench.running(give_up_seconds=0.3) as stub:
        assert (await bench.run(stub)).state == RUN_STATE_FAILED
        fakes.queue.failure = None
        await bench.until(lambda: fakes.queue.applied[PERSON] == 1)


async def test_a_full_run_that_broke_is_done_again_after_a_while(
    bench: "ReconcilerBench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the one that was to close a gap; at once it would break again."""
    schedule = partial(Schedule, full_after_failure=timedelta(seconds=1))
    monkeypatch.setattr(app, "Schedule", schedule)
    fakes = bench.fakes
    fakes.apply_all_users()
    _change(fakes)
    fakes.user_context.is_garbled = True
    async with bench.running() as stub:
        assert (await bench.run(stub)).error.startswith("broke: ")
        fakes.user_context.is_garbled = False
        await bench.until(lambda: fakes.queue.applied[PERSON] == 1)

        async def has_succeeded() -> bool:
            return (await _listed(stub))[0].state == RUN_STATE_SUCCEEDED

        await bench.until_async(has_succeeded)
        count = len(await _listed(stub))
        await asyncio.sleep(1.5)
        assert len(await _listed(stub)) == count


async def test_replicas_that_live_shorter_than_a_day_do_daily_runs(
    bench: "ReconcilerBench",
) -> None:
    began = datetime.now(UTC)
    async with bench.running() as stub:

        async def is_long_enough() -> bool:
            return datetime.now(UTC) - began > timedelta(seconds=2)

        await bench.until_async(is_long_enough)
        assert not await _listed(stub)
    async with bench.running(housekeeping_every_seconds=2.0) as stub:
        again = datetime.now(UTC)

        async def is_asked_for() -> bool:
            return bool(await _listed(stub))

        await bench.until_async(is_asked_for)
        (run,) = await _listed(stub)
    assert run.kind == RUN_KIND_HOUSEKEEPING
    assert run.requested_at.ToDatetime(UTC) < again + timedelta(seconds=1.5)


async def test_a_clock_that_was_ahead_stops_no_schedule(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    engine = postgres_engine(
        bench.postgres_url, pool_size=1, application_name="test", statement_timeout_seconds=5.0
    )
    ahead = datetime.now(UTC) + timedelta(days=365)
    try:
        await RunStore(engine).request(RunKind.HOUSEKEEPING, "ahead of its time", ahead)
    finally:
        await engine.dispose()
    async with bench.running(housekeeping_every_seconds=0.3) as stub:

        async def has_run_by_schedule() -> bool:
            reasons = [it.reason for it in await _listed(stub) if it.state == RUN_STATE_SUCCEEDED]
            return "schedule, change_capture" in reasons

        await bench.until_async(has_run_by_schedule)


async def test_drift_found_twice_by_one_run_is_counted_once(bench: "ReconcilerBench") -> None:
    """The copy that found it was stopped before it had put it right."""
    fakes = bench.fakes
    fakes.apply_all_users()
    _change(fakes)
    fakes.queue.free_calls = 0
    async with bench.running() as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: fakes.queue.calls > 0)
    fakes.queue.gate.set()
    async with bench.running() as stub:
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.users_drifted) == (RUN_STATE_SUCCEEDED, 1)
    assert {it.users for it in ended.drift} == {1}


async def test_a_user_refused_before_a_stop_is_not_refused_for_ever(
    bench: "ReconcilerBench", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_SAVE_SECONDS", 0.0)
    fakes = bench.fakes
    fakes.user_context.poison = {3}
    fakes.queue.free_calls = 4
    async with bench.running(pages_in_flight=1) as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: fakes.queue.calls > 4)

        async def is_noted() -> bool:
            return (await _listed(stub))[0].users_failed == 1

        await bench.until_async(is_noted)
    fakes.user_context.poison = set()
    fakes.queue.gate.set()
    async with bench.running() as stub:
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.users_failed, ended.error) == (RUN_STATE_SUCCEEDED, 0, "")


async def test_a_backlog_longer_than_the_longest_wait_reports_no_drift(
    bench: "ReconcilerBench",
) -> None:
    """The ingest itself says that it has not come to that moment yet."""
    fakes = bench.fakes
    fakes.apply_all_users()
    _change(fakes)
    fakes.ingest.alive_at = datetime.now(UTC) + timedelta(hours=1)
    fakes.ingest.applied_through = datetime.now(UTC)
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target, recheck_longest_seconds=0.3
    ) as stub:
        run = await bench.run(stub)
    assert (run.state, run.users_drifted) == (RUN_STATE_SUCCEEDED, 0)
    assert (run.users_unsettled, run.users_refreshed) == (1, 1)


async def test_an_unreachable_ingest_reports_no_drift(bench: "ReconcilerBench") -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _change(fakes)
    fakes.ingest.failure = Unavailable("INGEST_AWAY", "away")
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target, recheck_longest_seconds=0.3
    ) as stub:
        run = await bench.run(stub)
    assert (run.users_drifted, run.users_refreshed) == (0, 1)


async def test_capture_that_falls_silent_between_two_reads_reports_no_drift(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _change(fakes)
    fakes.ingest.alive_at = datetime.now(UTC)
    async with bench.running(
        cdc_ingest_target=fakes.ingest_target,
        silence_seconds=0.5,
        recheck_seconds=2.0,
        batch_every_seconds=NEVER,
    ) as stub:
        run = await bench.run(stub)
        freshness = await stub.GetFreshness(reconciler_pb2.GetFreshnessRequest())
    assert freshness.mode == FRESHNESS_MODE_BATCH
    assert (run.users_drifted, run.users_refreshed) == (0, 1)


async def test_before_the_queue_has_a_user_changed_users_report_no_drift(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.user_context.changed = {PERSON, 45}
    async with bench.running() as stub:
        run = await bench.run(stub, RUN_KIND_CHANGED)
    assert (run.state, run.users_drifted, run.users_refreshed) == (RUN_STATE_SUCCEEDED, 0, 2)


async def test_mysql_rests_as_long_as_it_works_on_ranges_and_snapshots(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    _change(fakes)
    fakes.user_context.mysql_seconds = 0.1
    async with bench.running(load_share=0.2) as stub:
        run = await bench.run(stub)
    took = run.ended_at.ToDatetime(UTC) - run.started_at.ToDatetime(UTC)
    assert run.users_drifted == 1
    # The fakes do not really take the time they tell.
    assert took.total_seconds() >= 0.9 * run.mysql_seconds * (1 / 0.2 - 1)


async def test_where_all_differ_some_are_repaired_before_the_next_are_read(
    bench: "ReconcilerBench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of all users at once would exceed a replica's memory."""
    monkeypatch.setattr(jobs, "_USERS_RECHECKED_AT_ONCE", 20)
    fakes = bench.fakes
    fakes.apply_all_users()
    for user_id in fakes.user_context.people:
        _change(fakes, user_id)
    refreshed_at_looks: list[int] = []
    fakes.user_context.on_read_rows = lambda: refreshed_at_looks.append(
        len(fakes.user_context.refreshed)
    )
    async with bench.running() as stub:
        run = await bench.run(stub)
    assert refreshed_at_looks == [0, 0, 20, 20, 40, 40, 60, 60, 80, 80]
    assert (run.users_drifted, run.users_refreshed) == (100, 100)
    assert {it.users for it in run.drift} == {100}


async def test_a_report_that_is_full_still_counts_every_user(
    bench: "ReconcilerBench", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MAX_DRIFT_KEPT", 12)
    monkeypatch.setattr(jobs, "_USERS_RECHECKED_AT_ONCE", 20)
    fakes = bench.fakes
    fakes.apply_all_users()
    for user_id in fakes.user_context.people:
        _change(fakes, user_id)
    async with bench.running() as stub:
        run = await bench.run(stub)
        request = reconciler_pb2.ListDriftRequest(run_id=run.run_id, page_size=1_000)
        told = (await stub.ListDrift(request)).drift
    assert (len(told), run.users_drifted) == (12, 100)
    assert {it.users for it in run.drift} == {100}


async def test_another_description_of_the_main_app_reports_no_drift(
    bench: "ReconcilerBench",
) -> None:
    """Every user's row fingerprints are different: each user is refreshed once."""
    fakes = bench.fakes
    for user_id in fakes.user_context.people:
        rows = packed(person_rows(user_id, seed=2), edition=2)
        fakes.queue.entries[user_id] = AppliedEntry(1, context_of(rows), rows)
        fakes.user_context.cached[user_id] = context_of(rows) + 1, True
    async with bench.running() as stub:
        run = await bench.run(stub)
        again = await bench.run(stub)
    assert (run.users_drifted, run.users_unsettled, run.users_refreshed) == (0, 0, 100)
    assert again.users_refreshed == 0


async def test_the_full_run_of_another_mode_is_not_lost_when_it_cannot_be_requested(
    bench: "ReconcilerBench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a stop between saying which mode it is and asking for what that mode asks for."""
    monkeypatch.setattr(app, "_STATEMENT_SECONDS", 0.5)
    bench.fakes.apply_all_users()
    async with (
        _Obstacle(bench).of("LOCK TABLE reconciler.runs IN SHARE MODE") as obstacle,
        bench.running(change_capture="off", batch_every_seconds=NEVER) as stub,
    ):
        await obstacle.has_been_run_into("INSERT INTO reconciler.runs%")
        before = await stub.GetFreshness(reconciler_pb2.GetFreshnessRequest())
    assert before.mode != FRESHNESS_MODE_BATCH, "the run would not be requested again"
    async with bench.running(change_capture="off", batch_every_seconds=NEVER) as stub:

        async def is_asked_for() -> bool:
            return "freshness: CAPTURE_OFF" in {it.reason for it in await _listed(stub)}

        await bench.until_async(is_asked_for)
