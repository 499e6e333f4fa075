"""The one copy that works: asks for the runs that are due, takes runs, sees them to their end."""

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from servicekit.clock import Clock
from servicekit.errors import Conflict, ServiceError
from services.reconciler import metrics
from services.reconciler.domain.freshness import Freshness, FreshnessMode
from services.reconciler.domain.runs import Run, RunKind, RunState, verdict
from services.reconciler.domain.schedule import Schedule
from services.reconciler.jobs import Jobs
from services.reconciler.patience import PASSING, GaveUpError
from services.reconciler.report import Report
from services.reconciler.store import Leadership, RunStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """What one look for work came to."""

    is_leading: bool
    has_more: bool = False


class Worker:
    """Looks for work; a copy that does not hold the lock does nothing.

    A run interrupted at any point, by a stop, a crash or a lost connection, stays RUNNING and is
    done again from what it has kept, here or in another copy.
    """

    def __init__(
        self, store: RunStore, leadership: Leadership, jobs: Jobs, schedule: Schedule, clock: Clock
    ) -> None:
        self._store = store
        self._leadership = leadership
        self._jobs = jobs
        self._schedule = schedule
        self._clock = clock
        self._began_at = clock.now()

    async def run_once(self, now: datetime) -> Round:
        """Do the run that has waited longest, if it is for us to do."""
        is_leading = await self._leadership.is_ours()
        metrics.LEADING.set(is_leading)
        if not is_leading:
            return Round(is_leading=False)
        await self._ask_for_due(now)
        holder = uuid4()
        run = await self._store.take(holder, self._clock.now())
        if run is None:
            return Round(is_leading=True)
        await self._do(run, Report(self._store, run, holder, self._clock))
        return Round(is_leading=True, has_more=True)

    async def stop(self) -> None:
        """Let another copy work; call it after the last `run_once`."""
        await self._leadership.release()

    async def _ask_for_due(self, now: datetime) -> None:
        fresh = await self._store.freshness()
        mode = FreshnessMode.CHANGE_CAPTURE if fresh is None else fresh.mode
        last = await self._store.last_requested(now)
        begun_at = await self._begun_at(fresh)
        for kind in self._schedule.due(mode, last, begun_at, now):
            await self._store.request(kind, f"schedule, {mode.value.lower()}", now)

    async def _begun_at(self, fresh: Freshness | None) -> datetime:
        """Return since when there have been reconcilers, as far as anything tells.

        Copies may live shorter than what is done once a day has to wait.
        """
        told = [await self._store.first_requested(), None if fresh is None else fresh.since]
        return min([self._began_at, *(moment for moment in told if moment is not None)])

    async def _do(self, run: Run, report: Report) -> None:
        extra = {"run_id": str(run.run_id), "kind": run.kind.value}
        _log.info("run_taken", extra=extra)
        try:
            await self._jobs.do(report)
            state, error = verdict(report.figures)
            await report.save()
        except GaveUpError as failure:
            state, error = RunState.FAILED, f"gave up: {failure}"
            await self._ask_again(run.kind)
        except Conflict as conflict:
            _log.warning("run_lost", extra={**extra, "error": str(conflict)})
            await self._leadership.release()
            return
        except PASSING:
            # Our own database: the upstreams' were waited for. The run stays as it is.
            raise
        except ServiceError as refusal:
            state, error = RunState.FAILED, f"refused: {refusal}"
        except Exception as defect:
            # It would else be taken up again and again, and no other would ever have its turn.
            _log.exception("run_broke", extra=extra)
            state, error = RunState.FAILED, f"broke: {type(defect).__name__}"
        await report.end(state, error)
        metrics.RUNS.labels(run.kind.value.lower(), state.value.lower()).inc()
        if state is RunState.SUCCEEDED and run.started_at is not None:
            metrics.LAST_SUCCESS.labels(run.kind.value.lower()).set(run.started_at.timestamp())
        _log.info("run_ended", extra={**extra, "state": state.value, "error": error})

    async def _ask_again(self, kind: RunKind) -> None:
        """Have another full run wait for the upstreams: this one may have been to close a gap."""
        if kind is RunKind.FULL:
            await self._store.request(kind, "the one before gave up", self._clock.now())
