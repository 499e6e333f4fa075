"""Runs: from being asked for to their end, whatever happens on the way."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dialler.reconciler.v1 import reconciler_pb2
from dialler.reconciler.v1.reconciler_pb2 import (
    RUN_STATE_FAILED,
    RUN_STATE_RUNNING,
    RUN_STATE_SUCCEEDED,
)

from servicekit.errors import InvalidArgument, NotFound, Unavailable
from services.reconciler.app import build

if TYPE_CHECKING:
    from tests.integration.reconciler.conftest import Bench

pytestmark = pytest.mark.integration

DOWN = Unavailable("DATABASE_UNAVAILABLE", "away")


async def test_everybody_is_looked_at_once(bench: "Bench") -> None:
    async with bench.running() as stub:
        run = await bench.start_run(stub, "a reason")
        assert run.reason == "a reason"
        ended = await bench.ended(stub, run.run_id)
    assert ended.state == RUN_STATE_SUCCEEDED
    assert (ended.users_checked, ended.users_moved) == (100, 100)
    assert (ended.last_user_id, ended.max_user_id) == (300, 300)
    assert ended.error == ""
    assert ended.requested_at.ToMicroseconds() <= ended.started_at.ToMicroseconds()
    assert ended.started_at.ToMicroseconds() <= ended.ended_at.ToMicroseconds()
    assert bench.fakes.queue.applied == dict.fromkeys(bench.fakes.user_context.user_ids, 1)


async def test_some_pages_are_under_way_together(bench: "Bench") -> None:
    queue = bench.fakes.queue
    queue.free_calls = 0
    async with bench.running(pages_in_flight=3) as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: queue.at_once == 3)
        queue.gate.set()
        await bench.ended(stub, run.run_id)
    assert queue.most_at_once == 3


async def test_no_people_no_work(bench: "Bench") -> None:
    bench.fakes.user_context.user_ids = []
    async with bench.running() as stub:
        run = await bench.start_run(stub)
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.users_checked) == (RUN_STATE_SUCCEEDED, 0)


async def test_ids_beyond_a_signed_bigint(bench: "Bench") -> None:
    bench.fakes.user_context.user_ids = [1, 2**64 - 1]
    async with bench.running() as stub:
        run = await bench.start_run(stub)
        ended = await bench.ended(stub, run.run_id)
    assert (ended.last_user_id, ended.max_user_id) == (2**64 - 1, 2**64 - 1)


async def test_asking_again_joins_the_run_under_way(bench: "Bench") -> None:
    queue = bench.fakes.queue
    queue.free_calls = 2
    async with bench.running() as stub:
        first = await bench.start_run(stub)
        await bench.until(lambda: queue.calls > 2)
        again = await asyncio.gather(*(bench.start_run(stub, f"{n}") for n in range(10)))
        assert {run.run_id for run in again} == {first.run_id}
        queue.gate.set()
        await bench.ended(stub, first.run_id)
        later = await bench.start_run(stub)
        assert later.run_id != first.run_id
        await bench.ended(stub, later.run_id)
        listed = await stub.ListRuns(reconciler_pb2.ListRunsRequest())
        assert [run.run_id for run in listed.runs] == [later.run_id, first.run_id]
        one = await stub.ListRuns(reconciler_pb2.ListRunsRequest(page_size=1))
        assert [run.run_id for run in one.runs] == [later.run_id]


async def test_progress_is_streamed_while_it_works(bench: "Bench") -> None:
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
    assert (seen[0].state, seen[0].users_checked, seen[0].last_user_id) == (
        RUN_STATE_RUNNING,
        30,
        90,
    )
    assert seen[0].max_user_id == 300
    assert (seen[-1].state, seen[-1].users_checked) == (RUN_STATE_SUCCEEDED, 100)


@pytest.mark.fault
async def test_a_killed_process_is_gone_on_from(bench: "Bench", tmp_path: Path) -> None:
    queue = bench.fakes.queue
    queue.free_calls = 4
    process, stub = await bench.start_process(tmp_path / "log", pages_in_flight=1)
    run = await bench.start_run(stub)
    await bench.until(lambda: queue.calls > 4)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    queue.gate.set()
    async with bench.running() as other:
        ended = await bench.ended(other, run.run_id)
    assert (ended.state, ended.users_checked) == (RUN_STATE_SUCCEEDED, 100)
    repeated = [user_id for user_id, times in queue.applied.items() if times > 1]
    assert set(queue.applied) == set(bench.fakes.user_context.user_ids)
    assert len(repeated) <= 10, "what was saved is not done again"


@pytest.mark.fault
async def test_a_stop_leaves_the_run_to_the_next(bench: "Bench") -> None:
    queue = bench.fakes.queue
    queue.free_calls = 4
    async with bench.running(pages_in_flight=1) as stub:
        run = await bench.start_run(stub)
        await bench.until(lambda: queue.calls > 4)
    queue.gate.set()
    done_before = set(queue.applied)
    async with bench.running() as stub:
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.users_checked) == (RUN_STATE_SUCCEEDED, 100)
    assert all(queue.applied[user_id] == 1 for user_id in sorted(done_before)[:30])


@pytest.mark.fault
async def test_of_two_copies_one_works(bench: "Bench") -> None:
    async with bench.running() as first, bench.running() as second:
        runs = await asyncio.gather(bench.start_run(first), bench.start_run(second))
        assert runs[0].run_id == runs[1].run_id
        await bench.ended(second, runs[0].run_id)
    assert bench.fakes.queue.applied == dict.fromkeys(bench.fakes.user_context.user_ids, 1)


@pytest.mark.fault
@pytest.mark.parametrize("who", ["user_context", "queue"])
async def test_upstream_down_then_up(bench: "Bench", who: str) -> None:
    fake = bench.fakes.queue if who == "queue" else bench.fakes.user_context
    fake.failure = DOWN
    async with bench.running() as stub:
        run = await bench.start_run(stub)
        user_context = bench.fakes.user_context
        if who == "queue":
            await bench.until(lambda: user_context.refreshes > 10)
        else:
            running = reconciler_pb2.GetRunRequest(run_id=run.run_id)

            async def is_running() -> bool:
                return (await stub.GetRun(running)).run.state == RUN_STATE_RUNNING

            await bench.until_async(is_running)
        fake.failure = None
        ended = await bench.ended(stub, run.run_id)
    assert (ended.state, ended.users_checked) == (RUN_STATE_SUCCEEDED, 100)


@pytest.mark.fault
async def test_only_long_failure_ends_a_run(bench: "Bench") -> None:
    bench.fakes.queue.failure = DOWN
    async with bench.running(give_up_seconds=0.5) as stub:
        run = await bench.start_run(stub)
        ended = await bench.ended(stub, run.run_id)
        assert ended.state == RUN_STATE_FAILED
        assert "DATABASE_UNAVAILABLE" in ended.error
        bench.fakes.queue.failure = None
        later = await bench.start_run(stub)
        assert (await bench.ended(stub, later.run_id)).state == RUN_STATE_SUCCEEDED


@pytest.mark.fault
async def test_a_poisonous_person_spares_the_rest(bench: "Bench") -> None:
    bench.fakes.user_context.poison = {33, 300}
    async with bench.running() as stub:
        run = await bench.start_run(stub)
        ended = await bench.ended(stub, run.run_id)
    assert ended.state == RUN_STATE_FAILED
    assert ended.error == "2 people could not be looked at: 33, 300"
    assert set(bench.fakes.queue.applied) == set(bench.fakes.user_context.user_ids) - {33, 300}


async def test_bad_requests(bench: "Bench") -> None:
    async with bench.running() as stub:
        with pytest.raises(InvalidArgument, match="RUN_KIND_UNKNOWN"):
            await stub.StartRun(reconciler_pb2.StartRunRequest())
        with pytest.raises(InvalidArgument, match="REASON_TOO_LONG"):
            await bench.start_run(stub, "x" * 201)
        for run_id in ("", "nonsense", "7b0e6a34-0000-4000-8000-000000000000"):
            with pytest.raises(NotFound, match="RUN_NOT_FOUND"):
                await stub.GetRun(reconciler_pb2.GetRunRequest(run_id=run_id))
            with pytest.raises(NotFound, match="RUN_NOT_FOUND"):
                await bench.ended(stub, run_id)


@pytest.mark.parametrize(("poison", "code"), [(set(), 0), ({33}, 1)])
async def test_the_command_follows_a_run(bench: "Bench", poison: set[int], code: int) -> None:
    bench.fakes.user_context.poison = poison
    parts = build(bench.settings())
    await parts.start()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.reconciler.run_full",
            "--target",
            parts.address,
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await process.communicate()
    finally:
        await parts.stop()
    assert process.returncode == code
    expected = b"100 people looked at, 100 moved" if code == 0 else b"could not be looked at: 33"
    assert expected in told, told


async def test_the_command_without_a_reconciler() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.reconciler.run_full",
        "--target",
        "127.0.0.1:1",
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 1
    assert b"cannot be asked" in told
