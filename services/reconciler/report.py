"""The report of a run while the run is under way."""

from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from servicekit.clock import Clock
from services.reconciler import metrics
from services.reconciler.domain.drift import Difference
from services.reconciler.domain.runs import Run, RunFigures, RunPhase, RunState
from services.reconciler.store import RunStore
from services.reconciler.upstreams import MySqlCost

_SAVE_SECONDS = 0.5
# A longer list has no reader; the counts go on.
MAX_DRIFT_KEPT = 10_000


class RunReport:
    """Saves a run's figures in PostgreSQL; steps alone cause at most two saves a second.

    Every method that saves raises Conflict (RUN_TAKEN_OVER) when another replica works on the run.
    """

    def __init__(self, store: RunStore, run: Run, holder: UUID, clock: Clock) -> None:
        self.figures: RunFigures = run.figures
        self.figures.begin_again()
        self.run = run
        self._store = store
        self._holder = holder
        self._clock = clock
        self._saved_at = clock.monotonic()
        # Differences found when the report was full.
        self._beyond: Counter[Difference] = Counter()
        self._people_beyond = 0

    async def enter(self, phase: RunPhase, total: int = 0) -> None:
        """Begin a phase of so many steps."""
        self.figures.enter(phase, total)
        await self.save()

    async def step(self, steps: int = 1) -> None:
        """Count steps of the phase."""
        self.figures.phase_done += steps
        if self._clock.monotonic() - self._saved_at >= _SAVE_SECONDS:
            await self.save()

    async def save(self) -> None:
        """Store the figures."""
        await self._store.save(self.run.run_id, self._holder, self.figures)
        self._saved_at = self._clock.monotonic()

    async def end(self, state: RunState, error: str) -> None:
        """End the run."""
        now = self._clock.now()
        await self._store.end(self.run.run_id, self._holder, state, error, now)

    async def checkpoint(self) -> Any:
        """Return the checkpoint of an interrupted attempt; None when there is none."""
        return await self._store.checkpoint(self.run.run_id)

    async def keep(self, checkpoint: object) -> None:
        """Store a checkpoint, from which an interrupted run continues."""
        await self._store.save_checkpoint(self.run.run_id, self._holder, checkpoint)

    async def add_drift(self, drifted: Mapping[int, set[Difference]]) -> None:
        """Count drifted users and store their ids.

        A user whom an earlier attempt at this run found and did not repair counts once.
        """
        figures, before = self.figures, self.figures.drift
        room = max(0, MAX_DRIFT_KEPT - sum(before.values()))
        found = [(user_id, it) for user_id, those in drifted.items() for it in sorted(those)]
        kept = await self._store.add_drift(self.run.run_id, found[:room])
        self._beyond.update(it for _, it in found[room:])
        self._people_beyond += len(drifted.keys() - {user_id for user_id, _ in found[:room]})
        figures.users_drifted = kept.users + self._people_beyond
        figures.drift = kept.differences + self._beyond
        for it, more in (figures.drift - before).items():
            metrics.drifted(it).inc(more)
        await self.save()

    def spend(self, cost: MySqlCost) -> None:
        """Add the cost of a read to the figures."""
        self.figures.mysql_statements += cost.statements
        self.figures.mysql_seconds += cost.seconds
        self.figures.rows_read += cost.rows
        metrics.MYSQL_SECONDS.inc(cost.seconds)
