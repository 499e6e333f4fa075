"""Caps never let one call too many through, and never hold longer than they must."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.queue.domain.caps import capped
from services.queue.domain.terms import Hold
from services.queue.rules import load_rules

CALLS = load_rules().calls
LONDON = ZoneInfo("Europe/London")
PERIOD = timedelta(days=28)
INSTANT = timedelta(microseconds=1)
# Both changes of the clocks lie ahead of one of them.
STARTS = [datetime(2025, 3, 20, 8, tzinfo=UTC), datetime(2025, 10, 15, 8, tzinfo=UTC)]


def _allowed(calls: list[datetime], at: datetime, zone: ZoneInfo) -> bool:
    """Whether one more call would break a cap; counted in the plainest way."""
    today = at.astimezone(zone).date()
    of_day = [it for it in calls if it.astimezone(zone).date() == today]
    of_period = [it for it in calls if at - PERIOD < it <= at]
    return len(of_day) < 3 and len(of_period) < 10


@settings(deadline=None)
@given(
    start=st.sampled_from(STARTS),
    zone=st.sampled_from([LONDON, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")]),
    pauses=st.lists(
        st.sampled_from([timedelta(0), timedelta(minutes=5), timedelta(hours=7)])
        | st.timedeltas(timedelta(0), timedelta(days=9)),
        min_size=1,
        max_size=60,
    ),
)
def test_calls_made_as_soon_as_caps_let_them_break_none_and_could_not_be_sooner(
    start: datetime, zone: ZoneInfo, pauses: list[timedelta]
) -> None:
    calls: list[datetime] = []
    now = start
    for pause in pauses:
        now += pause
        recent = [it for it in calls if it > now - PERIOD]
        cap = capped(recent, now, zone, CALLS)
        if cap is not None:
            assert not _allowed(calls, cap.until - INSTANT, zone)
            now = cap.until
        assert _allowed(calls, now, zone)
        calls.append(now)


@pytest.mark.parametrize(
    ("calls", "until", "hold"),
    [
        (2, None, None),
        (3, datetime(2025, 6, 2, 23, 0, tzinfo=UTC), Hold.DAILY_CAP),
        (10, datetime(2025, 6, 30, 9, 0, tzinfo=UTC), Hold.PERIOD_CAP),
    ],
)
def test_of_two_caps_the_later_holds(calls: int, until: datetime | None, hold: Hold | None) -> None:
    now = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
    cap = capped([now] * calls, now, LONDON, CALLS)
    assert (None if cap is None else (cap.until, cap.hold)) == (
        None if until is None else (until, hold)
    )
