"""How long to wait before another try, and which failures call for one."""

import random
from dataclasses import dataclass
from typing import Final

from servicekit.errors import (
    DeadlineExceeded,
    Exhausted,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

# The service, or something that it needs, is unavailable.
UNAVAILABLE: Final = (Unavailable, DeadlineExceeded)
# The service is unavailable or overloaded: the same request may succeed later.
TRY_AGAIN: Final = (*UNAVAILABLE, Exhausted)
# The request itself is not at fault: while the service is in this state every other one fails too.
SERVICE_FAULTS: Final = (*TRY_AGAIN, Unauthenticated, PermissionDenied)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double from `first_seconds` up to `longest_seconds`.

    Each is multiplied by a random factor between the two of `jitter`, so that replicas that failed
    together do not come back together.
    """

    first_seconds: float
    longest_seconds: float
    jitter: tuple[float, float] = (0.5, 1.0)

    def delay_seconds(self, attempt: int, retry_after_seconds: float | None = None) -> float:
        """Return the delay after the failed `attempt` (from 1).

        `retry_after_seconds` is what the failed service has asked for; it is added in full.
        """
        doublings = min(max(attempt - 1, 0), 30)
        delay = min(self.longest_seconds, self.first_seconds * 2.0**doublings)
        # Jitter needs no secrecy.
        return delay * random.uniform(*self.jitter) + (retry_after_seconds or 0.0)  # noqa: S311
