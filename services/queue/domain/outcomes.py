"""What an agent reports of a call, and what it does to the person's place."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.errors import InvalidArgument
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.terms import AgentId, Outcome
from services.queue.rules import OutcomeRules


@dataclass(frozen=True, slots=True)
class CallReport:
    """How a call ended, in the agent's words."""

    outcome: Outcome
    notes: str = ""
    callback_at: datetime | None = None


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
    if report.callback_at is not None:
        _check_callback(report.callback_at, outcome_rules, placement, now)


def applied(
    report: CallReport, entry: Entry, agent_id: AgentId, placement: Placement, now: datetime
) -> Entry:
    """Return the entry after the call, where the facts put it; nobody holds the person any more."""
    rules = placement.rules.outcomes[report.outcome]
    number = entry.attempts_in_stay + 1
    after = entry._replace(
        rank_key=_ranked(entry, rules, number, placement, now),
        due_at=_due_at(report, rules, now),
        block=rules.block or entry.block,
        attempts=entry.attempts + 1,
        attempts_in_stay=number,
        last_outcome=report.outcome,
        last_contact_at=now,
        last_agent_id=agent_id,
    )
    return placement.settled(after, now)


def skipped(entry: Entry, placement: Placement, now: datetime) -> Entry:
    """Return the entry at the back of its score; a skip alone never freezes anybody."""
    ranking = placement.ranking
    behind = ranking.behind_its_score(placement.score(entry, now))
    if behind >= placement.rules.score.frozen:
        return placement.settled(entry, now)
    return placement.settled(entry._replace(rank_key=ranking.key(behind, now)), now)


def _check_callback(
    callback_at: datetime, outcome_rules: OutcomeRules, placement: Placement, now: datetime
) -> None:
    if not outcome_rules.callback:
        raise InvalidArgument("CALLBACK_NOT_ALLOWED", "this outcome takes no time for a callback")
    if callback_at <= now:
        raise InvalidArgument("CALLBACK_NOT_IN_FUTURE", "a callback must lie in the future")
    longest_days = placement.rules.calls.callback_longest_days
    if callback_at > now + timedelta(days=longest_days):
        raise InvalidArgument(
            "CALLBACK_TOO_FAR", f"a callback lies {longest_days:g} days ahead at most"
        )


def _ranked(
    entry: Entry, rules: OutcomeRules, number: int, placement: Placement, now: datetime
) -> float:
    ranking = placement.ranking
    if rules.score.set is not None:
        return ranking.key(rules.score.set, now)
    return entry.rank_key + (rules.score.add or 0.0) + ranking.attempt_points(number)


def _due_at(report: CallReport, rules: OutcomeRules, now: datetime) -> datetime | None:
    if report.callback_at is not None:
        return report.callback_at
    if not rules.next_call_hours:
        return None
    return now + timedelta(hours=rules.next_call_hours)
