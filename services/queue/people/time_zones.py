"""The time zones in use, and those that cannot be loaded."""

import logging
from datetime import timedelta

from servicekit.clock import Clock
from services.queue import metrics
from services.queue.store import entries
from services.queue.store.database import Database

_log = logging.getLogger(__name__)

# A person of a new zone is called up to a minute late; no person is called too early.
_KEPT = timedelta(minutes=1)


class TimeZones:
    """Knows the zones of people, other than the usual one."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._found: list[str] = []
        self._read_at: float | None = None

    async def current(self) -> list[str]:
        """Return the zones; the answer is up to a minute old."""
        now = self._clock.monotonic()
        if self._read_at is None or now - self._read_at >= _KEPT.total_seconds():
            async with self._database.statements() as tx:
                self._found = await entries.time_zones(tx)
            self._read_at = now
        return self._found


class MissingZones:
    """Counts how often the usual zone stood in for one that cannot be loaded here.

    Each zone is logged the first time.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def note(self, time_zone: str) -> None:
        """Take note that the usual zone stood in for this one."""
        metrics.MISSING_ZONES.labels(time_zone).inc()
        if time_zone not in self._logged:
            self._logged.add(time_zone)
            _log.error("time_zone_missing", extra={"time_zone": time_zone})
