"""What an agent reports of a call, and what the report changes in the person's entry."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.errors import FailedPrecondition, InvalidArgument
from services.queue.domain.callbacks import (
    Callback,
    NewCallback,
    Opening,
    after_call,
    callback_of,
    require_schedulable,
)
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.rules import CallbackRule, Rules
from services.queue.types import AgentId, ContactBlock, Outcome, Reason


@dataclass(frozen=True, slots=True)
class CallReport:
    """How a call ended, as the agent reports it; `disposition` is a code of the rules, or None."""

    outcome: Outcome
    notes: str = ""
    callback_at: datetime | None = None
    disposition: str | None = None


@dataclass(frozen=True, slots=True)
class AfterCall:
    """A person after a call: the callback that was open, and the one that was agreed."""

    entry: Entry
    callback: Callback | None
    new_callback: NewCallback | None


def outcome_of(outcome: Outcome | None, disposition: str, rules: Rules) -> Outcome:
    """Return the outcome that is reported, by itself or by a disposition.

    Raises InvalidArgument (OUTCOME_MISSING, DISPOSITION_UNKNOWN, DISPOSITION_MISMATCH).
    """
    if not disposition:
        if outcome is None:
            raise InvalidArgument("OUTCOME_MISSING", "no outcome that we know is given")
        return outcome
    named = next((it for it in rules.dispositions if it.code == disposition), None)
    if named is None:
        raise InvalidArgument("DISPOSITION_UNKNOWN", "the rules have no such disposition")
    if outcome is not None and outcome is not named.outcome:
        raise InvalidArgument(
            "DISPOSITION_MISMATCH", "the rules have this disposition for another outcome"
        )
    return named.outcome


def check(report: CallReport, placement: Placement, opening: Opening, now: datetime) -> None:
    """Raise InvalidArgument unless this report is valid; the assignment is checked elsewhere."""
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
    require_schedulable(report.callback_at, rules, opening, now)


def applied(
    report: CallReport,
    entry: Entry,
    agent_id: AgentId | None,
    callback: Callback | None,
    placement: Placement,
    now: datetime,
    *,
    is_counted: bool,
) -> AfterCall:
    """Return the person after the call, not placed yet and without the caps that it leads to.

    `agent_id` is the agent who called, `callback` the open one; with `is_counted` the call was
    counted when it ended without a report, or is none of ours. A person who may not be called gets
    no new callback; raises FailedPrecondition (USER_NOT_CALLABLE) if the report agrees one.
    """
    rules, opening = placement.rules, placement.opening(entry)
    new_callback = callback_of(
        report.outcome, report.callback_at, agent_id, callback, rules, opening, now
    )
    block = placement.contact_block(entry)
    if block not in (None, Reason.NO_CALLABLE_NUMBER):
        # The person may ring us, and no call may follow.
        if report.callback_at is not None:
            raise FailedPrecondition(
                "USER_NOT_CALLABLE", "the person may not be called", cause=str(block)
            )
        new_callback = None
    if callback is not None:
        is_replaced = new_callback is not None
        callback = after_call(callback, report.outcome, is_replaced, rules, opening, now)
    rule = rules.outcomes[report.outcome]
    after = entry if is_counted else called(entry, now)
    hours, score = rule.next_call_hours, rule.score
    after = after._replace(
        rest_until=now + timedelta(hours=hours) if hours else None,
        block=entry.block | (rule.block or ContactBlock(0)),
        last_outcome=report.outcome,
        last_contact_at=now,
    )
    if rule.is_conversation:
        after = after._replace(last_agent_id=agent_id, last_spoken_at=now)
    if score.set is not None:
        after = after._replace(outcome_points=score.set, attempt_points=0.0, aged_from=now)
    else:
        points = placement.ranking.attempt_points(after.attempts_in_case)
        after = after._replace(
            outcome_points=after.outcome_points + (score.add or 0.0),
            attempt_points=after.attempt_points + points,
        )
    return AfterCall(after.with_callback(callback), callback, new_callback)


def called(entry: Entry, now: datetime) -> Entry:
    """Return the entry with one more call, reported or not."""
    return entry._replace(
        attempts=entry.attempts + 1,
        attempts_in_case=entry.attempts_in_case + 1,
        last_contact_at=now,
    )


def skipped(entry: Entry, placement: Placement, now: datetime) -> Entry:
    """Return the entry behind all others of its score; a skip alone never freezes a person."""
    score = placement.score(entry, now)
    behind = placement.ranking.behind_its_score(score)
    if behind >= placement.rules.score.frozen:
        return entry
    return entry._replace(outcome_points=entry.outcome_points + behind - score)
