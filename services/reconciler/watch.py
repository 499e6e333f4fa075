"""Watching change capture, so that runs stand in for it while it is silent."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.reconciler import metrics
from services.reconciler.domain.freshness import (
    CaptureSwitch,
    Freshness,
    FreshnessMode,
    Pipeline,
    Signs,
    judged,
)
from services.reconciler.domain.runs import RunKind
from services.reconciler.store import Leadership, RunStore
from services.reconciler.upstreams import Upstreams

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at change capture came to; None in copies that only stand by."""

    freshness: Freshness | None


class CaptureWatch:
    """Judges where freshness comes from; only the copy that works does."""

    def __init__(
        self,
        upstreams: Upstreams,
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

    async def run_once(self, now: datetime) -> Seen:
        """Ask the ingest, judge, and say so; a full run closes what came between the modes."""
        if not self._leadership.is_held:
            return Seen(None)
        before = await self._store.freshness()
        pipeline = await self._ask()
        if pipeline is not None and pipeline.capture_alive_at is not None:
            # Copies of the ingest have heard different messages: the newest counts.
            heard = pipeline.capture_alive_at
            self._alive_at = max(heard, self._alive_at or heard)
        signs = Signs(
            switch=self._switch,
            is_watched=self._upstreams.is_watching,
            watched_since=self._watched_since,
            pipeline=pipeline,
            capture_alive_at=self._alive_at,
        )
        start = before or Freshness(FreshnessMode.CHANGE_CAPTURE, now)
        after = judged(start, signs, now, self._silence)
        metrics.BATCH_FRESHNESS.set(after.mode is FreshnessMode.BATCH)
        if after.mode is not start.mode:
            # First, or a stop in between would leave nobody who knows that it is wanted.
            await self._changed(after, now)
        if after != before:
            await self._store.save_freshness(after)
        return Seen(after)

    async def _ask(self) -> Pipeline | None:
        try:
            return await self._upstreams.pipeline()
        except ServiceError as error:
            _log.debug("ingest_not_asked", extra={"error": error.reason})
            return None

    async def _changed(self, after: Freshness, now: datetime) -> None:
        extra = {"mode": after.mode.value, "reason": after.reason}
        _log.warning("freshness_changed", extra=extra)
        why = after.reason or "change capture is back"
        await self._store.request(RunKind.FULL, f"freshness: {why}", now)
