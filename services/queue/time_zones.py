"""The zones people live in, as far as there are people in other than the usual one."""

from datetime import timedelta

from servicekit.clock import Clock
from services.queue.store import entries
from services.queue.store.database import Database

# Somebody of a zone that is new is called a minute later; nobody is called too early.
_KEPT = timedelta(minutes=1)


class TimeZones:
    """Knows the zones in use."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._found: list[str] = []
        self._read_at: float | None = None

    async def current(self) -> list[str]:
        """Return the zones in use, other than the usual one; up to a minute old."""
        now = self._clock.monotonic()
        if self._read_at is None or now - self._read_at >= _KEPT.total_seconds():
            async with self._database.statements() as tx:
                self._found = await entries.time_zones(tx)
            self._read_at = now
        return self._found
