"""What becomes of a callback, by agent and by outcome."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from servicekit.errors import InvalidArgument
from services.queue.domain.callbacks import (
    Callback,
    after_call,
    callback_of,
    missed,
    require_schedulable,
    rescheduled,
)
from services.queue.domain.calling_hours import CallingHours
from services.queue.types import AgentId, CallbackState, Outcome, UserId
from tests.fakes.rules import load_rules

RULES = load_rules()
NOW = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
OPENING = CallingHours(RULES.calling_hours).open_at
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
    new_callback = callback_of(outcome, given_at, BEN, None, RULES, OPENING, NOW)
    assert (None if new_callback is None else new_callback.scheduled_for) == expected
    if new_callback is not None:
        assert new_callback.preferred_agent_id == BEN
        kept = callback_of(outcome, given_at, BEN, _open(), RULES, OPENING, NOW)
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
        (timedelta(0), Outcome.DECEASED, False, CallbackState.CLOSED, "DECEASED"),
    ],
)
def test_what_a_call_does_to_the_open_one(
    ahead: timedelta,
    outcome: Outcome,
    is_replaced: bool,
    state: CallbackState,
    reason: str | None,
) -> None:
    after = after_call(_open(ahead), outcome, is_replaced, RULES, OPENING, NOW)
    assert (after.state, after.closed_reason) == (state, reason)
    assert (after.closed_at is None) == (state is CallbackState.OPEN)


def test_one_that_is_missed_is_tried_once_more_then_left_to_a_supervisor() -> None:
    first = missed(_open(), "SKIPPED", RULES, OPENING, NOW)
    assert (first.state, first.misses) == (CallbackState.OPEN, 1)
    assert first.scheduled_for == NOW + timedelta(minutes=15)
    second = missed(first, "NO_ANSWER", RULES, OPENING, NOW + HOUR)
    assert (second.state, second.misses) == (CallbackState.MISSED, 2)
    assert (second.closed_at, second.closed_reason) == (NOW + HOUR, "NO_ANSWER")
    again = rescheduled(second, NOW + 2 * HOUR)
    assert again == _open(2 * HOUR)


def test_times_that_the_rules_make_fall_into_calling_hours() -> None:
    """2 June 2025 is a Monday; hours end at 20:00 in London, 19:00 UTC."""
    late = datetime(2025, 6, 2, 18, 50, tzinfo=UTC)
    assert missed(_open(), "SKIPPED", RULES, OPENING, late).scheduled_for == datetime(
        2025, 6, 3, 7, 0, tzinfo=UTC
    )
    saturday = datetime(2025, 6, 7, 9, 0, tzinfo=UTC)
    made = callback_of(Outcome.CALL_BACK, None, BEN, None, RULES, OPENING, saturday)
    assert made is not None
    assert made.scheduled_for == datetime(2025, 6, 9, 7, 0, tzinfo=UTC)
    now = callback_of(Outcome.MISSED_CALL, None, BEN, None, RULES, OPENING, late + HOUR)
    assert now is not None
    assert now.scheduled_for == late + HOUR


@pytest.mark.parametrize(
    ("at", "next_open_at"),
    [
        (datetime(2025, 6, 2, 18, 59, 59, tzinfo=UTC), None),
        (datetime(2025, 6, 2, 19, 0, tzinfo=UTC), datetime(2025, 6, 3, 7, 0, tzinfo=UTC)),
        (datetime(2025, 6, 8, 12, 0, tzinfo=UTC), datetime(2025, 6, 9, 7, 0, tzinfo=UTC)),
    ],
)
def test_a_callback_is_agreed_for_calling_hours_only(
    at: datetime, next_open_at: datetime | None
) -> None:
    if next_open_at is None:
        require_schedulable(at, RULES, OPENING, NOW)
        return
    with pytest.raises(InvalidArgument) as refusal:
        require_schedulable(at, RULES, OPENING, NOW)
    assert refusal.value.reason == "CALLBACK_OUTSIDE_HOURS"
    assert refusal.value.metadata == {"next_open_at": next_open_at.isoformat()}
