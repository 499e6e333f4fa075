"""The clocks."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from servicekit.clock import Clock, SystemClock
from tests.fakes.clock import FakeClock


def test_system_clock_is_aware_and_goes_forward() -> None:
    clock: Clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()


def test_fake_clock_moves_both_times_when_told() -> None:
    clock = FakeClock(datetime(2025, 3, 30, 0, 59, tzinfo=UTC))
    assert clock.advance(timedelta(minutes=2)) == datetime(2025, 3, 30, 1, 1, tzinfo=UTC)
    clock.advance(0.5)
    assert clock.monotonic() == 120.5


def test_fake_clock_wall_may_jump_without_monotonic() -> None:
    clock = FakeClock()
    clock.move_wall_to(datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1))))
    assert clock.now() == datetime(2023, 12, 31, 23, tzinfo=UTC)
    assert clock.monotonic() == 0.0


def test_fake_clock_refuses_naive_times_and_going_back() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="aware"):
        clock.move_wall_to(datetime(2024, 1, 1))  # noqa: DTZ001 - what is refused
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1.0)
