"""The company's rules as the checker knows them, written down apart from those of the queue."""

from dataclasses import dataclass
from datetime import timedelta

FROZEN_SCORE = 200.0
AGEING_PER_WEEK = 5.0
COOLING = timedelta(hours=2)
SHARED_PHONE = timedelta(hours=2)
ATTEMPTS_A_DAY = 3
ATTEMPTS_A_PERIOD = 10
PERIOD = timedelta(days=28)
PREFERRED_FOR = timedelta(minutes=10)
CALLBACK_RETRY = timedelta(minutes=15)
MISSES_BEFORE_SUPERVISOR = 2
# After a call that no agent reported, from the end of the lease on.
UNREPORTED_REST = timedelta(minutes=30)
# After the end of a lease in which a report is still taken.
LATE_REPORT = timedelta(hours=1)
# A number held by more people is a placeholder and counts as no number.
HOLDERS_AT_MOST = 20
CREDITED_FOR = timedelta(days=90)
# Outcomes of calls in which the agent did not speak with the person.
NOT_SPOKEN = frozenset(
    {
        *("no_answer", "missed_call", "bad_number", "voicemail_left", "voicemail_not_left"),
        *("wrong_person", "language_barrier"),
    }
)
BAD_NUMBER = "bad_number"
WRONG_PERSON = "wrong_person"
# For which other people are not called on a number that was found to be bad.
BAD_NUMBER_HELD = timedelta(days=28)
OBJECTION = "do_not_contact"
NO_CLAIM = "no_claim"


@dataclass(frozen=True, slots=True)
class Effect:
    """What an outcome does. `sets` or `adds` points; `wait` until the next call, None for never.

    `makes_callback` even when no time is given; a time that is given always makes one.
    """

    wait: timedelta | None
    sets: float | None = None
    adds: float = 0.0
    makes_callback: bool = False


_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)

EFFECTS = {
    "completed_form": Effect(_HOUR, sets=0),
    "going_to_complete": Effect(3 * _DAY, sets=0),
    "might_complete": Effect(_DAY, adds=2),
    "call_back": Effect(_DAY, sets=0, makes_callback=True),
    "no_answer": Effect(4 * _HOUR, adds=1),
    "missed_call": Effect(timedelta(0), sets=0, makes_callback=True),
    "hung_up": Effect(4 * _HOUR, adds=2),
    "bad_number": Effect(28 * _DAY, adds=50),
    "wrong_person": Effect(28 * _DAY, adds=50),
    "voicemail_left": Effect(_DAY, adds=1),
    "voicemail_not_left": Effect(4 * _HOUR, adds=1),
    "language_barrier": Effect(3 * _DAY, adds=2),
    "no_claim": Effect(None, adds=200),
    "not_interested": Effect(28 * _DAY, adds=100),
    "do_not_contact": Effect(None, adds=200),
}


def attempt_points(number: int) -> float:
    """Return what the attempt with this number since the fresh start adds."""
    if number > 10:
        return 3.0
    return 1.0 if number > 5 else 0.0
