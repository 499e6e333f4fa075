"""What fails again and again is left alone for a moment."""

from services.user_context.cache.breaker import Breaker
from tests.fakes.clock import FakeClock


def test_it_opens_after_failures_in_a_row_and_lets_one_try_after_the_pause() -> None:
    clock = FakeClock()
    breaker = Breaker(clock, failures=2, pause_seconds=1.0)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()

    clock.advance(1.0)
    assert [breaker.allows() for _ in range(3)] == [True, False, False]

    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()


def test_a_failed_try_costs_another_pause() -> None:
    clock = FakeClock()
    breaker = Breaker(clock, failures=1, pause_seconds=1.0)
    breaker.failed()
    clock.advance(1.0)
    assert breaker.allows()
    breaker.failed()
    clock.advance(0.5)
    assert not breaker.allows()
    clock.advance(0.5)
    assert breaker.allows()


def test_a_try_that_never_reports_back_does_not_close_it_for_ever() -> None:
    clock = FakeClock()
    breaker = Breaker(clock, failures=1, pause_seconds=1.0)
    breaker.failed()
    clock.advance(1.0)
    assert breaker.allows()
    clock.advance(1.0)
    assert breaker.allows()
