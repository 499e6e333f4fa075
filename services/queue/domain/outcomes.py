"""What an agent reports of a call, and what it does to the person's place."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.errors import InvalidArgument
from services.queue.domain.callbacks import (
    Callback,
    Promise,
    after_call,
    promised,
    require_schedulable,
)
from services.queue.domain.caps import capped
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.terms import AgentId, Outcome
from services.queue.rules import CallbackRule


@dataclass(frozen=True, slots=True)
class CallReport:
    """How a call ended, in the agent's words."""

    outcome: Outcome
    notes: str = ""
    callback_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AfterCall:
    """A person after a call: the callback that was open, and the one that was agreed."""

    entry: Entry
    callback: Callback | None
    promise: Promise | None


def check(report: CallReport, placement: Placement, now: datetime) -> None:
    """Raise InvalidArgument if nobody may report this; says nothing of the assignment."""
    rules = placement.rules
    outcome_rules = rules.outcomes[report.outcome]
    if len(report.notes) > rules.calls.notes_longest_characters:
        raise InvalidArgument(
            "NOTES_TOO_LONG",
            f"notes have {rules.calls.notes_longest_characters} characters at most",
        )
    if "\0" in report.notes:
        raise InvalidArgument("NOTES_INVALID", "notes hold a character that is none")
    if outcome_rules.notes_required and not report.notes.strip():
        raise InvalidArgument("NOTES_REQUIRED", "this outcome needs notes")
    if report.callback_at is None:
        return
    if outcome_rules.callback in (CallbackRule.NEVER, CallbackRule.IMMEDIATE):
        raise InvalidArgument("CALLBACK_NOT_ALLOWED", "this outcome takes no time for a callback")
    require_schedulable(report.callback_at, rules, now)


def applied(
    report: CallReport,
    entry: Entry,
    agent_id: AgentId,
    callback: Callback | None,
    calls: Sequence[datetime],
    placement: Placement,
    now: datetime,
) -> AfterCall:
    """Return the person after the call; nobody holds them any more, nor are they placed yet.

    `callback` is the one that is open, `calls` those of the period that caps look at, this one
    among them.
    """
    promise = promised(report.outcome, report.callback_at, agent_id, callback, placement.rules, now)
    if callback is not None:
        is_replaced = promise is not None
        callback = after_call(callback, report.outcome, is_replaced, placement.rules, now)
    rules = placement.rules.outcomes[report.outcome]
    zone = placement.calling_hours.zone(entry.time_zone)
    cap = capped(calls, now, zone, placement.rules.calls)
    after = entry._replace(
        rest_until=_rest_until(rules.next_call_hours, now),
        block=rules.block or entry.block,
        attempts=entry.attempts + 1,
        attempts_in_stay=entry.attempts_in_stay + 1,
        last_outcome=report.outcome,
        last_contact_at=now,
        last_agent_id=agent_id,
    )
    after = _scored(after, report.outcome, placement, now).with_cap(cap)
    return AfterCall(after.with_callback(callback), callback, promise)


def skipped(entry: Entry, placement: Placement, now: datetime) -> Entry:
    """Return the entry at the back of its score; a skip alone never freezes anybody."""
    score = placement.score(entry, now)
    behind = placement.ranking.behind_its_score(score)
    if behind >= placement.rules.score.frozen:
        return entry
    return entry._replace(outcome_points=entry.outcome_points + behind - score)


def _scored(entry: Entry, outcome: Outcome, placement: Placement, now: datetime) -> Entry:
    effect = placement.rules.outcomes[outcome].score
    if effect.set is not None:
        return entry._replace(outcome_points=effect.set, attempt_points=0.0, aged_from=now)
    points = placement.ranking.attempt_points(entry.attempts_in_stay)
    return entry._replace(
        outcome_points=entry.outcome_points + (effect.add or 0.0),
        attempt_points=entry.attempt_points + points,
    )


def _rest_until(next_call_hours: float | None, now: datetime) -> datetime | None:
    return now + timedelta(hours=next_call_hours) if next_call_hours else None
