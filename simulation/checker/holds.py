"""What holds a person for a while besides what an outcome says: caps, lines, an unreported call."""

from datetime import datetime

from simulation.checker import hours
from simulation.checker.hours import LONG_AGO
from simulation.checker.people import PersonState
from simulation.checker.rules import SHARED_PHONE
from simulation.checker.state import CheckerState


def may_hold_until(state: CheckerState, person: PersonState) -> datetime:
    """Return when the last hold ended or will end, with every call counted that may count."""
    until = max(person.calls.capped_until(), person.rests_until)
    for phone in state.lines_of(person.view.phones):
        calls = state.lines[phone]
        until = max(until, calls.capped_until(), calls.may_be_bad_until(person.user_id))
        other = calls.last_of_another(person.user_id)
        if other is not None:
            until = max(until, other.at + SHARED_PHONE)
    return until


def first_callable_at(state: CheckerState, person: PersonState, since: datetime) -> datetime:
    """Return when, from `since` on, calling hours, caps and lines first let the person be called.

    Goes by the calls that certainly count, so that it may be too early but never too late.
    """
    at = hours.next_open(since)
    while (until := _surely_held_until(state, person, at)) > at:
        at = hours.next_open(until)
    return at


def _surely_held_until(state: CheckerState, person: PersonState, at: datetime) -> datetime:
    until = person.calls.surely_capped_until(at)
    for phone in state.sure_lines_of(person.view.phones):
        calls = state.lines[phone]
        until = max(until, calls.surely_capped_until(at))
        other = calls.last_of_another(person.user_id, by=at, only_certain=True)
        until = max(until, other.at + SHARED_PHONE if other is not None else LONG_AGO)
    return until
