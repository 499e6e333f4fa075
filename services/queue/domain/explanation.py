"""Why a person is called, or not: every rule with its inputs and its result, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.queue.domain.caps import calls_of_day
from services.queue.domain.eligibility import Tally
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.facts import UserFacts
from services.queue.domain.terms import (
    BARRIERS,
    AgentId,
    Block,
    Hold,
    Presence,
    Queue,
    Reason,
    State,
    UserId,
)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What one rule says: whether it lets the person be called, and what would change that."""

    rule: str
    is_passed: bool
    words: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    what_would_change_it: str = ""


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent for whom a person is explained; None where nothing is known or limited."""

    agent_id: AgentId
    presence: Presence | None
    allowed_queues: frozenset[Queue] | None
    skipped_user_id: UserId | None


@dataclass(frozen=True, slots=True)
class Case:
    """A person as the rules see them at a moment.

    `entry` is where the facts put them, `facts` what the main app says, None when it cannot be
    asked; `calls` are the moments of their calls of the capped period.
    """

    entry: Entry
    facts: UserFacts | None
    calls: Sequence[datetime]
    is_phone_in_call: bool
    is_preferred_agent_present: bool
    now: datetime
    agent: AgentView | None = None


def explain(case: Case, placement: Placement) -> list[RuleResult]:
    """Return every rule's result, in the order in which they decide."""
    return [
        *_about_contact(case),
        *_about_queues(case, placement),
        *_about_time(case, placement),
        *_about_hand_out(case, placement),
        *(_about_agent(case, case.agent) if case.agent is not None else ()),
    ]


def is_callable(results: Sequence[RuleResult]) -> bool:
    """Return whether the person would be handed out now if they came to the head.

    Of the three queues one is enough; every other rule must let them pass.
    """
    of_queues = [it.is_passed for it in results if it.rule in _QUEUE_RULES]
    others = [it.is_passed for it in results if it.rule not in _QUEUE_RULES]
    return any(of_queues) and all(others)


def summary(case: Case, results: Sequence[RuleResult]) -> str:
    """Return where the person stands, in one sentence."""
    entry = case.entry
    if entry.state is State.ASSIGNED:
        return f"Agent {entry.agent_id} holds the person."
    if is_callable(results):
        queue = entry.queue.name.lower() if entry.queue is not None else "no queue"
        return f"May be called now, from {queue}."
    for result in results:
        if not result.is_passed and result.rule not in _QUEUE_RULES:
            return f"Not called now: {result.words}"
    return "Not called: nothing is owed and no callback is agreed."


_QUEUE_RULES = ("UNSIGNED_USERS", "OUTSTANDING_REQUESTS", "CALLBACKS")


def _about_contact(case: Case) -> Iterator[RuleResult]:
    entry, reason = case.entry, case.entry.eligible_reason
    inputs = {}
    if case.facts is not None:
        inputs = {
            "exists": _yes(case.facts.exists),
            "is_enabled": _yes(case.facts.is_enabled),
            "status": "NULL" if case.facts.status is None else case.facts.status,
        }
    yield _result(
        "CONTACT_ALLOWED",
        reason not in BARRIERS,
        "the main app lets the person be contacted",
        _BARRIER_WORDS.get(reason, ""),
        "the main app must have the person, enabled and with an active status",
        inputs,
    )
    yield _result(
        "NOT_SUPPRESSED",
        entry.block is not Block.DO_NOT_CONTACT,
        "the person has not asked to be left alone",
        "the person asked never to be contacted",
        "a supervisor must lift the suppression",
    )
    listed = entry.phone_block is not None and entry.phone_block.name.lower()
    yield _result(
        "PHONE_NOT_SUPPRESSED",
        entry.phone_block is None,
        "the phone number is on no list and belongs to nobody who asked to be left alone",
        f"the phone number is suppressed ({listed})",
        "the number must leave the list, or a supervisor lift the other person's suppression",
        {"has_phone_number": _yes(entry.phone_e164 is not None)},
    )
    yield _result(
        "NO_CLAIM_NOT_REPORTED",
        entry.block is not Block.NO_CLAIM,
        "nobody has reported that there is no claim",
        "an agent reported that there is no claim",
        "a supervisor must review and lift it",
    )


