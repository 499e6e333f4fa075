"""Which runs are due."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.reconciler.domain.freshness import FreshnessMode
from services.reconciler.domain.runs import RunKind

# A full run compares every user that a CHANGED run does.
_COVERED_BY = {RunKind.CHANGED: (RunKind.CHANGED, RunKind.FULL)}


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often each kind runs; kinds that are missing never become due.

    A failed full run is due again `full_after_failure` later, whatever failed: it may have been
    requested to close a gap.
    """

    every: Mapping[RunKind, timedelta]
    full_in_batch_mode: timedelta
    full_after_failure: timedelta = timedelta(minutes=15)

    def due(
        self,
        mode: FreshnessMode,
        last_requested: Mapping[RunKind, datetime],
        begun_at: datetime,
        now: datetime,
        full_failed_at: datetime | None = None,
    ) -> list[RunKind]:
        """Return the kinds to be run now, the most urgent first.

        `last_requested` is when each was last requested, by the schedule or a caller; a kind never
        requested counts from `begun_at`, when the schedule was first looked at. `full_failed_at` is
        when the last requested full run failed, if it did.
        """
        every = dict(self.every)
        if mode is FreshnessMode.BATCH:
            every[RunKind.FULL] = self.full_in_batch_mode
            every.pop(RunKind.CHANGED, None)
        found = []
        for kind in RunKind:
            covering = _COVERED_BY.get(kind, (kind,))
            moments = [last_requested[it] for it in covering if it in last_requested]
            is_due = kind in every and now - max(moments, default=begun_at) >= every[kind]
            if kind is RunKind.FULL and full_failed_at is not None:
                is_due = is_due or now - full_failed_at >= self.full_after_failure
            if is_due:
                found.append(kind)
        return found
