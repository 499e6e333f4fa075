"""A circuit breaker for a dependency that fails several times in a row."""

from servicekit.clock import Clock


class Breaker:
    """Refuses attempts for ``pause_seconds`` after ``failures`` in a row, then allows one.

    Until that attempt has succeeded or failed, others are refused, for another pause at most.
    """

    def __init__(self, clock: Clock, *, failures: int = 3, pause_seconds: float = 1.0) -> None:
        self._clock = clock
        self._limit = failures
        self._pause_seconds = pause_seconds
        self._failures = 0
        self._closed_until = 0.0

    def allows(self) -> bool:
        """Return whether an attempt may be made now."""
        if self._failures < self._limit:
            return True
        now = self._clock.monotonic()
        if now < self._closed_until:
            return False
        self._closed_until = now + self._pause_seconds
        return True

    def succeeded(self) -> None:
        """Count a success: everything is allowed again."""
        self._failures = 0

    def failed(self) -> None:
        """Count a failure."""
        self._failures += 1
        if self._failures >= self._limit:
            self._closed_until = self._clock.monotonic() + self._pause_seconds
