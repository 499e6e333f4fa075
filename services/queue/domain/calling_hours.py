"""The hours of the day, days of the week and holidays on which people are phoned."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import holidays

from services.queue.rules import CallingHoursRules, Day, DayHours

# Longer than any run of days without a call, unless there is no day with one at all.
_LOOK_AHEAD_DAYS = 30


class CallingHours:
    """The rules of calling hours, ready to be asked.

    Local times are those of the zone's clocks on that day, so a day of 23 or 25 hours opens and
    closes when its clocks say so. A zone that is None is the usual one.
    """

    def __init__(self, rules: CallingHoursRules) -> None:
        self.usual_zone = rules.time_zone
        self._days: dict[int, DayHours] = {list(Day).index(it): v for it, v in rules.days.items()}
        self._holidays: holidays.HolidayBase | None = None
        if rules.holidays is not None:
            self._holidays = holidays.country_holidays(
                rules.holidays.country, subdiv=rules.holidays.subdivision
            )

    def are_open(self, at: datetime, time_zone: str | None = None) -> bool:
        """Return whether people of that zone may be phoned at that moment."""
        return self.open_at(at, time_zone) == at

    def open_at(self, at: datetime, time_zone: str | None = None) -> datetime | None:
        """Return the earliest moment from `at` on at which people of that zone may be phoned.

        That is `at` itself within calling hours, and None when there are none in the month ahead.
        """
        zone = self.zone(time_zone)
        for begins, ends in self._periods(at.astimezone(zone).date(), zone):
            if at < ends:
                return max(at, begins)
        return None

    def open_zones(self, at: datetime, time_zones: Iterable[str]) -> list[str]:
        """Return those of the zones whose people may be phoned at that moment."""
        return [it for it in time_zones if self.are_open(at, it)]

    def zone(self, time_zone: str | None) -> ZoneInfo:
        """Return the clocks of a zone by its name."""
        return _zone(time_zone or self.usual_zone)

    def _periods(self, first: date, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
        """Yield the beginning and end, in UTC, of each day that has hours, from `first` on."""
        for ahead in range(_LOOK_AHEAD_DAYS + 1):
            day = first + timedelta(days=ahead)
            hours = self._days.get(day.weekday())
            if hours is None or (self._holidays is not None and day in self._holidays):
                continue
            yield _moment(day, hours.begins_minute, zone), _moment(day, hours.ends_minute, zone)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _moment(day: date, minute: int, zone: ZoneInfo) -> datetime:
    days, rest = divmod(minute, 24 * 60)
    local = datetime.combine(day + timedelta(days=days), time(rest // 60, rest % 60))
    # Comparing moments of one zone compares their clocks; in UTC it compares the moments.
    return local.replace(tzinfo=zone).astimezone(UTC)
