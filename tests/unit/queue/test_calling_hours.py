"""Calling hours by the clocks of the zone, over weekends, holidays and both clock changes."""

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.queue.domain.calling_hours import CallingHours
from services.queue.rules import DEFAULT_PATH, parse_rules
from tests.fakes.rules import load_rules

LONDON = ZoneInfo("Europe/London")
HOURS = CallingHours(load_rules().calling_hours)


def london(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=LONDON).astimezone(UTC)


def hours(**changes: Any) -> CallingHours:
    rules = yaml.safe_load(DEFAULT_PATH.read_text())
    rules["calling_hours"] |= changes
    return CallingHours(parse_rules(yaml.safe_dump(rules)).calling_hours)


@pytest.mark.parametrize(
    ("local", "is_open"),
    [
        ("2026-11-23T07:59:59.999999", False),
        ("2026-11-23T08:00", True),
        ("2026-11-23T19:59:59.999999", True),
        ("2026-11-23T20:00", False),
        ("2026-11-28T08:30", False),
        ("2026-11-28T09:00", True),
        ("2026-11-28T17:00", False),
        ("2026-11-29T12:00", False),
        ("2026-12-25T12:00", False),
        # Boxing Day of 2026 is a Saturday and is kept on Monday the 28th as well.
        ("2026-12-28T12:00", False),
        ("2027-03-26T12:00", False),
        # Scotland's holiday, not England's.
        ("2026-11-30T12:00", True),
    ],
)
def test_the_shipped_hours(local: str, is_open: bool) -> None:
    assert HOURS.are_open(london(local)) is is_open


@pytest.mark.parametrize(
    ("asked", "opens"),
    [
        ("2026-11-24T10:00", "2026-11-24T10:00"),
        ("2026-11-24T20:00", "2026-11-25T08:00"),
        ("2026-11-27T21:00", "2026-11-28T09:00"),
        # From Saturday evening over a holiday Friday and Monday, and the clock change on Sunday.
        ("2027-03-25T20:00", "2027-03-27T09:00"),
        ("2027-03-27T17:00", "2027-03-30T08:00"),
        ("2026-10-24T17:00", "2026-10-26T08:00"),
        ("2026-12-24T20:00", "2026-12-29T08:00"),
    ],
)
def test_when_they_begin_again(asked: str, opens: str) -> None:
    assert HOURS.open_at(london(asked)) == london(opens)


def test_hours_follow_the_clocks_of_the_zone_when_they_change() -> None:
    # London's 08:00 is 08:00 UTC on the Friday before the change, 07:00 UTC on the Monday after.
    assert HOURS.are_open(datetime(2026, 3, 27, 8, tzinfo=UTC))
    assert not HOURS.are_open(datetime(2026, 3, 27, 7, 59, tzinfo=UTC))
    assert HOURS.are_open(datetime(2026, 3, 30, 7, tzinfo=UTC))
    assert not HOURS.are_open(datetime(2026, 3, 30, 19, tzinfo=UTC))


@pytest.mark.parametrize(("day", "length_hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_whole_day_is_as_long_as_its_clocks_make_it(day: str, length_hours: int) -> None:
    only_sunday = hours(days={"sunday": {"from": "00:00", "until": "24:00"}})
    begins = london(f"{day}T00:00")
    last = begins + timedelta(hours=length_hours) - timedelta(microseconds=1)
    assert only_sunday.open_at(begins - timedelta(microseconds=1)) == begins
    assert only_sunday.are_open(last)
    assert not only_sunday.are_open(last + timedelta(microseconds=1))


def test_around_the_clock_is_always_open() -> None:
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    always = hours(days={it: {"from": "00:00", "until": "24:00"} for it in names}, holidays=None)
    for step in range(0, 366 * 24, 7):
        assert always.are_open(datetime(2026, 1, 1, 0, 30, tzinfo=UTC) + timedelta(hours=step))


@given(st.floats(0, 10 * 365 * 86_400))
def test_what_comes_next_is_open_and_nothing_before_it_is(seconds: float) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    opens = HOURS.open_at(at)
    assert opens is not None
    assert opens >= at
    assert HOURS.are_open(opens)
    local = opens.astimezone(LONDON)
    assert local.weekday() < 6
    assert (8 if local.weekday() < 5 else 9) <= local.hour < (20 if local.weekday() < 5 else 17)
    moment = at
    while moment < opens:
        assert not HOURS.are_open(moment)
        moment += timedelta(minutes=37)


@pytest.fixture
def no_system_zones() -> Iterator[None]:
    """A machine whose own time zone database is empty, as a slim image's may be."""
    zoneinfo.reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()
    ZoneInfo.clear_cache()


@pytest.mark.usefixtures("no_system_zones")
def test_the_queues_own_dependencies_have_the_legacy_zones_of_phone_numbers() -> None:
    missing: list[str] = []
    calling_hours = CallingHours(load_rules().calling_hours, missing.append)
    # What phone numbers in India, Nepal, Vietnam and Greenland come to.
    for name in ("Asia/Calcutta", "Asia/Katmandu", "Asia/Saigon", "America/Godthab"):
        assert calling_hours.zone(name).key == name
    assert missing == []


@pytest.mark.parametrize("name", ["Atlantis/Poseidonis", "Europe", "../etc/passwd", "Mars\0", ""])
def test_a_zone_that_cannot_be_loaded_is_the_usual_one_and_told_of(name: str) -> None:
    missing: list[str] = []
    calling_hours = CallingHours(load_rules().calling_hours, missing.append)
    # Eleven at night in Tokyo.
    at = london("2026-11-23T14:00")
    assert calling_hours.open_zones(at, [name, "Asia/Tokyo"]) == [name]
    assert calling_hours.zone(name).key == "Europe/London"
    assert missing == [name, name]
