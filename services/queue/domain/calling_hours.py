"""The hours of the day, days of the week and holidays on which people are phoned."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.queue.domain.rules import CallingHoursRules, Day, DayHours

# Longer than any run of days without a call, unless there is no day with one at all.
_LOOK_AHEAD_DAYS = 30


class CallingHours:
    """The rules of calling hours, ready to be applied.

    Local times are those of the zone's clocks on that day, so a day of 23 or 25 hours opens and
    closes by its clocks. A zone that is None is the usual one, and so is one that cannot
    be loaded here.
    """

    def __init__(
        self,
        rules: CallingHoursRules,
        on_missing_zone: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_missing_zone` is called with the name of a zone whenever the usual one stands in."""
        self._usual = ZoneInfo(rules.time_zone)
        self._on_missing_zone = on_missing_zone
        # None for a zone that cannot be loaded, so that it is looked for once.
        self._zones: dict[str, ZoneInfo | None] = {rules.time_zone: self._usual}
        self._days: dict[int, DayHours] = {list(Day).index(it): v for it, v in rules.days.items()}
        self._holidays = rules.holidays or ()

    def are_open(self, at: datetime, time_zone: str | None = None) -> bool:
        """Return whether people of that zone may be phoned at that moment."""
        return self.open_at(at, time_zone) == at

    def open_at(self, at: datetime, time_zone: str | None = None) -> datetime | None:
        """Return the earliest moment from `at` on at which people of that zone may be phoned.

        That is `at` itself within calling hours, and None when there are none in the month ahead.
        """
        zone = self.zone(time_zone)
        first = at.astimezone(zone).date()
        for ahead in range(_LOOK_AHEAD_DAYS + 1):
            day = first + timedelta(days=ahead)
            hours = self._days.get(day.weekday())
            if hours is None or day in self._holidays:
                continue
            if at < _moment(day, hours.ends_minute, zone):
                return max(at, _moment(day, hours.begins_minute, zone))
        return None

    def open_zones(self, at: datetime, time_zones: Iterable[str]) -> list[str]:
        """Return those of the zones whose people may be phoned at that moment."""
        return [it for it in time_zones if self.are_open(at, it)]

    def zone(self, time_zone: str | None) -> ZoneInfo:
        """Return the clocks of a zone by its name, the usual ones if it cannot be loaded."""
        if time_zone is None:
            return self._usual
        if time_zone not in self._zones:
            try:
                self._zones[time_zone] = ZoneInfo(time_zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                # Not known here, no name at all, or a folder of the database such as "Europe".
                self._zones[time_zone] = None
        zone = self._zones[time_zone]
        if zone is None:
            self._on_missing_zone(time_zone)
        return zone or self._usual


def _moment(day: date, minute: int, zone: ZoneInfo) -> datetime:
    days, rest = divmod(minute, 24 * 60)
    local = datetime.combine(day + timedelta(days=days), time(rest // 60, rest % 60))
    # Comparing moments of one zone compares their clocks; in UTC it compares the moments.
    return local.replace(tzinfo=zone).astimezone(UTC)
