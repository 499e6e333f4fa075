"""Delays between tries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.backoff import Backoff


@given(st.integers(0, 100))
def test_delays_double_within_their_bounds(attempt: int) -> None:
    full = min(300.0, 2.0 ** max(0, attempt - 1))
    assert full / 2 <= Backoff(1.0, 300.0).delay_seconds(attempt) <= full


@pytest.mark.parametrize("attempt", [1, 4])
def test_jitter_spreads_delays(attempt: int) -> None:
    backoff = Backoff(0.1, 5.0, jitter=(0.8, 1.2))
    full = 0.1 * 2.0 ** (attempt - 1)
    seen = {backoff.delay_seconds(attempt) for _ in range(50)}
    assert len(seen) > 10
    assert all(full * 0.8 <= delay <= full * 1.2 for delay in seen)


def test_many_attempts_do_not_overflow() -> None:
    assert Backoff(0.1, 10.0, jitter=(1.0, 1.0)).delay_seconds(100_000) == 10.0


def test_what_the_service_asks_for_is_added_to_the_delay() -> None:
    assert Backoff(1.0, 1.0, jitter=(1.0, 1.0)).delay_seconds(1, retry_after_seconds=60.0) == 61.0
