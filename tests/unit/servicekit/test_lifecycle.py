"""Loops, and services made of parts."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import pytest

from servicekit import deadline
from servicekit.errors import Unavailable
from servicekit.lifecycle import Closing, Listening, Loop, Parts, cancelled
from tests.fakes import waiting
from tests.fakes.clock import FakeClock

FOREVER = 3600.0


@dataclass(frozen=True)
class Batch:
    """What a run did."""

    has_more: bool


class Job:
    """Counts its runs; each run does what the test says."""

    def __init__(self, each: Callable[[int], object] = lambda _: None) -> None:
        self.times: list[datetime] = []
        self._each = each
        self._ran = asyncio.Condition()

    async def run_once(self, now: datetime) -> object:
        self.times.append(now)
        async with self._ran:
            self._ran.notify_all()
        return self._each(len(self.times))

    async def ran(self, count: int) -> None:
        async with waiting.limit(5), self._ran:
            await self._ran.wait_for(lambda: len(self.times) >= count)


@asynccontextmanager
async def looping(job: Job, interval_seconds: float = FOREVER) -> AsyncIterator[Loop]:
    loop = Loop("test", job.run_once, interval_seconds, FakeClock())
    await loop.start()
    try:
        yield loop
    finally:
        await loop.stop()


async def turns() -> None:
    """Let everything that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_runs_at_once_with_the_clocks_time_and_then_waits() -> None:
    job = Job()
    async with looping(job):
        await job.ran(1)
        await turns()
    assert job.times == [FakeClock().now()]


async def test_runs_again_after_the_interval() -> None:
    job = Job()
    async with looping(job, 0.001):
        await job.ran(3)


async def test_nudge_wakes_it() -> None:
    job = Job()
    async with looping(job) as loop:
        await job.ran(1)
        await turns()
        loop.nudge()
        await job.ran(2)


async def test_nudge_during_a_run_is_not_lost() -> None:
    loops: list[Loop] = []
    job = Job(lambda count: loops[0].nudge() if count == 1 else None)
    async with looping(job) as loop:
        loops.append(loop)
        await job.ran(2)
        await turns()
    assert len(job.times) == 2


async def test_more_to_do_is_done_without_a_pause() -> None:
    job = Job(lambda count: Batch(has_more=count < 4))
    async with looping(job):
        await job.ran(4)
        await turns()
    assert len(job.times) == 4


async def test_exception_does_not_end_it_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail_thrice(count: int) -> None:
        if count <= 3:
            raise RuntimeError("broken")

    job = Job(fail_thrice)
    caplog.set_level(logging.INFO)
    async with looping(job, 0.001) as loop:
        await job.ran(4)
        await turns()
        assert loop.failures == 0
    events = [(r.msg, r.levelname) for r in caplog.records if r.name == "servicekit.lifecycle"]
    assert events == [("loop_failed", "ERROR"), ("loop_recovered", "INFO")]
    assert caplog.records[0].exc_info is not None


async def test_backoff_is_not_cut_short_by_a_nudge() -> None:
    def fail(count: int) -> None:
        raise Unavailable("UNAVAILABLE", "unavailable")

    job = Job(fail)
    async with looping(job) as loop:
        await job.ran(1)
        await turns()
        loop.nudge()
        await turns()
        assert loop.failures == 1
    assert len(job.times) == 1


async def test_stop_lets_the_run_in_progress_end() -> None:
    entered, release, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run_once(now: datetime) -> None:
        entered.set()
        await release.wait()
        finished.set()

    loop = Loop("test", run_once, FOREVER, FakeClock())
    await loop.start()
    await entered.wait()
    stopping = asyncio.create_task(loop.stop())
    await turns()
    assert not stopping.done()
    release.set()
    await stopping
    assert finished.is_set()
    await loop.stop()


async def test_stop_cancels_a_run_that_does_not_end() -> None:
    entered = asyncio.Event()

    async def run_once(now: datetime) -> None:
        entered.set()
        await asyncio.Event().wait()

    loop = Loop("test", run_once, FOREVER, FakeClock(), stop_seconds=0.01)
    await loop.start()
    await entered.wait()
    async with waiting.limit(5):
        await loop.stop()


async def test_loop_begun_in_a_request_does_not_have_its_deadline() -> None:
    seen: list[float | None] = []
    job = Job(lambda _: seen.append(deadline.remaining_seconds()))
    with deadline.limit(1.0):
        loop = Loop("test", job.run_once, FOREVER, FakeClock())
        await loop.start()
    await job.ran(1)
    await loop.stop()
    assert seen == [None]


class Part:
    """Writes down what happens to it."""

    def __init__(self, name: str, diary: list[str], *, fails: str = "") -> None:
        self._name = name
        self._diary = diary
        self._fails = fails

    async def start(self) -> None:
        await self._do("start")

    async def stop(self) -> None:
        await self._do("stop")

    async def _do(self, what: str) -> None:
        self._diary.append(f"{what} {self._name}")
        if what == self._fails:
            raise RuntimeError(what)


async def test_parts_start_in_order_and_stop_in_reverse_once() -> None:
    diary: list[str] = []
    parts = Parts(Part("a", diary), Part("b", diary))
    await parts.start()
    await parts.stop()
    await parts.stop()
    assert diary == ["start a", "start b", "stop b", "stop a"]


async def test_parts_before_a_failing_one_are_stopped() -> None:
    diary: list[str] = []
    parts = Parts(Part("a", diary), Part("b", diary, fails="start"), Part("c", diary))
    with pytest.raises(RuntimeError):
        await parts.start()
    assert diary == ["start a", "start b", "stop a"]


async def test_part_that_fails_to_stop_spares_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    diary: list[str] = []
    parts = Parts(Part("a", diary), Part("b", diary, fails="stop"))
    await parts.start()
    await parts.stop()
    assert diary[-2:] == ["stop b", "stop a"]
    assert [record.msg for record in caplog.records] == ["stop_failed"]


async def test_closing_closes_at_the_stop() -> None:
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    part = Closing(close)
    await part.start()
    assert not closed.is_set()
    await part.stop()
    assert closed.is_set()


def test_parts_listen_where_their_first_listening_part_does() -> None:
    class Server(Part):
        address = "127.0.0.1:1"

    parts = Parts(Part("a", []), Server("b", []))
    assert isinstance(parts, Listening)
    assert parts.address == "127.0.0.1:1"


async def test_an_unavailable_service_is_asked_again_within_seconds() -> None:
    async def run_once(now: datetime) -> None:
        raise AssertionError("not run here")

    loop = Loop("test", run_once, 1.0, FakeClock())
    for _ in range(20):
        loop._failed(Unavailable("UNAVAILABLE", "unavailable"))
    assert 4.0 <= loop._backoff_seconds() <= 6.0
    loop._failed(RuntimeError("a defect"))
    assert loop._backoff_seconds() >= 24.0


async def test_a_task_is_cancelled_although_it_loses_the_first_cancellation() -> None:
    """As `asyncio.wait_for` of Python 3.11 loses one that comes when it is about to return."""
    begun, lost = asyncio.Event(), 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                begun.set()
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    task = asyncio.create_task(work())
    await begun.wait()
    await cancelled(task)
    assert (task.cancelled(), lost) == (True, 1)