_BARRIER_WORDS = {
    Reason.USER_NOT_FOUND: "the main app has no such person",
    Reason.USER_DISABLED: "the person is disabled in the main app",
    Reason.USER_INACTIVE: "the person's status in the main app ends contact",
}


def _about_queues(case: Case, placement: Placement) -> Iterator[RuleResult]:
    entry, now = case.entry, case.now
    tally = placement.eligibility.tally(case.facts) if case.facts is not None else None
    yield _result(
        "UNSIGNED_USERS",
        entry.eligible_queue is Queue.UNSIGNED_USERS,
        "a signature is owed on an open claim",
        _unsigned_words(tally),
        "there must be an open claim and no signature",
        _tally_inputs(tally),
    )
    yield _result(
        "OUTSTANDING_REQUESTS",
        entry.eligible_queue is Queue.OUTSTANDING_REQUESTS,
        "a requirement is pending on an open claim",
        _outstanding_words(tally),
        "signed, and a requirement of a type that counts pending on an open claim",
        _tally_inputs(tally),
    )
    is_due = entry.callback_at is not None and entry.callback_at <= now
    yield _result(
        "CALLBACKS",
        is_due,
        f"a callback is due since {_time(entry.callback_at)}",
        "no callback is agreed"
        if entry.callback_at is None
        else f"a callback is agreed for {_time(entry.callback_at)}",
        "a callback must fall due",
        {"callback_at": _time(entry.callback_at)},
    )
    score, frozen = placement.score(entry, now), placement.rules.score.frozen
    yield _result(
        "NOT_FROZEN",
        score < frozen or entry.callback_at is not None,
        f"the score of {score:g} is below {frozen:g}, or a callback is agreed",
        f"the score of {score:g} has reached {frozen:g}",
        "a new matter, or a supervisor's callback",
        {"score": f"{score:g}", "frozen_from": f"{frozen:g}"},
    )


def _unsigned_words(tally: Tally | None) -> str:
    if tally is None:
        return "by the facts last applied no signature is owed"
    if tally.has_signature:
        return "the signature is there"
    return "no claim is open" if not tally.open_claims else "no signature is owed"


def _outstanding_words(tally: Tally | None) -> str:
    if tally is None:
        return "by the facts last applied no requirement is pending"
    if not tally.open_claims:
        return "no claim is open"
    if not tally.has_signature:
        return "the signature comes first"
    if tally.pending_excluded:
        return "only requirements of types that nobody is phoned for are pending"
    return "no requirement is pending"


def _tally_inputs(tally: Tally | None) -> dict[str, str]:
    if tally is None:
        return {}
    return {
        "has_signature": _yes(tally.has_signature),
        "open_claims": str(tally.open_claims),
        "ended_claims": str(tally.ended_claims),
        "pending_requirements": str(tally.pending_counted),
        "pending_requirements_excluded": str(tally.pending_excluded),
    }


def _about_time(case: Case, placement: Placement) -> Iterator[RuleResult]:
    entry, now, calls = case.entry, case.now, placement.rules.calls
    zone = placement.calling_hours.zone(entry.time_zone)
    is_new = entry.last_outcome is None
    # An agreed callback takes the place of both.
    rests = entry.rest_until if entry.callback_at is None else None
    yield _waits(
        "COOLED" if is_new else "NEXT_CALL",
        rests,
        now,
        "the cooling of somebody new is over" if is_new else "the last outcome's wait is over",
        "the person is new and cools" if is_new else "the last outcome asks to wait",
    )
    agreed = entry.callback_at
    yield _waits(
        "CALLBACK_TIME", agreed, now, "no callback lies ahead", "the person wants to be called then"
    )
    today = calls_of_day(case.calls, now, zone)
    yield _cap(entry, Hold.DAILY_CAP, today, calls.attempts_per_day, "today", now)
    of_period = len(case.calls)
    within = f"in {calls.period_days} days"
    yield _cap(entry, Hold.PERIOD_CAP, of_period, calls.attempts_per_period, within, now)
    yield _waits(
        "SHARED_PHONE",
        entry.phone_free_at,
        now,
        "nobody else with this phone number was called lately",
        "somebody else with this phone number was called",
    )
    opens_at = placement.calling_hours.open_at(now, entry.time_zone)
    yield _result(
        "CALLING_HOURS",
        opens_at == now,
        "people are phoned at this hour",
        f"people are not phoned at this hour; the next one begins at {_time(opens_at)}",
        "calling hours must begin",
        {"time_zone": zone.key, "begins_at": _time(opens_at)},
    )


