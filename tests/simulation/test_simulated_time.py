"""Simulated time waits for every task that is awake."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from simulation.simulated_time import SimulatedTime
from tests.fakes.clock import FakeClock

START = datetime(2026, 6, 8, 7, tzinfo=UTC)


async def _at_once(_: datetime) -> None:
    """Wait for nothing."""


def _time(tick_seconds: float = 5.0) -> SimulatedTime:
    return SimulatedTime(FakeClock(START), tick_seconds, _at_once)


async def test_sleepers_wake_in_order_and_on_ticks() -> None:
    simulated = _time()
    woken: list[tuple[str, float]] = []

    async def run(name: str, *pauses: float) -> None:
        for pause in pauses:
            await simulated.sleep(pause)
            woken.append((name, (simulated.now() - START).total_seconds()))

    simulated.start(run("ann", 7, 10))
    simulated.start(run("bob", 12))
    await simulated.run_until(START + timedelta(minutes=1))
    assert woken == [("ann", 10.0), ("bob", 15.0), ("ann", 20.0)]
    assert simulated.now() == START + timedelta(minutes=1)


async def test_time_stands_still_while_a_task_is_awake() -> None:
    simulated = _time()
    seen: list[datetime] = []
    answer = asyncio.Event()

    async def ask() -> None:
        await simulated.sleep(5)
        await answer.wait()
        seen.append(simulated.now())

    simulated.start(ask())
    running = asyncio.create_task(simulated.run_until(START + timedelta(hours=1)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not running.done()
    answer.set()
    await running
    assert seen == [START + timedelta(seconds=5)]


async def test_a_failed_life_ends_the_run() -> None:
    simulated = _time()

    async def fail() -> None:
        await simulated.sleep(5)
        raise ValueError("not their day")

    simulated.start(fail())
    with pytest.raises(ValueError, match="not their day"):
        await simulated.run_until(START + timedelta(hours=1))


async def test_tasks_that_still_run_can_be_stopped() -> None:
    simulated = _time()

    async def go_on() -> None:
        while True:
            await simulated.sleep(5)

    simulated.start(go_on())
    await simulated.run_until(START + timedelta(minutes=1))
    await simulated.stop()
    assert len(asyncio.all_tasks()) == 1
