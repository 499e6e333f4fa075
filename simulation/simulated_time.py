"""Time that passes only while every task that runs in it waits."""

import asyncio
import heapq
import math
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from tests.fakes.clock import FakeClock

BeforeStep = Callable[[datetime], Awaitable[None]]


class SimulatedTime:
    """Wakes the tasks that sleep in it, all of one moment together, and waits until they sleep.

    Moments are whole ticks, so that people who act at nearly the same time act at the same time.
    """

    def __init__(self, clock: FakeClock, tick_seconds: float, before_step: BeforeStep) -> None:
        """`before_step` is awaited before each step with the moment it leads to."""
        self._clock = clock
        self._origin = clock.now()
        self._tick = tick_seconds
        self._before_step = before_step
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._count = 0
        self._awake = 0
        self._all_asleep = asyncio.Event()
        self._all_asleep.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def now(self) -> datetime:
        """Return the simulated time."""
        return self._clock.now()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task in this time; if it fails, `run_until` raises its error."""
        self._awake += 1
        self._all_asleep.clear()
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def sleep(self, seconds: float) -> None:
        """Sleep for at least so long; only for tasks that run in this time."""
        await self.sleep_until(self.now() + timedelta(seconds=seconds))

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep until the first tick from that moment on."""
        ticks = math.ceil((moment - self._origin).total_seconds() / self._tick)
        when = self._origin + timedelta(seconds=ticks * self._tick)
        if when <= self.now():
            return
        woken = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (when, self._count, woken))
        self._fall_asleep()
        await woken

    async def run_until(self, end: datetime) -> None:
        """Let time pass; raises the error of a task that failed."""
        while True:
            await self._all_asleep.wait()
            if self._failure is not None:
                raise self._failure
            when = self._sleepers[0][0] if self._sleepers else end
            when = min(when, end)
            if when > self.now():
                await self._before_step(when)
                self._clock.advance(when - self.now())
            if when >= end:
                return
            while self._sleepers and self._sleepers[0][0] <= when:
                _, _, woken = heapq.heappop(self._sleepers)
                if not woken.done():
                    self._awake += 1
                    self._all_asleep.clear()
                    woken.set_result(None)

    async def stop(self) -> None:
        """End every task that still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _fall_asleep(self) -> None:
        self._awake -= 1
        if self._awake == 0:
            self._all_asleep.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        self._failure = self._failure or task.exception()
        self._fall_asleep()
        if self._failure is not None:
            self._all_asleep.set()