def _about_hand_out(case: Case, placement: Placement) -> Iterator[RuleResult]:
    entry = case.entry
    yield _result(
        "NOT_HELD",
        entry.state is not State.ASSIGNED,
        "no agent holds the person",
        f"agent {entry.agent_id} holds the person",
        "the assignment must end",
        {"agent_id": entry.agent_id or ""},
    )
    is_busy = case.is_phone_in_call and entry.state is not State.ASSIGNED
    yield _result(
        "PHONE_NOT_IN_CALL",
        not is_busy,
        "nobody else with this phone number is on the phone",
        "somebody else with this phone number is with an agent",
        "that assignment must end",
    )


def _about_agent(case: Case, agent: AgentView) -> Iterator[RuleResult]:
    entry = case.entry
    presence = "unknown" if agent.presence is None else agent.presence.name.lower()
    yield _result(
        "AGENT_TAKES_CALLS",
        agent.presence is None or agent.presence.takes_calls,
        "the agent takes calls",
        f"the agent takes no calls ({presence})",
        "the agent must become available",
        {"presence": presence},
    )
    allowed = agent.allowed_queues
    names = "all" if allowed is None else ",".join(sorted(it.name.lower() for it in allowed))
    yield _result(
        "AGENT_QUEUES",
        allowed is None or entry.queue in allowed,
        "the agent may take from this queue",
        "the agent may not take from this queue",
        "a supervisor must allow the queue",
        {"allowed_queues": names},
    )
    yield _result(
        "NOT_JUST_SKIPPED",
        agent.skipped_user_id != entry.user_id,
        "the agent has not just skipped the person",
        "the agent has just skipped the person, and others come first",
        "the agent must be handed somebody else",
    )
    preferred = entry.callback_agent_id if entry.queue is Queue.CALLBACKS else None
    is_kept = case.is_preferred_agent_present and preferred not in (None, agent.agent_id)
    yield _result(
        "CALLBACK_OFFERED",
        not is_kept,
        "no callback is kept for another agent",
        f"the callback is kept for agent {preferred} for its first minutes",
        "the preferred agent must be away, or the minutes pass",
    )


def is_kept_since(entry: Entry, placement: Placement, now: datetime) -> bool:
    """Return whether a due callback is in the minutes that are its preferred agent's."""
    minutes = timedelta(minutes=placement.rules.callbacks.preferred_minutes)
    return entry.callback_at is not None and entry.callback_at > now - minutes


def _cap(
    entry: Entry, hold: Hold, made: int, allowed: int, within: str, now: datetime
) -> RuleResult:
    is_held = entry.cap is hold and entry.capped_until is not None and entry.capped_until > now
    return _result(
        hold.name,
        not is_held,
        f"{made} of {allowed} calls made {within}",
        f"{made} of {allowed} calls made {within}; the next may be at {_time(entry.capped_until)}",
        f"it must be {_time(entry.capped_until)}",
        {"calls": str(made), "calls_at_most": str(allowed)},
    )


def _waits(rule: str, until: datetime | None, now: datetime, free: str, waits: str) -> RuleResult:
    return _result(
        rule,
        until is None or until <= now,
        free,
        f"{waits}, until {_time(until)}",
        f"it must be {_time(until)}",
        {"until": _time(until)},
    )


def _result(
    rule: str,
    is_passed: bool,
    passed: str,
    failed: str,
    change: str,
    inputs: Mapping[str, str] | None = None,
) -> RuleResult:
    return RuleResult(
        rule=rule,
        is_passed=is_passed,
        words=passed if is_passed else failed,
        inputs=inputs or {},
        what_would_change_it="" if is_passed else change,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat(timespec="seconds")
