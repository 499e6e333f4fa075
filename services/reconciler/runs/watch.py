"""Watches change capture, so that full runs replace it while it is silent."""

import logging
from datetime import datetime, timedelta
from typing import Final

from servicekit.clock import Clock
from servicekit.errors import ServiceError
from servicekit.leadership import Leadership
from services.reconciler import metrics
from services.reconciler.domain.freshness import (
    CaptureSigns,
    CaptureSwitch,
    Freshness,
    FreshnessMode,
    IngestStatus,
    next_freshness,
)
from services.reconciler.domain.runs import RunKind
from services.reconciler.store import RunStore
from services.reconciler.upstreams import ReconcilerUpstreams

_log = logging.getLogger(__name__)

# More than there are replicas of the ingest; while new moments arrive, change capture is alive.
_REMEMBERED: Final = 100


class FreshnessWatch:
    """Decides where freshness comes from, while this replica leads."""

    def __init__(
        self,
        upstreams: ReconcilerUpstreams,
        store: RunStore,
        leadership: Leadership,
        clock: Clock,
        *,
        switch: CaptureSwitch,
        silence: timedelta,
    ) -> None:
        self._upstreams = upstreams
        self._store = store
        self._leadership = leadership
        self._switch = switch
        self._silence = silence
        self._watched_since = clock.now()
        self._alive_at: datetime | None = None
        # Signs of life from the future, and when each was first received.
        self._ahead: dict[datetime, datetime] = {}

    async def run_once(self, now: datetime) -> Freshness | None:
        """Ask the ingest and store the freshness; a change of mode requests a full run.

        Returns None on a replica on standby.
        """
        if not self._leadership.is_held:
            return None
        before = await self._store.freshness()
        status: IngestStatus | None = None
        try:
            status = await self._upstreams.ingest_status()
        except ServiceError as error:
            _log.debug("ingest_not_asked", extra={"error": error.reason})
        if status is not None and status.capture_alive_at is not None:
            # Replicas of the ingest have received different messages: the newest counts.
            heard = self._not_ahead(status.capture_alive_at, now)
            self._alive_at = max(heard, self._alive_at or heard)
        signs = CaptureSigns(
            switch=self._switch,
            is_watched=self._upstreams.is_watching,
            watched_since=self._watched_since,
            status=status,
            capture_alive_at=self._alive_at,
        )
        start = before or Freshness(FreshnessMode.CHANGE_CAPTURE, now)
        after = next_freshness(start, signs, now, self._silence)
        metrics.BATCH_FRESHNESS.set(after.mode is FreshnessMode.BATCH)
        if after.mode is not start.mode:
            extra = {"mode": after.mode.value, "reason": after.reason}
            _log.warning("freshness_changed", extra=extra)
            why = after.reason or "change capture is back"
            # Requested before the mode is saved: after a stop in between, the run is still due.
            await self._store.request(RunKind.FULL, f"freshness: {why}", now)
        if after != before:
            await self._store.save_freshness(after)
        return after

    def _not_ahead(self, alive_at: datetime, now: datetime) -> datetime:
        """Return when the capture was alive; a moment in the future counts as its receipt.

        Replicas of the ingest answer with different moments in turn. Each counts as new only once,
        also after its time has come.
        """
        if alive_at <= now:
            return self._ahead.get(alive_at, alive_at)
        if len(self._ahead) >= _REMEMBERED and alive_at not in self._ahead:
            del self._ahead[next(iter(self._ahead))]
        return self._ahead.setdefault(alive_at, now)
