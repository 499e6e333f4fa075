"""A clock that moves only when told to."""

from datetime import UTC, datetime, timedelta

_START = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)


class FakeClock:
    """Clock for tests: wall and monotonic time advance together."""

    def __init__(self, start: datetime = _START) -> None:
        if start.tzinfo is None:
            raise ValueError("start must be an aware datetime")
        self._now = start.astimezone(UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Return the time it was last set to, aware, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds advanced since it was made."""
        return self._monotonic

    def advance(self, step: timedelta | float) -> datetime:
        """Move forward by `step` (a float is seconds) and return the new wall time."""
        delta = step if isinstance(step, timedelta) else timedelta(seconds=step)
        if delta < timedelta(0):
            raise ValueError("a clock never goes back; use move_wall_to")
        self._now += delta
        self._monotonic += delta.total_seconds()
        return self._now

    def move_wall_to(self, moment: datetime) -> None:
        """Set the wall time, backwards too, leaving monotonic time as it is."""
        if moment.tzinfo is None:
            raise ValueError("moment must be an aware datetime")
        self._now = moment.astimezone(UTC)
