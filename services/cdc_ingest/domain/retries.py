"""How long to wait before another try."""

import math
from dataclasses import dataclass

MAX_VISIBILITY_SECONDS = 43_200


@dataclass(frozen=True, slots=True)
class BackOff:
    """Doubling delays from `first_seconds` up to `longest_seconds`."""

    first_seconds: float
    longest_seconds: float

    def seconds(self, attempt: int, luck: float) -> float:
        """Return the delay after the failed `attempt` (from 1); `luck` in [0, 1) spreads it.

        Never less than half of the full delay.
        """
        doublings = min(max(attempt - 1, 0), 30)
        full = min(self.longest_seconds, self.first_seconds * 2.0**doublings)
        return full * (0.5 + luck / 2.0)

    def visibility_seconds(self, attempt: int, luck: float) -> int:
        """Return the delay as SQS takes it: whole seconds, rounded up, 12 hours at most."""
        return min(MAX_VISIBILITY_SECONDS, math.ceil(self.seconds(attempt, luck)))
