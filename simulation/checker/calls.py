"""Whether somebody might be handed out at all: each rule that keeps people from being called."""

from datetime import datetime

from simulation.checker import hours
from simulation.checker.findings import Report
from simulation.checker.people import Person
from simulation.checker.rules import (
    ATTEMPTS_A_DAY,
    ATTEMPTS_A_PERIOD,
    FROZEN_SCORE,
    SHARED_PHONE,
)
from simulation.checker.state import State
from simulation.history import CALLBACKS, HandOut, View, Window

_AWAY = ("break", "offline")


def check_hand_out(
    state: State, report: Report, person: Person, given: HandOut, window: Window
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
    _check_caps(report, person, at, who)
    _check_stops(state, report, person, views, window, at, who)
    _check_waits(report, person, given, window, who)
    _check_sharers(state, report, person, views, at, who)
    agent = state.agents[given.agent_id]
    report.check(
        "agent is there", agent.presence not in _AWAY, at, f"{who}, who is on {agent.presence}"
    )
    report.check(
        "agent's queues",
        not agent.limits or given.queue in agent.limits,
        at,
        f"{who} from {given.queue}, limited to {agent.limits}",
    )


def _qualifies(view: View, queue: str) -> bool:
    if queue == CALLBACKS:
        return view.is_contactable
    return view.is_contactable and view.matter == queue


def _check_holders(state: State, report: Report, person: Person, given: HandOut) -> None:
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


def _check_caps(report: Report, person: Person, at: datetime, who: str) -> None:
    report.check(
        "attempts a day", person.attempts_today(at) < ATTEMPTS_A_DAY, at, f"{who}: once too often"
    )
    report.check(
        "attempts in 28 days",
        person.attempts_in_period(at) < ATTEMPTS_A_PERIOD,
        at,
        f"{who}: once too often",
    )


def _check_stops(
    state: State,
    report: Report,
    person: Person,
    views: list[View],
    window: Window,
    at: datetime,
    who: str,
) -> None:
    stopped = person.suppressed is not None and person.suppressed.ended <= window.began
    report.check("suppression", not stopped, at, f"{who}, who is suppressed")
    report.check("ended calls", not person.is_blocked, at, f"{who} after {person.last_outcome}")
    phones = {view.phone for view in views}
    barred = all(
        phone in state.suppressed_phones
        and phone not in state.doubtful_phones
        and state.suppressed_phones[phone].ended <= window.began
        for phone in phones
        if phone is not None
    )
    report.check(
        "suppressed number", not (barred and phones != {None} and None not in phones), at, who
    )


def _check_waits(report: Report, person: Person, given: HandOut, window: Window, who: str) -> None:
    at = given.started_at
    if given.queue == CALLBACKS:
        _check_callback_hour(report, person, given, window, who)
        return
    report.check(
        "next call", person.next_call_at <= at, at, f"{who}: not before {person.next_call_at}"
    )
    is_cooled = bool(person.attempts) or person.cools_from <= at
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
    report: Report, person: Person, given: HandOut, window: Window, who: str
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
    state: State, report: Report, person: Person, views: list[View], at: datetime, who: str
) -> None:
    phones = {view.phone for view in views}
    if phones != {person.last_phone} or person.last_phone is None:
        return
    last_call = state.last_calls.get(person.last_phone)
    if last_call is not None and last_call[1] != person.user_id:
        report.check(
            "shared number",
            at >= last_call[0] + SHARED_PHONE,
            at,
            f"{who}, whose number was called for person {last_call[1]} at {last_call[0]}",
        )
    for other in state.sharers(person):
        if other.held is not None and other.held.phone == person.last_phone:
            report.check(
                "shared number",
                not other.held.is_live(at),
                at,
                f"{who}, on whose number {other.user_id} is being called",
            )
