"""Which failures are tried again, and when."""

import grpc
import pytest

from servicekit.client import RetryBudget, RetryPolicy
from servicekit.errors import ServiceError, Unavailable

FAILURE = Unavailable("UNAVAILABLE", "unavailable")
CODE = grpc.StatusCode.UNAVAILABLE


def delay(
    policy: RetryPolicy, attempt: int = 1, error: ServiceError = FAILURE, left: float = 10.0
) -> float | None:
    return policy.delay_seconds(attempt, CODE, error, left)


def test_delays_grow_and_are_spread() -> None:
    for attempt, middle in ((1, 0.05), (2, 0.1)):
        seen = [delay(RetryPolicy(), attempt) for _ in range(50)]
        assert all(s is not None and middle * 0.5 <= s <= middle * 1.5 for s in seen)
        assert len(set(seen)) > 10


def test_delays_are_capped() -> None:
    policy = RetryPolicy(attempts=50, budget=RetryBudget(capacity=100.0))
    assert all((delay(policy, attempt) or 0.0) <= 1.5 for attempt in range(1, 50))


def test_attempts_are_capped() -> None:
    assert delay(RetryPolicy(attempts=3), 2) is not None
    assert delay(RetryPolicy(attempts=3), 3) is None


def test_a_call_that_a_stopping_server_refuses_is_tried_again() -> None:
    code = grpc.StatusCode.CANCELLED
    assert RetryPolicy().delay_seconds(1, code, FAILURE, 10.0) is not None


@pytest.mark.parametrize(
    "code",
    [c for c in grpc.StatusCode if c not in (CODE, grpc.StatusCode.CANCELLED)],
)
def test_other_codes_are_final(code: grpc.StatusCode) -> None:
    assert RetryPolicy().delay_seconds(1, code, FAILURE, 10.0) is None


def test_wait_asked_for_is_kept_or_the_call_given_up() -> None:
    error = Unavailable("UNAVAILABLE", "unavailable", retry_after_seconds=2.0)
    assert (delay(RetryPolicy(), error=error) or 0.0) > 2.0
    assert delay(RetryPolicy(), error=error, left=1.5) is None


def test_never_beyond_the_deadline() -> None:
    assert delay(RetryPolicy(), left=0.02) is None


def test_giving_up_costs_no_budget() -> None:
    budget = RetryBudget(capacity=1.0)
    policy = RetryPolicy(budget=budget)
    assert delay(policy, left=0.0) is None
    assert budget.spend()


def test_budget_is_a_share_of_the_calls() -> None:
    budget = RetryBudget(ratio=0.1, capacity=10.0)
    while budget.spend():
        pass
    retries = 0
    for _ in range(1000):
        budget.earn()
        retries += budget.spend()
    assert 95 <= retries <= 100


def test_budget_does_not_grow_without_end() -> None:
    budget = RetryBudget(ratio=0.1, capacity=10.0)
    for _ in range(1000):
        budget.earn()
    spent = 0
    while budget.spend():
        spent += 1
    assert spent == 10
