"""Limits of calls to a person and to a line, and the rest after a call without a report."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.queue.domain.rules import CallRules
from services.queue.types import Hold, Outcome, UserId


class PastCall(NamedTuple):
    """A call to a person: when it ended, and whether the agent has reported it."""

    ended_at: datetime
    is_reported: bool = True


class LineCall(NamedTuple):
    """A call to one number, for the person it was made to; `outcome` is None without a report."""

    phone: str
    user_id: UserId
    ended_at: datetime
    outcome: Outcome | None = None


class Cap(NamedTuple):
    """Until when a person is not called, and by which rule."""

    until: datetime
    hold: Hold


def capped(
    calls: Sequence[PastCall],
    line_calls: Sequence[LineCall],
    now: datetime,
    zone: ZoneInfo,
    rules: CallRules,
) -> Cap | None:
    """Return the latest of the caps that have been reached; None when there is none.

    `calls` are those to the person, `line_calls` those to each of the person's lines, also for
    other people, of the last `period_days` and in any order. A day is one of the person's `zone`.
    Each limit applies to the person and to each line by itself; the latest end counts.
    """
    caps = [unreported_rest(calls, now, rules)]
    for history in histories(calls, line_calls):
        caps += [daily_cap(history, now, zone, rules), period_cap(history, now, rules)]
    return max((cap for cap in caps if cap is not None), default=None)


def histories(calls: Sequence[PastCall], line_calls: Sequence[LineCall]) -> list[list[datetime]]:
    """Return the moments of the calls to the person, and of those to each line."""
    by_line: dict[str, list[datetime]] = {}
    for call in line_calls:
        by_line.setdefault(call.phone, []).append(call.ended_at)
    return [[call.ended_at for call in calls], *by_line.values()]


def calls_of_day(moments: Sequence[datetime], now: datetime, zone: ZoneInfo) -> int:
    """Return how many of the calls were made on the present day of that zone."""
    today = now.astimezone(zone).date()
    return sum(moment.astimezone(zone).date() == today for moment in moments)


def daily_cap(
    moments: Sequence[datetime], now: datetime, zone: ZoneInfo, rules: CallRules
) -> Cap | None:
    """Return the cap of the day if these calls have reached it."""
    if calls_of_day(moments, now, zone) < rules.attempts_per_day:
        return None
    today = now.astimezone(zone).date()
    tomorrow = today + timedelta(days=1)
    midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone)
    return Cap(midnight.astimezone(UTC), Hold.DAILY_CAP)


def period_cap(moments: Sequence[datetime], now: datetime, rules: CallRules) -> Cap | None:
    """Return the cap of the longer period if these calls have reached it."""
    if len(moments) < rules.attempts_per_period:
        return None
    # The next call may be when so many of the latest no longer lie within one period with it.
    first_of_full = sorted(moments)[-rules.attempts_per_period]
    until = first_of_full + timedelta(days=rules.period_days)
    return Cap(until, Hold.PERIOD_CAP) if until > now else None


def unreported_rest(calls: Sequence[PastCall], now: datetime, rules: CallRules) -> Cap | None:
    """Return the rest after a call that ended without a report, while it lasts."""
    rest = timedelta(minutes=rules.unreported_rest_minutes)
    ends = [call.ended_at + rest for call in calls if not call.is_reported]
    until = max(ends, default=now)
    return Cap(until, Hold.UNREPORTED_CALL) if until > now else None
