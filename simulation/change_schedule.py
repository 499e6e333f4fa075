"""When the changes of the week happen: by day mostly, at night some, and after calls."""

import asyncio
import heapq
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, time, timedelta
from random import Random

from simulation.changes import ChangingPopulation, MainAppChanges
from simulation.plan import Plan
from simulation.simulated_time import SimulatedTime

_BY_NIGHT = 0.15
_DAY_BEGINS, _DAY_ENDS = time(7), time(21)


class ChangeSchedule:
    """Runs in simulated time and makes the changes while the time stands still."""

    def __init__(
        self,
        plan: Plan,
        simulated: SimulatedTime,
        population: ChangingPopulation,
        changes: MainAppChanges,
    ) -> None:
        self._plan = plan
        self._time = simulated
        self._population = population
        self._changes = changes
        self._rng = Random(f"{plan.seed}/schedule")
        self._wanted: list[tuple[datetime, int, str, int]] = []
        self._count = 0
        self._thread = ThreadPoolExecutor(1, "main-app")

    def follow_up(self, kind: str, user_id: int, seconds: float) -> None:
        """Have a change made to a person after a while."""
        self._count += 1
        when = self._time.now() + timedelta(seconds=seconds)
        heapq.heappush(self._wanted, (when, self._count, kind, user_id))

    def was_called(self, user_id: int) -> None:
        """Let changes hit a person who has just been handed out."""
        self._population.called.append(user_id)

    async def run(self) -> None:
        """Make changes until the week is over."""
        for moment in self._moments():
            await self._time.sleep_until(moment)
            await self._run(self._due(), self._random_count())

    async def _run(self, wanted: Sequence[tuple[str, int]], count: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._changes.make, wanted, count)

    def stop(self) -> None:
        """Let the thread end."""
        self._thread.shutdown()

    def _moments(self) -> Sequence[datetime]:
        """The moments of all random changes; several may share one."""
        count = self._plan.changes
        by_night = int(count * _BY_NIGHT) if self._plan.days > 1 else 0
        moments = [self._by_night() for _ in range(by_night)]
        moments += [self._by_day() for _ in range(count - by_night)]
        moments.sort()
        self._left = moments
        self._taken = 0
        # Looked at once a tick and more often than that only when there is something to do.
        tick = timedelta(seconds=self._plan.tick_seconds)
        begins = self._plan.begins
        return sorted({begins + (it - begins) // tick * tick + tick for it in moments})

    def _random_count(self) -> int:
        now = self._time.now()
        count = 0
        while self._taken < len(self._left) and self._left[self._taken] <= now:
            self._taken += 1
            count += 1
        return count

    def _due(self) -> list[tuple[str, int]]:
        due: list[tuple[str, int]] = []
        while self._wanted and self._wanted[0][0] <= self._time.now():
            _, _, kind, user_id = heapq.heappop(self._wanted)
            due.append((kind, user_id))
        return due

    def _by_day(self) -> datetime:
        day = self._rng.randrange(self._plan.days)
        begins = self._plan.moment(day, _DAY_BEGINS)
        ends = min(self._plan.moment(day, _DAY_ENDS), self._plan.ends)
        return begins + self._rng.random() * (ends - begins)

    def _by_night(self) -> datetime:
        day = self._rng.randrange(self._plan.days - 1)
        begins = self._plan.moment(day, _DAY_ENDS)
        ends = self._plan.moment(day + 1, _DAY_BEGINS)
        return begins + self._rng.random() * (ends - begins)
