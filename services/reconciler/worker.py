"""The one copy that works: takes runs and walks them to their end."""

import logging
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

from servicekit.clock import Clock
from servicekit.errors import Conflict
from services.reconciler import metrics
from services.reconciler.domain import Run, RunState, verdict
from services.reconciler.store import Leadership, RunStore
from services.reconciler.sweep import GaveUpError, Pace, Sweep
from services.reconciler.upstreams import Upstreams

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """What one look for work came to."""

    is_leading: bool
    has_more: bool = False


class Worker:
    """Looks for work; a copy that does not hold the lock does nothing.

    A run interrupted at any point, by a stop, a crash or a lost connection, stays RUNNING and is
    gone on with from the last page saved, here or in another copy.
    """

    def __init__(
        self,
        store: RunStore,
        leadership: Leadership,
        upstreams: Upstreams,
        pace: Pace,
        clock: Clock,
    ) -> None:
        self._store = store
        self._leadership = leadership
        self._upstreams = upstreams
        self._pace = pace
        self._clock = clock

    async def run_once(self, _now: datetime) -> Round:
        """Walk the run that has waited longest, if it is for us to do."""
        is_leading = await self._leadership.is_ours()
        metrics.LEADING.set(is_leading)
        if not is_leading:
            return Round(is_leading=False)
        holder = uuid4()
        run = await self._store.take(holder, self._clock.now())
        if run is None:
            return Round(is_leading=True)
        await self._walk(run, holder)
        return Round(is_leading=True, has_more=True)

    async def stop(self) -> None:
        """Let another copy work; call it after the last `run_once`."""
        await self._leadership.release()

    async def _walk(self, run: Run, holder: UUID) -> None:
        extra = {"run_id": str(run.run_id), "after_user_id": run.progress.last_user_id}
        _log.info("run_taken", extra=extra)
        save = partial(self._store.save, run.run_id, holder)
        sweep = Sweep(self._upstreams, self._pace, self._clock, save)
        try:
            state, error = verdict(await sweep.run(run.progress))
        except GaveUpError as failure:
            state, error = RunState.FAILED, f"gave up: {failure}"
        except Conflict as conflict:
            _log.warning("run_lost", extra={**extra, "error": str(conflict)})
            await self._leadership.release()
            return
        await self._store.end(run.run_id, holder, state, error, self._clock.now())
        metrics.RUNS.labels(state.value).inc()
        _log.info("run_ended", extra={**extra, "state": state.value, "error": error})
