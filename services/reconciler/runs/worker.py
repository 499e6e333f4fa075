"""The leading replica's work: it requests the runs that are due, takes runs and ends them."""

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from servicekit.clock import Clock
from servicekit.errors import Conflict, ServiceError
from servicekit.leadership import Leadership
from services.reconciler import metrics
from services.reconciler.domain.freshness import FreshnessMode
from services.reconciler.domain.runs import Run, RunKind, RunState, verdict
from services.reconciler.domain.schedule import Schedule
from services.reconciler.report import RunReport
from services.reconciler.retry import TRANSIENT_ERRORS, GaveUpError
from services.reconciler.runs.jobs import Jobs
from services.reconciler.store import RunStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkResult:
    """The result of one look for work."""

    is_leading: bool
    has_more: bool = False


class Worker:
    """Does runs, one at a time, while this replica holds the lock.

    A run interrupted at any point, by a stop, a crash or a lost connection, stays RUNNING and is
    done again from its checkpoint, by this or another replica.
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

    async def run_once(self, now: datetime) -> WorkResult:
        """Request the runs that are due, and do the run that has waited longest."""
        is_leading = await self._leadership.is_ours()
        metrics.LEADING.set(is_leading)
        if not is_leading:
            # The metric of the leading replica counts.
            metrics.WITHHELD.clear()
            return WorkResult(is_leading=False)
        freshness = await self._store.freshness()
        mode = FreshnessMode.CHANGE_CAPTURE if freshness is None else freshness.mode
        last = await self._store.last_requested(now)
        # A replica may live shorter than the interval of a daily run, so older signs of a
        # reconciler count as the beginning.
        known = [
            await self._store.first_requested(),
            None if freshness is None else freshness.since,
        ]
        begun_at = min([self._began_at, *(moment for moment in known if moment is not None)])
        failed_at = await self._store.last_failed_at(RunKind.FULL, now)
        for kind in self._schedule.due(mode, last, begun_at, now, failed_at):
            await self._store.request(kind, f"schedule, {mode.value.lower()}", now)
        holder = uuid4()
        run = await self._store.take(holder, self._clock.now())
        if run is None:
            return WorkResult(is_leading=True)
        await self._do(run, RunReport(self._store, run, holder, self._clock))
        return WorkResult(is_leading=True, has_more=True)

    async def stop(self) -> None:
        """Release the lock; call it after the last `run_once`."""
        await self._leadership.release()

    async def _do(self, run: Run, report: RunReport) -> None:
        extra = {"run_id": str(run.run_id), "kind": run.kind.value}
        _log.info("run_taken", extra=extra)
        try:
            await self._jobs.do(report)
            state, error = verdict(report.figures)
            await report.save()
        except GaveUpError as failure:
            state, error = RunState.FAILED, f"gave up: {failure}"
            if run.kind is RunKind.FULL:
                # The run may have been to close a gap. The next one does not inherit `allow_gone`,
                # which was given for one run.
                await self._store.request(run.kind, "the one before gave up", self._clock.now())
        except Conflict as conflict:
            _log.warning("run_lost", extra={**extra, "error": str(conflict)})
            await self._leadership.release()
            return
        except TRANSIENT_ERRORS:
            # Only our own database raises these here; the run stays RUNNING.
            raise
        except ServiceError as refusal:
            state, error = RunState.FAILED, f"refused: {refusal}"
        except Exception as defect:
            # A run that stayed RUNNING would be taken again and again, before every other run.
            _log.exception("run_broke", extra=extra)
            state, error = RunState.FAILED, f"broke: {type(defect).__name__}"
        await report.end(state, error)
        metrics.RUNS.labels(run.kind.value.lower(), state.value.lower()).inc()
        if state is RunState.SUCCEEDED and run.started_at is not None:
            metrics.LAST_SUCCESS.labels(run.kind.value.lower()).set(run.started_at.timestamp())
        _log.info("run_ended", extra={**extra, "state": state.value, "error": error})
