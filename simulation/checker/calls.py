"""Whether a person might be handed out at all: each rule that keeps people from being called."""

from datetime import datetime

from simulation.checker import hours
from simulation.checker.findings import Report
from simulation.checker.lines import CallLog
from simulation.checker.people import PersonState
from simulation.checker.rules import (
    ATTEMPTS_A_DAY,
    ATTEMPTS_A_PERIOD,
    FROZEN_SCORE,
    SHARED_PHONE,
)
from simulation.checker.state import CheckerState
from simulation.history import CALLBACKS, HandOutRecord, View, Window

_AWAY = ("break", "offline")


def check_hand_out(
    state: CheckerState, report: Report, person: PersonState, given: HandOutRecord, window: Window
) -> None:
    """Check every rule against a hand-out, the state being that of the moment before it."""
    at, who = given.started_at, f"person {person.user_id} to {given.agent_id}"
    report.check("calling hours", hours.are_open(at), at, f"{who} outside calling hours")
    views = person.views_within(window)
    qualifies = any(_qualifies(view, given.queue) for view in views)
    report.check(
        "no wrong call", qualifies, at, f"{who} for {given.queue}, MySQL saying {views[0]}"
    )
    _check_holders(state, report, person, given)
    _check_stops(report, person, window, at, who)
    _check_numbers(state, report, views, at, who)
    _check_caps(report, "", person.calls, at, who)
    report.check(
        "rest after an unreported call",
        person.rests_until <= at,
        at,
        f"{who}, who rests until {person.rests_until}",
    )
    _check_waits(report, person, given, window, who)
    phones = state.sure_lines_of(set.intersection(*(set(view.phones) for view in views)))
    for phone in phones:
        _check_phone(state, report, phone, window, at, who)
        _check_caps(report, " of a line", state.lines[phone], at, who)
        _check_sharers(state, report, person, phone, at, who)
    free_at = min((state.lines[it].surely_bad_until(person.user_id) for it in phones), default=at)
    report.check("bad number", free_at <= at, at, f"{who}, whose numbers are bad until {free_at}")
    agent = state.agents[given.agent_id]
    report.check(
        "agent is there", agent.presence not in _AWAY, at, f"{who}, who is on {agent.presence}"
    )
    report.check(
        "agent's queues",
        not agent.limits or given.queue in agent.limits or _is_own_callback(person, given, window),
        at,
        f"{who} from {given.queue}, limited to {agent.limits}",
    )


def _is_own_callback(person: PersonState, given: HandOutRecord, window: Window) -> bool:
    """Return whether it may be a callback this agent agreed; those go to limited agents as well."""
    if given.queue != CALLBACKS:
        return False
    if person.callback is None:
        ended = person.callback_ended
        return ended is not None and ended.ended > window.began
    return person.callback.preferred_agent_id == given.agent_id


def _qualifies(view: View, queue: str) -> bool:
    if queue == CALLBACKS:
        return view.is_contactable
    return view.is_contactable and view.matter == queue


def _check_holders(
    state: CheckerState, report: Report, person: PersonState, given: HandOutRecord
) -> None:
    at = given.started_at
    held = person.held
    is_free = held is None or not held.is_live(at)
    holder = held.hand_out.agent_id if held is not None else ""
    report.check(
        "one agent a person",
        is_free,
        at,
        f"person {person.user_id} to {given.agent_id} while {holder} holds them",
    )
    other = state.agents[given.agent_id].held
    report.check(
        "one person an agent",
        other is None or not other.is_live(at),
        at,
        f"person {person.user_id} to {given.agent_id}, who holds another one",
    )


def _check_stops(
    report: Report, person: PersonState, window: Window, at: datetime, who: str
) -> None:
    for rule, stop in (("suppression", person.objection), ("ended calls", person.no_claim)):
        is_in_force = stop is not None and stop.ended <= window.began
        report.check(rule, not is_in_force, at, f"{who}, whose calls ended in {stop}")


def _check_numbers(
    state: CheckerState, report: Report, views: list[View], at: datetime, who: str
) -> None:
    may_be_called = any(state.lines_of(view.phones) for view in views)
    report.check("number to call", may_be_called, at, f"{who}, who has none that counts")


def _check_caps(report: Report, of_what: str, calls: CallLog, at: datetime, who: str) -> None:
    report.check(
        f"attempts a day{of_what}",
        calls.surely_today(at) < ATTEMPTS_A_DAY,
        at,
        f"{who}: once too often",
    )
    report.check(
        f"attempts in 28 days{of_what}",
        calls.surely_in_period(at) < ATTEMPTS_A_PERIOD,
        at,
        f"{who}: once too often",
    )


def _check_phone(
    state: CheckerState, report: Report, phone: str, window: Window, at: datetime, who: str
) -> None:
    """Check that nothing stops a number that the person certainly has."""
    stops = state.phone_stops[phone]
    stopped = [it for it in (stops.listed, *stops.of_people.values()) if it is not None]
    is_suppressed = any(it.ended <= window.began for it in stopped)
    report.check("suppressed number", not is_suppressed, at, who)
    is_in_force = stops.bare is not None and stops.bare.ended <= window.began
    report.check("objection to a number", not is_in_force, at, who)


def _check_waits(
    report: Report, person: PersonState, given: HandOutRecord, window: Window, who: str
) -> None:
    at = given.started_at
    if given.queue == CALLBACKS:
        _check_callback_hour(report, person, given, window, who)
        return
    report.check(
        "next call", person.next_call_at <= at, at, f"{who}: not before {person.next_call_at}"
    )
    is_cooled = bool(person.calls.certain) or person.cools_from <= at
    report.check("cooling", is_cooled, at, f"{who}: cools until {person.cools_from}")
    score = person.key.lowest_score(at)
    report.check("frozen", score < FROZEN_SCORE, at, f"{who}: score {score:.1f}")
    agreed = person.callback.agreed if person.callback is not None else None
    report.check(
        "callback agreed",
        agreed is None or agreed.ended > window.began,
        at,
        f"{who} from {given.queue} while a callback is agreed",
    )


def _check_callback_hour(
    report: Report, person: PersonState, given: HandOutRecord, window: Window, who: str
) -> None:
    ended, callback = person.callback_ended, person.callback
    if callback is None and ended is not None and ended.ended > window.began:
        return
    due_at = callback.due_at if callback is not None else None
    report.check(
        "callback's hour",
        due_at is not None and due_at <= given.started_at,
        given.started_at,
        f"{who}: the callback is for {due_at}",
    )


def _check_sharers(
    state: CheckerState, report: Report, person: PersonState, phone: str, at: datetime, who: str
) -> None:
    last = state.lines[phone].last_of_another(person.user_id, by=at, only_certain=True)
    is_rested = last is None or at >= last.at + SHARED_PHONE
    report.check("shared number", is_rested, at, f"{who}, whose number was called in {last}")
    for other in state.others_with(phone, person):
        if other.held is not None and phone in other.held.phones:
            report.check(
                "shared number",
                not other.held.is_live(at),
                at,
                f"{who}, on whose number {other.user_id} is being called",
            )
