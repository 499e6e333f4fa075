"""Which runs are due."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.reconciler.domain.freshness import FreshnessMode
from services.reconciler.domain.runs import RunKind

# What of the people a run looks at, another looks at too.
_COVERED_BY = {RunKind.CHANGED: (RunKind.CHANGED, RunKind.FULL)}


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often each kind runs by itself; kinds that are missing do not."""

    every: Mapping[RunKind, timedelta]
    full_in_batch_mode: timedelta

    def due(
        self,
        mode: FreshnessMode,
        last_requested: Mapping[RunKind, datetime],
        begun_at: datetime,
        now: datetime,
    ) -> list[RunKind]:
        """Return the kinds to be run now, the most urgent first.

        `last_requested` is when each was last asked for, whoever did; a kind never asked for counts
        from `begun_at`, when the schedule was first looked at.
        """
        return [
            kind
            for kind in RunKind
            if (every := self._every(kind, mode)) is not None
            and now - _last(kind, last_requested, begun_at) >= every
        ]

    def _every(self, kind: RunKind, mode: FreshnessMode) -> timedelta | None:
        if mode is FreshnessMode.BATCH:
            if kind is RunKind.FULL:
                return self.full_in_batch_mode
            if kind is RunKind.CHANGED:
                return None
        return self.every.get(kind)


def _last(
    kind: RunKind, last_requested: Mapping[RunKind, datetime], begun_at: datetime
) -> datetime:
    covering = _COVERED_BY.get(kind, (kind,))
    return max((last_requested[it] for it in covering if it in last_requested), default=begun_at)
