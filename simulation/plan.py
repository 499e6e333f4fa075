"""How large a simulated week is, and when."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

LONDON = ZoneInfo("Europe/London")
# An ordinary week: no holiday, no change of the clocks.
ORDINARY_MONDAY = date(2026, 6, 8)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate; the same plan makes the same people, agents and choices.

    `rules_path` gives the queue other rules than it ships with, the checker keeping its own.
    `ends_at` cuts the last day short.
    """

    people: int
    agents: int
    changes: int
    days: int
    seed: int = 1
    first_day: date = ORDINARY_MONDAY
    ends_at: time | None = None
    rules_path: Path | None = None
    tick_seconds: float = 5.0
    # Real time between runs of the queue's loops: less goes faster and costs more.
    loop_seconds: float = 0.05
    # Of every service; those of the queue run in one process.
    copies: int = 1
    # Where the services' logs are left; nowhere unless given.
    logs: Path | None = None

    @property
    def begins(self) -> datetime:
        """The moment at which the people have been made and no person has been called."""
        return _utc(self.first_day, time(7))

    @property
    def ends(self) -> datetime:
        """The end of the last day."""
        last = self.first_day + timedelta(days=self.days - 1)
        return _utc(last, self.ends_at or time(21))

    def moment(self, day: int, clock: time) -> datetime:
        """Return that time of London's clocks on the day with that number, from 0."""
        return _utc(self.first_day + timedelta(days=day), clock)


def _utc(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, tzinfo=LONDON).astimezone(UTC)
