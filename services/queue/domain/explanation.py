"""Explains why a person is called, or not: every rule with its inputs and result, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.queue.domain.caps import (
    Cap,
    calls_of_day,
    daily_cap,
    histories,
    period_cap,
    unreported_rest,
)
from services.queue.domain.eligibility import Tally
from services.queue.domain.entries import ContactStatus, Entry, Placement
from services.queue.domain.facts import UserFacts
from services.queue.domain.pauses import QueuePause
from services.queue.types import (
    NO_CONTACT_REASONS,
    AgentId,
    ContactBlock,
    Hold,
    PhoneBlock,
    Presence,
    Queue,
    Reason,
    State,
    UserId,
)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The result of one rule: whether it lets the person be called, and what would change that."""

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
class Subject:
    """A person as the rules see the person at a moment.

    `entry` is placed by the present facts; `facts` are None when the main app cannot be read;
    `status` includes the calls of the capped period; `pauses` are those in force.
    """

    entry: Entry
    facts: UserFacts | None
    status: ContactStatus
    are_lines_in_call: bool
    is_preferred_agent_present: bool
    now: datetime
    agent: AgentView | None = None
    pauses: Sequence[QueuePause] = ()


def explain(subject: Subject, placement: Placement) -> list[RuleResult]:
    """Return every rule's result, in the order in which they decide."""
    return [
        *_about_contact(subject),
        *_about_queues(subject, placement),
        *_about_time(subject, placement),
        *_about_hand_out(subject, placement),
        *(_about_agent(subject, subject.agent) if subject.agent is not None else ()),
    ]


def is_callable(results: Sequence[RuleResult]) -> bool:
    """Return whether the person would be handed out now at the head of the queue.

    One of the three rules of queues must pass, and every other rule.
    """
    of_queues = [it.is_passed for it in results if it.rule in _QUEUE_RULES]
    others = [it.is_passed for it in results if it.rule not in _QUEUE_RULES]
    return any(of_queues) and all(others)


def summary(subject: Subject, results: Sequence[RuleResult]) -> str:
    """Return the person's place in one sentence."""
    entry = subject.entry
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


def _about_contact(subject: Subject) -> Iterator[RuleResult]:
    entry, reason = subject.entry, subject.entry.eligible_reason
    inputs = {}
    if subject.facts is not None:
        inputs = {
            "exists": _yes(subject.facts.exists),
            "is_enabled": _yes(subject.facts.is_enabled),
            "status": "NULL" if subject.facts.status is None else subject.facts.status,
        }
    yield _result(
        "CONTACT_ALLOWED",
        reason not in NO_CONTACT_REASONS,
        "the main app lets the person be contacted",
        _NO_CONTACT_WORDS.get(reason, ""),
        "the main app must have the person, enabled and with an active status",
        inputs,
    )
    yield _result(
        "NOT_SUPPRESSED",
        ContactBlock.DO_NOT_CONTACT not in entry.block,
        "the person has not asked to be left alone",
        "the person asked never to be contacted",
        "a supervisor must lift the objection",
    )
    yield _result(
        "NOT_DECEASED",
        ContactBlock.DECEASED not in entry.block,
        "no agent has reported that the person has died",
        "it was reported that the person has died",
        "a supervisor must lift the report",
    )
    yield _result(
        "PHONE_NOT_SUPPRESSED",
        PhoneBlock.DO_NOT_CONTACT not in entry.phone_block,
        "no objection of another person, or of a number alone, stops one of the numbers",
        "an objection of another person, or of a number alone, stops one of the numbers",
        "a supervisor must lift that objection",
    )
    yield _result(
        "PHONE_NOT_LISTED",
        PhoneBlock.LISTED not in entry.phone_block,
        "no number is on a list of numbers that must not be called",
        "one of the numbers is on a list of numbers that must not be called",
        "the number must leave the list",
    )
    found, count = len(entry.phones), len(entry.lines)
    yield _result(
        "CALLABLE_NUMBER",
        count > 0,
        "there is a number that can be called",
        "there is no number that can be called"
        if not found
        else "every number is shared by too many people to be the person's own",
        "the main app must hold a valid number of the person's own",
        {"numbers_found": str(found), "numbers_that_count": str(count)},
    )
    yield _result(
        "NO_CLAIM_NOT_REPORTED",
        ContactBlock.NO_CLAIM not in entry.block,
        "no agent has reported that there is no claim",
        "an agent reported that there is no claim",
        "a supervisor must review and lift it",
    )


_NO_CONTACT_WORDS = {
    Reason.USER_NOT_FOUND: "the main app has no such person",
    Reason.USER_DISABLED: "the person is disabled in the main app",
    Reason.USER_INACTIVE: "the person's status in the main app ends contact",
}


def _about_queues(subject: Subject, placement: Placement) -> Iterator[RuleResult]:
    entry, now = subject.entry, subject.now
    tally = placement.eligibility.tally(subject.facts) if subject.facts is not None else None
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
        "a new case, or a supervisor's callback",
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
        return "only requirements of types for which no person is phoned are pending"
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


