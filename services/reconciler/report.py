"""The report of a run while it is written."""

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

from servicekit.clock import Clock
from services.reconciler import metrics
from services.reconciler.domain.drift import Difference
from services.reconciler.domain.runs import Figures, Run, RunPhase, RunState
from services.reconciler.store import RunStore
from services.reconciler.upstreams import Cost

_SAVE_SECONDS = 0.5
# A report beyond this is read by nobody; the counts go on.
MAX_DRIFT_KEPT = 10_000


class Report:
    """Keeps a run's figures in PostgreSQL, at most twice a second while nothing else asks for it.

    Every method that saves raises Conflict (RUN_TAKEN_OVER) when another copy works on the run.
    """

    def __init__(self, store: RunStore, run: Run, holder: UUID, clock: Clock) -> None:
        self.figures: Figures = run.figures
        self.figures.begin_again()
        self.run = run
        self._store = store
        self._holder = holder
        self._clock = clock
        self._saved_at = clock.monotonic()
        # Found when the report was full.
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
        """Store the figures as they are."""
        await self._store.save(self.run.run_id, self._holder, self.figures)
        self._saved_at = self._clock.monotonic()

    async def end(self, state: RunState, error: str) -> None:
        """End the run."""
        now = self._clock.now()
        await self._store.end(self.run.run_id, self._holder, state, error, now)

    async def checkpoint(self) -> object:
        """Return what the run kept before it was interrupted; None for nothing."""
        return await self._store.checkpoint(self.run.run_id)

    async def keep(self, checkpoint: object) -> None:
        """Keep what need not be read again after an interruption."""
        await self._store.save_checkpoint(self.run.run_id, self._holder, checkpoint)

    async def add_drift(self, drifted: Mapping[int, set[Difference]]) -> None:
        """Count people who had drifted, and keep who they are.

        Whoever an attempt before this one found, and had no time to put right, counts once.
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

    def spend(self, cost: Cost) -> None:
        """Add what something took of MySQL."""
        self.figures.mysql_statements += cost.statements
        self.figures.mysql_seconds += cost.seconds
        self.figures.rows_read += cost.rows
        metrics.MYSQL_SECONDS.inc(cost.seconds)
