"""What a week came to, in plain words."""

from datetime import datetime

from simulation.checker.findings import Report
from simulation.history import ClaimRecord, Truth, WeekHistory
from simulation.plan import Plan
from simulation.week import WeekResult

_EXAMPLES = 3


def lines(plan: Plan, result: WeekResult, report: Report) -> list[str]:
    """Return the summary, a line each."""
    history = result.history
    claims = [it for it in history.records if isinstance(it, ClaimRecord)]
    unseen = sum(isinstance(it, Truth) and not it.is_captured for it in history.records)
    figures = [
        ("people, at the beginning", len(history.people)),
        ("agents", plan.agents),
        ("times a person was handed out", len(history.tables.assignments)),
        ("calls with an outcome", sum(it.outcome != "" for it in history.tables.attempts)),
        ("calls without a report", sum(it.outcome == "" for it in history.tables.attempts)),
        ("objections that stand at the end", len(history.tables.objections)),
        ("requests for a person, answered with none", sum(_is_empty(it) for it in claims)),
        ("changes in MySQL", result.changes.total()),
        ("  of them kept out of the binlog", unseen),
        ("change messages processed", result.messages),
        ("wrong calls prevented by the live check", sum(it.rejected for it in claims)),
        ("conversions", len(history.tables.conversions)),
        ("callbacks agreed", len(history.tables.callbacks)),
        *((f"ineligible at the end: {reason}", count) for reason, count in result.blocked.items()),
        ("checks made", report.checks.total()),
        ("VIOLATIONS", report.violations),
    ]
    shown = [f"{words:<52}{figure:>12,}" for words, figure in figures]
    shown += [""] + [f"  {rule:<40}{count:>10,} checks" for rule, count in _by_rule(report)]
    if result.errors:
        shown += ["", "Refused, as it should be or for want of time:"]
        shown += [f"  {what:<60}{count:>8,}" for what, count in result.errors.most_common()]
    return shown + _violations(report)


def progress_line(at: datetime, history: WeekHistory, changes: int) -> str:
    """Return where the week has come to."""
    return f"{at:%a %d %b %H:%M} {len(history.records):>9,} records {changes:>8,} changes"


def _is_empty(claimed: ClaimRecord) -> bool:
    return claimed.hand_out is None and not claimed.error


def _by_rule(report: Report) -> list[tuple[str, int]]:
    return sorted(report.checks.items())


def _violations(report: Report) -> list[str]:
    if not report.violations:
        return ["", "Every rule was kept."]
    shown = ["", "BROKEN:"]
    shown += [f"  {rule}: {count} times" for rule, count in report.broken.most_common()]
    for rule in report.broken:
        examples = [it for it in report.examples if it.rule == rule][:_EXAMPLES]
        shown += [f"    {it.at:%a %H:%M:%S} {it.rule}: {it.words}" for it in examples]
    return shown
