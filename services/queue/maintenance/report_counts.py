"""Counts what reports tell, a day at a time, beside the tables that are counted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from services.queue.people.rulebook import Rulebook
from services.queue.store import reports
from services.queue.store.database import Database

# Late reports and amendments change days that are over: such days are counted once more a day.
DAYS_COUNTED_AGAIN = 35
_AGAIN_AFTER = timedelta(days=1)
_DAYS_PER_RUN = 10


@dataclass(frozen=True, slots=True)
class CountedDays:
    """How many days one run has counted."""

    days: int
    has_more: bool = False


class ReportCounts:
    """Keeps the figures of reports; one replica counts at a time.

    The day of the company's time zone that is under way is counted at each run, the days before it
    once they are over, and those of DAYS_COUNTED_AGAIN once a day after that.
    """

    def __init__(self, database: Database, rulebook: Rulebook) -> None:
        self._database = database
        self._rulebook = rulebook

    async def run_once(self, now: datetime) -> CountedDays:
        """Count people now, and up to _DAYS_PER_RUN days, all in one transaction."""
        zone = ZoneInfo(self._rulebook.rules.calls.company_time_zone)
        local = now.astimezone(zone)
        async with self._database.transaction() as tx:
            if not await reports.lock_counting(tx):
                return CountedDays(0)
            await reports.count_people(tx, local.date(), f"{local:%H}")
            first = await reports.first_moment(tx)
            first_day = local.date() if first is None else first.astimezone(zone).date()
            counted = await reports.counted_days(tx, first_day)
            due = list(_due(first_day, counted, zone, now))
            for day in due[:_DAYS_PER_RUN]:
                start, end = _bounds(day, zone)
                await reports.count_day(tx, day, start, end, zone.key, now)
        return CountedDays(len(due[:_DAYS_PER_RUN]), has_more=len(due) > _DAYS_PER_RUN)


def _due(
    first: date, counted: Mapping[date, datetime], zone: ZoneInfo, now: datetime
) -> Iterator[date]:
    """Yield the days to count, in their order."""
    today = now.astimezone(zone).date()
    for ago in range((today - first).days, -1, -1):
        day = today - timedelta(days=ago)
        counted_at = counted.get(day)
        if (
            counted_at is None
            or counted_at < _bounds(day, zone)[1]
            or (ago <= DAYS_COUNTED_AGAIN and now - counted_at >= _AGAIN_AFTER)
        ):
            yield day


def _bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    following = day + timedelta(days=1)
    return datetime.combine(day, time(), zone), datetime.combine(following, time(), zone)
