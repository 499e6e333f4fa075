"""When people may be phoned, from the law's and the company's words, by London's clocks."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import holidays

LONDON = ZoneInfo("Europe/London")
LONG_AGO = datetime.min.replace(tzinfo=LONDON)
_ENGLAND = holidays.country_holidays("GB", subdiv="ENG")
_SATURDAY, _SUNDAY = 5, 6


def are_open(at: datetime) -> bool:
    """Return whether people may be phoned at that moment."""
    opening = opened_at(at)
    return opening is not None


def opened_at(at: datetime) -> datetime | None:
    """Return when the calling hours that `at` lies in began; None outside calling hours."""
    hours = _hours(at.astimezone(LONDON).date())
    if hours is None or not hours[0] <= at < hours[1]:
        return None
    return hours[0]


def next_open(at: datetime) -> datetime:
    """Return the first moment from `at` on at which a person may be phoned."""
    day = day_of(at)
    while True:
        hours = _hours(day)
        if hours is not None and at < hours[1]:
            return max(at, hours[0])
        day += timedelta(days=1)


@lru_cache(maxsize=400)
def _hours(day: date) -> tuple[datetime, datetime] | None:
    weekday = day.weekday()
    if weekday == _SUNDAY or day in _ENGLAND:
        return None
    first, last = (time(9), time(17)) if weekday == _SATURDAY else (time(8), time(20))
    return _utc(day, first), _utc(day, last)


def _utc(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, tzinfo=LONDON).astimezone(UTC)


def day_of(at: datetime) -> date:
    """Return London's date."""
    return at.astimezone(LONDON).date()


def next_day(at: datetime) -> datetime:
    """Return London's next midnight."""
    return _utc(day_of(at) + timedelta(days=1), time(0))