def _about_time(subject: Subject, placement: Placement) -> Iterator[RuleResult]:
    entry, now, calls = subject.entry, subject.now, placement.rules.calls
    zone = placement.calling_hours.zone(entry.time_zone)
    is_new = entry.last_outcome is None
    # An agreed callback takes the place of both.
    rests = entry.rest_until if entry.callback_at is None else None
    yield _waits(
        "COOLED" if is_new else "NEXT_CALL",
        rests,
        now,
        "the cooling of a new person is over" if is_new else "the last outcome's wait is over",
        "the person is new and cools" if is_new else "the last outcome asks to wait",
        {} if entry.last_outcome is None else {"last_outcome": entry.last_outcome.name.lower()},
    )
    agreed = entry.callback_at
    yield _waits(
        "CALLBACK_TIME", agreed, now, "no callback lies ahead", "the person wants to be called then"
    )
    of_person, *of_lines = histories(subject.status.calls, subject.status.line_calls)
    yield _cap(
        Hold.DAILY_CAP,
        [
            _stored_cap(entry, Hold.DAILY_CAP, now),
            *(daily_cap(it, now, zone, calls) for it in (of_person, *of_lines)),
        ],
        [calls_of_day(it, now, zone) for it in (of_person, *of_lines)],
        calls.attempts_per_day,
        "today",
    )
    yield _cap(
        Hold.PERIOD_CAP,
        [
            _stored_cap(entry, Hold.PERIOD_CAP, now),
            *(period_cap(it, now, calls) for it in (of_person, *of_lines)),
        ],
        [len(it) for it in (of_person, *of_lines)],
        calls.attempts_per_period,
        f"in {calls.period_days} days",
    )
    rest = unreported_rest(subject.status.calls, now, calls) or _stored_cap(
        entry, Hold.UNREPORTED_CALL, now
    )
    yield _waits(
        Hold.UNREPORTED_CALL.name,
        None if rest is None else rest.until,
        now,
        "no call has ended without a report of late",
        "a call ended without a report, and the person rests",
    )
    held_until = placement.numbers_held_until(entry.user_id, subject.status, now)
    yield _waits(
        "SHARED_PHONE",
        entry.phone_free_at,
        now,
        "no other person on one of the lines was called lately",
        "another person on one of the lines was called"
        if held_until is None or held_until != entry.phone_free_at
        else "a call to another person found every one of the numbers to be bad",
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


def _about_hand_out(subject: Subject, placement: Placement) -> Iterator[RuleResult]:
    entry = subject.entry
    pause = max(
        (it for it in subject.pauses if it.covers(entry.queue)),
        key=lambda it: it.ends_at,
        default=None,
    )
    yield _result(
        "NOT_PAUSED",
        pause is None,
        "hand-outs of the queue are not paused",
        "hand-outs are paused" + ("" if pause is None else f" until {_time(pause.ends_at)}"),
        "the pause must end, or a supervisor end it",
        {} if pause is None else {"pause_id": str(pause.pause_id), "ends_at": _time(pause.ends_at)},
    )
    yield _result(
        "NOT_HELD",
        entry.state is not State.ASSIGNED,
        "no agent holds the person",
        f"agent {entry.agent_id} holds the person",
        "the assignment must end",
        {"agent_id": entry.agent_id or ""},
    )
    is_quarantined = (
        entry.state is State.RESERVED
        and entry.reserved_by is None
        and entry.reserved_until is not None
        and entry.reserved_until > subject.now
    )
    yield _result(
        "NOT_QUARANTINED",
        not is_quarantined,
        "no check of the person has failed of late",
        "the person could not be handed out, and is passed over until"
        f" {_time(entry.reserved_until)}",
        f"it must be {_time(entry.reserved_until)}",
    )
    is_busy = subject.are_lines_in_call and entry.state is not State.ASSIGNED
    yield _result(
        "PHONE_NOT_IN_CALL",
        not is_busy,
        "no other person on one of the lines is with an agent",
        "another person on one of the lines is with an agent",
        "that assignment must end",
    )


def _about_agent(subject: Subject, agent: AgentView) -> Iterator[RuleResult]:
    entry = subject.entry
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
    is_own = entry.queue is Queue.CALLBACKS and entry.callback_agent_id == agent.agent_id
    yield _result(
        "AGENT_QUEUES",
        allowed is None or entry.queue in allowed or is_own,
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
        "the agent must be handed another person",
    )
    preferred = entry.callback_agent_id if entry.queue is Queue.CALLBACKS else None
    kept_until = entry.kept_until if entry.queue is Queue.CALLBACKS else None
    is_kept = (
        subject.is_preferred_agent_present
        and preferred not in (None, agent.agent_id)
        and kept_until is not None
        and kept_until > subject.now
    )
    yield _result(
        "CALLBACK_OFFERED",
        not is_kept,
        "no callback is kept for another agent",
        f"the callback is kept for agent {preferred} until {_time(kept_until)}, its first minutes"
        " since the person can be called",
        "the preferred agent must take no calls, or the minutes must pass",
        {"kept_until": _time(kept_until)},
    )


def _stored_cap(entry: Entry, hold: Hold, now: datetime) -> Cap | None:
    """Return the cap that the entry itself holds, if it is of this kind."""
    if entry.cap is not hold or entry.capped_until is None or entry.capped_until <= now:
        return None
    return Cap(entry.capped_until, hold)


def _cap(
    hold: Hold, caps: Sequence[Cap | None], made: Sequence[int], allowed: int, within: str
) -> RuleResult:
    """Explain a cap; `made` counts the calls to the person first, then those to each line."""
    until = max((it.until for it in caps if it is not None), default=None)
    most = max(made[1:], default=0)
    words = f"{made[0]} of {allowed} calls made {within}"
    if most > made[0]:
        words += f", {most} on one of the lines"
    return _result(
        hold.name,
        until is None,
        words,
        f"{words}; the next may be at {_time(until)}",
        f"it must be {_time(until)}",
        {"calls": str(made[0]), "calls_on_a_line": str(most), "calls_at_most": str(allowed)},
    )


def _waits(
    rule: str,
    until: datetime | None,
    now: datetime,
    free: str,
    waits: str,
    inputs: Mapping[str, str] | None = None,
) -> RuleResult:
    return _result(
        rule,
        until is None or until <= now,
        free,
        f"{waits}, until {_time(until)}",
        f"it must be {_time(until)}",
        {"until": _time(until), **(inputs or {})},
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
