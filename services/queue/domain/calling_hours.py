"""The hours of the day, days of the week and holidays on which people are phoned."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import holidays

from services.queue.rules import CallingHoursRules, Day, DayHours

# Longer than any run of days without a call, unless there is no day with one at all.
_LOOK_AHEAD_DAYS = 30


class CallingHours:
    """The rules of calling hours, ready to be asked.

    Local times are those of the zone's clocks on that day, so a day of 23 or 25 hours opens and
    closes when its clocks say so.
    """

    def __init__(self, rules: CallingHoursRules) -> None:
        self._zone = ZoneInfo(rules.time_zone)
        self._days: dict[int, DayHours] = {list(Day).index(it): v for it, v in rules.days.items()}
        self._holidays: holidays.HolidayBase | None = None
        if rules.holidays is not None:
            self._holidays = holidays.country_holidays(
                rules.holidays.country, subdiv=rules.holidays.subdivision
            )

    def are_open(self, at: datetime) -> bool:
        """Return whether people may be phoned at that moment."""
        return self.open_at(at) == at

    def open_at(self, at: datetime) -> datetime | None:
        """Return the earliest moment from `at` on at which people may be phoned.

        That is `at` itself within calling hours, and None when there are none in the month ahead.
        """
        for begins, ends in self._periods(at.astimezone(self._zone).date()):
            if at < ends:
                return max(at, begins)
        return None

    def _periods(self, first: date) -> Iterator[tuple[datetime, datetime]]:
        """Yield the beginning and end, in UTC, of each day that has hours, from `first` on."""
        for ahead in range(_LOOK_AHEAD_DAYS + 1):
            day = first + timedelta(days=ahead)
            hours = self._days.get(day.weekday())
            if hours is None or (self._holidays is not None and day in self._holidays):
                continue
            yield self._moment(day, hours.begins_minute), self._moment(day, hours.ends_minute)

    def _moment(self, day: date, minute: int) -> datetime:
        days, rest = divmod(minute, 24 * 60)
        local = datetime.combine(day + timedelta(days=days), time(rest // 60, rest % 60))
        # Comparing moments of one zone compares their clocks; in UTC it compares the moments.
        return local.replace(tzinfo=self._zone).astimezone(UTC)
