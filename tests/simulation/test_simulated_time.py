"""Simulated time waits for whoever is awake."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from servicekit.testing.clock import FakeClock
from simulation.simulated_time import SimulatedTime

START = datetime(2026, 6, 8, 7, tzinfo=UTC)


async def _at_once(_: datetime) -> None:
    """Hold nobody up."""


def _time(tick_seconds: float = 5.0) -> SimulatedTime:
    return SimulatedTime(FakeClock(START), tick_seconds, _at_once)


async def test_sleepers_wake_in_order_and_on_ticks() -> None:
    simulated = _time()
    woken: list[tuple[str, float]] = []

    async def live(name: str, *pauses: float) -> None:
        for pause in pauses:
            await simulated.sleep(pause)
            woken.append((name, (simulated.now() - START).total_seconds()))

    simulated.live(live("ann", 7, 10))
    simulated.live(live("bob", 12))
    await simulated.run_until(START + timedelta(minutes=1))
    assert woken == [("ann", 10.0), ("bob", 15.0), ("ann", 20.0)]
    assert simulated.now() == START + timedelta(minutes=1)


async def test_time_stands_still_while_somebody_is_awake() -> None:
    simulated = _time()
    seen: list[datetime] = []
    answer = asyncio.Event()

    async def ask() -> None:
        await simulated.sleep(5)
        await answer.wait()
        seen.append(simulated.now())

    simulated.live(ask())
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

    simulated.live(fail())
    with pytest.raises(ValueError, match="not their day"):
        await simulated.run_until(START + timedelta(hours=1))


async def test_lives_that_go_on_can_be_stopped() -> None:
    simulated = _time()

    async def go_on() -> None:
        while True:
            await simulated.sleep(5)

    simulated.live(go_on())
    await simulated.run_until(START + timedelta(minutes=1))
    await simulated.stop()
    assert len(asyncio.all_tasks()) == 1
