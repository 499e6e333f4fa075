"""Pauses: times in which no person is handed out from one queue, or from any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from servicekit.errors import InvalidArgument
from services.queue.domain.rules import PauseRules
from services.queue.types import Queue


@dataclass(frozen=True, slots=True)
class QueuePause:
    """A pause of `queue`, None for all queues, from `begins_at` until just before `ends_at`.

    `ended_by` is the actor who ended it early, None when no actor did.
    """

    pause_id: UUID
    queue: Queue | None
    begins_at: datetime
    ends_at: datetime
    reason: str
    created_by: str
    created_at: datetime
    ended_by: str | None = None

    def covers(self, queue: Queue | None) -> bool:
        """Return whether it concerns people of that queue."""
        return self.queue is None or self.queue is queue

    def is_in_force(self, at: datetime) -> bool:
        """Return whether the moment lies within it."""
        return self.begins_at <= at < self.ends_at


def require_pausable(
    begins_at: datetime, ends_at: datetime, now: datetime, rules: PauseRules
) -> None:
    """Raise InvalidArgument unless a pause may last from one moment to the other."""
    if ends_at <= max(begins_at, now):
        raise InvalidArgument("PAUSE_TIME_INVALID", "a pause ends after it begins, in the future")
    if ends_at - begins_at > timedelta(days=rules.longest_days):
        raise InvalidArgument(
            "PAUSE_TOO_LONG",
            f"a pause lasts {rules.longest_days:g} days at most",
            longest_days=f"{rules.longest_days:g}",
        )


def opening_outside(
    pauses: Sequence[QueuePause], opening: Callable[[datetime], datetime | None]
) -> Callable[[datetime], datetime | None]:
    """Return an opening that also lies in none of the pauses."""

    def opens_at(at: datetime) -> datetime | None:
        open_at = opening(at)
        while open_at is not None:
            over_at = [it.ends_at for it in pauses if it.is_in_force(open_at)]
            if not over_at:
                return open_at
            open_at = opening(max(over_at))
        return None

    return opens_at
