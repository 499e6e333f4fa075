"""What becomes of a callback, whoever meets it and however the call went."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.queue.domain.callbacks import Callback, after_call, missed, promised, rescheduled
from services.queue.domain.terms import AgentId, CallbackState, Outcome, UserId
from services.queue.rules import load_rules

RULES = load_rules()
NOW = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ANN, BEN = AgentId("ann"), AgentId("ben")


def _open(ahead: timedelta = timedelta(0), misses: int = 0) -> Callback:
    return Callback(
        UUID(int=1), UserId(7), NOW + ahead, ANN, CallbackState.OPEN, misses, "ann", NOW - HOUR
    )


@pytest.mark.parametrize(
    ("outcome", "given_at", "expected"),
    [
        (Outcome.CALL_BACK, NOW + HOUR, NOW + HOUR),
        (Outcome.CALL_BACK, None, NOW + timedelta(hours=24)),
        (Outcome.MISSED_CALL, None, NOW),
        (Outcome.MIGHT_COMPLETE, NOW + HOUR, NOW + HOUR),
        (Outcome.GOING_TO_COMPLETE, None, None),
        (Outcome.NO_ANSWER, None, None),
        (Outcome.DO_NOT_CONTACT, None, None),
    ],
)
def test_which_outcomes_promise_a_call(
    outcome: Outcome, given_at: datetime | None, expected: datetime | None
) -> None:
    promise = promised(outcome, given_at, BEN, None, RULES, NOW)
    assert (None if promise is None else promise.scheduled_for) == expected
    if promise is not None:
        assert promise.preferred_agent_id == BEN
        kept = promised(outcome, given_at, BEN, _open(), RULES, NOW)
        assert kept is not None
        assert kept.preferred_agent_id == ANN


@pytest.mark.parametrize(
    ("ahead", "outcome", "is_replaced", "state", "reason"),
    [
        (timedelta(0), Outcome.HUNG_UP, False, CallbackState.DONE, "CALLED"),
        (timedelta(0), Outcome.CALL_BACK, True, CallbackState.DONE, "CALLED"),
        (timedelta(0), Outcome.NO_ANSWER, False, CallbackState.OPEN, None),
        (HOUR, Outcome.NO_ANSWER, False, CallbackState.OPEN, None),
        (HOUR, Outcome.HUNG_UP, False, CallbackState.OPEN, None),
        (HOUR, Outcome.CALL_BACK, True, CallbackState.REPLACED, "REPLACED"),
        (HOUR, Outcome.NO_CLAIM, False, CallbackState.CLOSED, "NO_CLAIM"),
        (timedelta(0), Outcome.DO_NOT_CONTACT, False, CallbackState.CLOSED, "DO_NOT_CONTACT"),
    ],
)
def test_what_a_call_does_to_the_open_one(
    ahead: timedelta,
    outcome: Outcome,
    is_replaced: bool,
    state: CallbackState,
    reason: str | None,
) -> None:
    after = after_call(_open(ahead), outcome, is_replaced, RULES, NOW)
    assert (after.state, after.closed_reason) == (state, reason)
    assert (after.closed_at is None) == (state is CallbackState.OPEN)


def test_one_that_is_missed_is_tried_once_more_then_left_to_a_supervisor() -> None:
    first = missed(_open(), "SKIPPED", RULES, NOW)
    assert (first.state, first.misses) == (CallbackState.OPEN, 1)
    assert first.scheduled_for == NOW + timedelta(minutes=15)
    second = missed(first, "NO_ANSWER", RULES, NOW + HOUR)
    assert (second.state, second.misses) == (CallbackState.MISSED, 2)
    assert (second.closed_at, second.closed_reason) == (NOW + HOUR, "NO_ANSWER")
    again = rescheduled(second, NOW + 2 * HOUR)
    assert again == _open(2 * HOUR)
