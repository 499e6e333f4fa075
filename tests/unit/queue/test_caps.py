"""Caps never let one call too many through, and never hold longer than they must."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.queue.domain.caps import LineCall, PastCall, capped
from services.queue.types import Hold, UserId
from tests.fakes.rules import load_rules

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
        cap = capped([PastCall(it) for it in recent], (), now, zone, CALLS)
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
    cap = capped([PastCall(now)] * calls, (), now, LONDON, CALLS)
    assert (None if cap is None else (cap.until, cap.hold)) == (
        None if until is None else (until, hold)
    )


_moments = st.lists(
    st.timedeltas(timedelta(0), timedelta(days=27)).map(
        lambda ago: datetime(2025, 6, 30, 9, tzinfo=UTC) - ago
    ),
    max_size=14,
)


@settings(deadline=None)
@given(own=_moments, first=_moments, second=_moments)
def test_of_person_and_lines_the_strictest_wins(
    own: list[datetime], first: list[datetime], second: list[datetime]
) -> None:
    now = datetime(2025, 6, 30, 9, tzinfo=UTC)
    calls = [PastCall(it) for it in own]
    lines = [LineCall("a", UserId(1), it) for it in first]
    lines += [LineCall("b", UserId(2), it) for it in second]
    alone = [capped([PastCall(it) for it in each], (), now, LONDON, CALLS) for each in (own, first)]
    alone.append(capped([PastCall(it) for it in second], (), now, LONDON, CALLS))
    expected = max((it.until for it in alone if it is not None), default=None)
    found = capped(calls, lines, now, LONDON, CALLS)
    assert (None if found is None else found.until) == expected


def test_a_call_without_a_report_is_rested_from_for_half_an_hour() -> None:
    ended = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
    for minutes, until in ((0, 30), (29, 30), (30, None)):
        cap = capped(
            [PastCall(ended, is_reported=False)],
            (),
            ended + timedelta(minutes=minutes),
            LONDON,
            CALLS,
        )
        assert (None if cap is None else cap.until) == (
            None if until is None else ended + timedelta(minutes=until)
        )
    assert capped([PastCall(ended)], (), ended, LONDON, CALLS) is None
