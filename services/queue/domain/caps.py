"""How often a person may be called: caps by day and by a longer period."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.queue.domain.terms import Hold
from services.queue.rules import CallRules


class Cap(NamedTuple):
    """Until when a person is not called, and which cap says so."""

    until: datetime
    hold: Hold


def capped(
    calls: Sequence[datetime], now: datetime, zone: ZoneInfo, rules: CallRules
) -> Cap | None:
    """Return the cap that `calls` have reached, the later one if both; None when there is none.

    `calls` are the moments of the person's calls of the last `period_days`, in any order; a day is
    one of the person's `zone`.
    """
    caps = [_daily(calls, now, zone, rules), _of_period(calls, now, rules)]
    return max((cap for cap in caps if cap is not None), default=None)


def calls_of_day(calls: Sequence[datetime], now: datetime, zone: ZoneInfo) -> int:
    """Return how many of the calls were made on the present day of that zone."""
    today = now.astimezone(zone).date()
    return sum(call.astimezone(zone).date() == today for call in calls)


def _daily(
    calls: Sequence[datetime], now: datetime, zone: ZoneInfo, rules: CallRules
) -> Cap | None:
    if calls_of_day(calls, now, zone) < rules.attempts_per_day:
        return None
    today = now.astimezone(zone).date()
    tomorrow = today + timedelta(days=1)
    midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone)
    return Cap(midnight.astimezone(UTC), Hold.DAILY_CAP)


def _of_period(calls: Sequence[datetime], now: datetime, rules: CallRules) -> Cap | None:
    if len(calls) < rules.attempts_per_period:
        return None
    # The next call may be when so many of the latest no longer lie within one period with it.
    first_of_full = sorted(calls)[-rules.attempts_per_period]
    until = first_of_full + timedelta(days=rules.period_days)
    return Cap(until, Hold.PERIOD_CAP) if until > now else None
