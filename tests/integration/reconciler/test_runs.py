"""Runs from request to end, through every failure."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from dialler.reconciler.v1 import reconciler_pb2
from dialler.reconciler.v1.reconciler_pb2 import (
    RUN_PHASE_REPAIRING,
    RUN_STATE_FAILED,
    RUN_STATE_RUNNING,
    RUN_STATE_SUCCEEDED,
)

from servicekit.errors import Conflict, InvalidArgument, NotFound, Unavailable
from services.reconciler.app import build
from tests.fakes.user_context_rows import packed, person_rows

if TYPE_CHECKING:
    from tests.integration.reconciler.conftest import ReconcilerBench

pytestmark = pytest.mark.integration

DOWN = Unavailable("DATABASE_UNAVAILABLE", "away")


async def test_an_empty_queue_is_filled(bench: "ReconcilerBench") -> None:
    async with bench.running() as stub:
        run = await bench.start_run(stub, "a reason")
        assert run.reason == "a reason"
        ended = await bench.ended(stub, run.run_id)
    assert ended.state == RUN_STATE_SUCCEEDED
    assert (ended.users_checked, ended.users_refreshed, ended.users_moved) == (100, 100, 100)
    assert ended.users_drifted == 0, "the queue had no user yet"
    assert ended.error == ""
    assert ended.requested_at.ToMicroseconds() <= ended.started_at.ToMicroseconds()
    assert ended.started_at.ToMicroseconds() <= ended.ended_at.ToMicroseconds()
    assert bench.fakes.queue.applied == dict.fromkeys(bench.fakes.user_context.people, 1)
    assert bench.fakes.queue.rebuilds == 1


async def test_users_can_be_called_before_they_are_all_refreshed(bench: "ReconcilerBench") -> None:
    queue = bench.fakes.queue
    queue.free_calls = 0
    async with bench.running() as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: queue.at_once > 0)
        assert queue.entries.keys() == bench.fakes.user_context.people.keys()
        queue.gate.set()
        ended = await bench.ended(stub, run.run_id)
    assert ended.state == RUN_STATE_SUCCEEDED


async def test_users_brought_by_change_capture_do_not_make_the_rest_drift(
    bench: "ReconcilerBench",
) -> None:
    bench.fakes.apply_all_users()
    entries = bench.fakes.queue.entries
    for user_id in sorted(entries)[3:]:
        del entries[user_id]
    async with bench.running() as stub:
        ended = await bench.run(stub)
        assert (ended.state, ended.users_drifted) == (RUN_STATE_SUCCEEDED, 0)
        assert (ended.users_moved, bench.fakes.queue.rebuilds) == (97, 1)
        # Later the same is drift, and the queue is not rebuilt.
        for user_id in sorted(entries)[3:]:
            del entries[user_id]
        ended = await bench.run(stub)
    assert (ended.users_drifted, bench.fakes.queue.rebuilds) == (97, 1)


async def test_a_fill_waits_for_the_rebuild_that_is_under_way(bench: "ReconcilerBench") -> None:
    queue = bench.fakes.queue
    queue.rebuild_failure = Conflict("REBUILD_UNDER_WAY", "another rebuild is under way")
    async with bench.running() as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: queue.rebuilds > 1)
        queue.rebuild_failure = None
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.users_refreshed) == (RUN_STATE_SUCCEEDED, 100)


async def test_where_nothing_differs_no_user_is_refreshed(bench: "ReconcilerBench") -> None:
    bench.fakes.apply_all_users()
    async with bench.running() as stub:
        ended = await bench.run(stub)
    assert (ended.state, ended.users_checked) == (RUN_STATE_SUCCEEDED, 100)
    assert (ended.users_refreshed, ended.users_drifted) == (0, 0)
    assert ended.mysql_statements > 0
    assert ended.mysql_seconds > 0
    calls = bench.fakes.user_context.calls
    assert not calls["RefreshUsers"] + calls["ReadOwnerFingerprints"] + calls["ReadRowFingerprints"]


async def test_some_pages_are_under_way_together(bench: "ReconcilerBench") -> None:
    queue = bench.fakes.queue
    queue.free_calls = 0
    async with bench.running(pages_in_flight=3) as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: queue.at_once == 3)
        queue.gate.set()
        await bench.ended(stub, run.run_id)
    assert queue.most_at_once == 3


async def test_no_people_no_work(bench: "ReconcilerBench") -> None:
    bench.fakes.user_context.people = {}
    async with bench.running() as stub:
        ended = await bench.run(stub)
    assert (ended.state, ended.users_checked) == (RUN_STATE_SUCCEEDED, 0)


async def test_ids_beyond_a_signed_bigint(bench: "ReconcilerBench") -> None:
    people = bench.fakes.user_context.people
    people.clear()
    for user_id in (1, 2**64 - 1):
        people[user_id] = packed(person_rows(1)._replace(hanging={2**64 - user_id: (1, 2)}))
    bench.fakes.user_context.poison = {2**64 - 1}
    async with bench.running() as stub:
        ended = await bench.run(stub)
    assert ended.error == f"1 people could not be looked at: {2**64 - 1}"
    assert bench.fakes.queue.applied == {1: 1}


async def test_a_run_requested_meanwhile_waits_behind(bench: "ReconcilerBench") -> None:
    """The running one may have passed the users whom the request is about."""
    queue = bench.fakes.queue
    queue.free_calls = 2
    async with bench.running() as stub:
        first = await bench.start_run(stub)
        await bench.until(lambda: queue.calls > 2)
        again = await asyncio.gather(*(bench.start_run(stub, f"{n}") for n in range(10)))
        (second,) = {run.run_id for run in again}
        assert second != first.run_id
        queue.gate.set()
        await bench.ended(stub, first.run_id)
        assert (await bench.ended(stub, second)).state == RUN_STATE_SUCCEEDED
        listed = await stub.ListRuns(reconciler_pb2.ListRunsRequest())
        assert [run.run_id for run in listed.runs] == [second, first.run_id]
        one = await stub.ListRuns(reconciler_pb2.ListRunsRequest(page_size=1))
        assert [run.run_id for run in one.runs] == [second]


async def test_progress_is_streamed_while_it_works(bench: "ReconcilerBench") -> None:
    queue = bench.fakes.queue
    queue.free_calls = 3
    async with bench.running(pages_in_flight=1) as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: queue.calls > 3)
        seen = []
        async for answer in stub.WatchRun(reconciler_pb2.WatchRunRequest(run_id=run.run_id)):
            seen.append(answer.run)
            if len(seen) == 2:
                queue.gate.set()
    assert (seen[0].state, seen[0].phase) == (RUN_STATE_RUNNING, RUN_PHASE_REPAIRING)
    assert seen[0].phase_total == 100
    assert (seen[-1].state, seen[-1].phase_done) == (RUN_STATE_SUCCEEDED, 100)


@pytest.mark.fault
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_an_interrupted_run_is_continued(
    bench: "ReconcilerBench", tmp_path: Path, how: signal.Signals
) -> None:
    queue = bench.fakes.queue
    queue.free_calls = 4
    process, stub = await bench.start_process(tmp_path / "log", pages_in_flight=1)
    run = await bench.start_run(stub)
    await bench.until(lambda: queue.calls > 4)
    process.send_signal(how)
    await process.wait()
    queue.gate.set()
    async with bench.running() as other:
        ended = await bench.ended(other, run.run_id)
    assert ended.state == RUN_STATE_SUCCEEDED
    assert set(queue.entries) == set(bench.fakes.user_context.people)
    repeated = [user_id for user_id, times in queue.applied.items() if times > 1]
    assert len(repeated) <= 20, "people who are right are not refreshed again"


@pytest.mark.fault
async def test_of_two_replicas_one_works(bench: "ReconcilerBench") -> None:
    async with bench.running() as first, bench.running() as second:
        runs = await asyncio.gather(bench.start_run(first), bench.start_run(second))
        for run in runs:
            await bench.ended(second, run.run_id)
    assert bench.fakes.queue.applied == dict.fromkeys(bench.fakes.user_context.people, 1)


@pytest.mark.fault
@pytest.mark.parametrize("who", ["user_context", "queue"])
async def test_upstream_down_then_up(bench: "ReconcilerBench", who: str) -> None:
    fake = bench.fakes.queue if who == "queue" else bench.fakes.user_context
    fake.failure = DOWN
    async with bench.running() as stub:
        run = await bench.start_run(stub)
        user_context = bench.fakes.user_context
        if who == "queue":
            await bench.until(lambda: user_context.calls["RefreshUsers"] > 10)
        else:
            await bench.until(lambda: user_context.calls["ListUserIds"] > 3)
        fake.failure = None
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.users_checked) == (RUN_STATE_SUCCEEDED, 100)


@pytest.mark.fault
async def test_only_long_failure_ends_a_run(bench: "ReconcilerBench") -> None:
    bench.fakes.queue.failure = DOWN
    async with bench.running(give_up_seconds=0.5) as stub:
        ended = await bench.run(stub)
        assert ended.state == RUN_STATE_FAILED
        assert "DATABASE_UNAVAILABLE" in ended.error
        bench.fakes.queue.failure = None
        assert (await bench.run(stub)).state == RUN_STATE_SUCCEEDED


@pytest.mark.fault
async def test_a_poisonous_person_spares_the_rest(bench: "ReconcilerBench") -> None:
    bench.fakes.user_context.poison = {33, 300}
    async with bench.running() as stub:
        ended = await bench.run(stub)
    assert ended.state == RUN_STATE_FAILED
    assert ended.users_failed == 2
    assert ended.error.startswith("2 people could not be looked at: ")
    assert set(bench.fakes.queue.applied) == set(bench.fakes.user_context.people) - {33, 300}


async def test_a_repeated_request_is_the_first_ones_run_even_once_that_has_ended(
    bench: "ReconcilerBench",
) -> None:
    once = str(uuid4())
    async with bench.running() as stub:
        asked = [bench.start_run(stub, request_id=once) for _ in range(8)]
        assert {run.run_id for run in await asyncio.gather(*asked)} == {once}
        await bench.ended(stub, once)
        again = await bench.start_run(stub, request_id=once)
        assert (again.run_id, again.state) == (once, RUN_STATE_SUCCEEDED)
        assert (await bench.start_run(stub, request_id=str(uuid4()))).run_id != once
        with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
            await bench.start_run(stub, kind=reconciler_pb2.RUN_KIND_CHANGED, request_id=once)


async def test_bad_requests(bench: "ReconcilerBench") -> None:
    async with bench.running() as stub:
        with pytest.raises(InvalidArgument, match="REQUEST_ID_INVALID"):
            await bench.start_run(stub, request_id="once")
        with pytest.raises(InvalidArgument, match="RUN_KIND_UNKNOWN"):
            await stub.StartRun(reconciler_pb2.StartRunRequest())
        with pytest.raises(InvalidArgument, match="REASON_TOO_LONG"):
            await bench.start_run(stub, "x" * 201)
        for run_id in ("", "nonsense", "7b0e6a34-0000-4000-8000-000000000000"):
            with pytest.raises(NotFound, match="RUN_NOT_FOUND"):
                await stub.GetRun(reconciler_pb2.GetRunRequest(run_id=run_id))
            with pytest.raises(NotFound, match="RUN_NOT_FOUND"):
                await bench.ended(stub, run_id)
            with pytest.raises(NotFound, match="RUN_NOT_FOUND"):
                await stub.ListDrift(reconciler_pb2.ListDriftRequest(run_id=run_id))
        run = await bench.run(stub)
        for token in ("nonsense", "e30=", "WzEsIlgiLCIiXQ=="):
            with pytest.raises(InvalidArgument, match="PAGE_TOKEN_INVALID"):
                await stub.ListDrift(
                    reconciler_pb2.ListDriftRequest(run_id=run.run_id, page_token=token)
                )


@pytest.mark.parametrize(("poison", "code"), [(set(), 0), ({33}, 1)])
async def test_the_command_follows_a_run(
    bench: "ReconcilerBench", poison: set[int], code: int
) -> None:
    bench.fakes.user_context.poison = poison
    parts = build(bench.settings())
    await parts.start()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.reconciler.reconcile",
            "--target",
            parts.address,
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await process.communicate()
    finally:
        await parts.stop()
    assert process.returncode == code
    assert b"100 people compared" in told, told
    assert (b"could not be looked at: 33" in told) == bool(code), told


async def test_the_command_without_a_reconciler() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.reconciler.reconcile",
        "--target",
        "127.0.0.1:1",
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 1
    assert b"cannot be asked" in told
