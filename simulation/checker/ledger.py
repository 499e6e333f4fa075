"""Whether the tables at the end tell what the answers told: nothing lost, nothing made up."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from simulation.checker.findings import Report
from simulation.checker.people import MatterChange
from simulation.checker.replay import Replay
from simulation.history import (
    OUTSTANDING,
    UNSIGNED,
    AssignmentRow,
    AttemptRow,
    Claimed,
    ConversionRow,
    History,
    Recorded,
    View,
)

T = TypeVar("T", AssignmentRow, AttemptRow, ConversionRow)


def check_tables(history: History, replay: Replay, report: Report) -> None:
    """Compare the tables with what was answered, and with each other."""
    _check_assignments(history, replay, report)
    _check_overlaps(history.tables.assignments, lambda row: f"person {row.user_id}", report)
    _check_overlaps(history.tables.assignments, lambda row: f"agent {row.agent_id}", report)
    _check_attempts(history, replay, report)
    _check_entries(history, replay, report)
    _Conversions(history, replay, report).check()


def _check_assignments(history: History, replay: Replay, report: Report) -> None:
    rows = {row.assignment_id: row for row in history.tables.assignments}
    for assignment_id, held in replay.state.assignments.items():
        given, row = held.hand_out, rows.get(assignment_id)
        same = row is not None and (row.agent_id, row.user_id) == (given.agent_id, given.user_id)
        report.check(
            "hand-outs in the table", same, given.started_at, f"{given} is {row} in the table"
        )
    left_waiting = {it.agent_id for it in history.records if isinstance(it, Claimed) and it.error}
    for assignment_id, row in rows.items():
        is_told = assignment_id in replay.state.assignments or row.agent_id in left_waiting
        report.check("no secret hand-outs", is_told, row.started_at, f"{row} was never answered")


def _end_of(row: AssignmentRow) -> datetime:
    return min(row.ended_at or row.lease_expires_at, row.lease_expires_at)


def _check_overlaps(
    rows: Iterable[AssignmentRow], owner_of: Callable[[AssignmentRow], str], report: Report
) -> None:
    by_owner: dict[str, list[AssignmentRow]] = defaultdict(list)
    for row in rows:
        by_owner[owner_of(row)].append(row)
    for owner, theirs in by_owner.items():
        theirs.sort(key=lambda row: (row.started_at, _end_of(row)))
        for earlier, later in pairwise(theirs):
            report.check(
                "no double assignment",
                _end_of(earlier) <= later.started_at,
                later.started_at,
                f"{owner}: {earlier} and {later}",
            )


def _check_attempts(history: History, replay: Replay, report: Report) -> None:
    rows: dict[str, list[AttemptRow]] = defaultdict(list)
    for row in history.tables.attempts:
        rows[row.assignment_id].append(row)
    for assignment_id, told in replay.outcomes.items():
        found = rows.get(assignment_id, [])
        report.check(
            "no outcome lost or doubled",
            len(found) == 1 and _is_same(found[0], told),
            told.at,
            f"{told.outcome} of {assignment_id} by {told.agent_id}: {found}",
        )
    unsure = {it.assignment_id for it in history.records if isinstance(it, Recorded) and it.error}
    for assignment_id, found in rows.items():
        is_told = assignment_id in replay.outcomes or assignment_id in unsure
        report.check(
            "no outcome made up", is_told, found[0].ended_at, f"{found[0]} was never acknowledged"
        )


def _is_same(row: AttemptRow, told: Recorded) -> bool:
    written = (row.agent_id, row.outcome, row.notes, row.ended_at)
    return written == (told.agent_id, told.outcome, told.notes, told.at)


def _check_entries(history: History, replay: Replay, report: Report) -> None:
    for row in history.tables.entries:
        person = replay.state.people.get(row.user_id)
        if person is None:
            continue
        told = (len(person.attempts), person.last_outcome, person.last_agent_id)
        report.check(
            "outcomes took effect",
            told == (row.attempts, row.last_outcome, row.last_agent_id),
            history.ended_at or history.began_at,
            f"person {row.user_id}: {told} by the answers, {row} in the table",
        )


class _Conversions:
    """Each matter that came to its end is recorded once, to the credit of the right agent."""

    def __init__(self, history: History, replay: Replay, report: Report) -> None:
        self._people = replay.state.people
        self._report = report
        self._ended_at = history.ended_at or history.began_at
        self._rows = _by_person(history.tables.conversions)
        self._attempts = _by_person(history.tables.attempts)
        self._assignments = _by_person(history.tables.assignments)

    def check(self) -> None:
        """Check everybody."""
        for user_id in sorted(self._rows.keys() | self._people.keys()):
            person = self._people.get(user_id)
            rows = sorted(self._rows.get(user_id, []), key=lambda row: row.recorded_at)
            for row in rows:
                self._check_credit(row)
            changes = person.matter_changes if person is not None else []
            self._check_person(user_id, changes, rows)

    def _check_person(
        self, user_id: int, changes: Sequence[MatterChange], rows: Sequence[ConversionRow]
    ) -> None:
        left = Counter(row.recorded_at for row in rows)
        for cluster in _clusters(changes):
            first, last = cluster[0].at, cluster[-1].known_by
            within = [row for row in rows if first <= row.recorded_at <= last]
            left.subtract(row.recorded_at for row in within)
            kinds = {kind for it in cluster for kind in _kinds_after(cluster, it)}
            # Whichever of these the services noticed, it was an end.
            is_certain = all(conversion_of(cluster[0].before, it.view) for it in cluster)
            fewest = int(is_certain and last <= self._ended_at)
            most = sum(it.before is not None and it.before != it.view.matter for it in cluster)
            right_kind = all(row.conversion in kinds for row in within)
            self._report.check(
                "conversions once each",
                fewest <= len(within) <= most and right_kind,
                first,
                f"person {user_id}: {within} after {cluster}",
            )
        made_up = sum(max(0, count) for count in left.values())
        self._report.check(
            "no conversion made up", made_up <= 0, self._ended_at, f"person {user_id}: {rows}"
        )

    def _check_credit(self, row: ConversionRow) -> None:
        """Whoever holds the person at that moment, else whoever spoke to them last."""
        at = row.recorded_at
        holders = [
            it
            for it in self._assignments.get(row.user_id, [])
            if it.started_at <= at <= (it.ended_at or at)
        ]
        spoke = [it for it in self._attempts.get(row.user_id, []) if it.ended_at <= at]
        latest = max((it.ended_at for it in spoke), default=None)
        # At the very moment at which an assignment begins or ends either may be right.
        certain = [it for it in holders if it.started_at < at and (it.ended_at or _after(at)) > at]
        allowed: set[str | None] = {it.agent_id for it in certain or holders}
        if not certain:
            allowed |= {it.agent_id for it in spoke if it.ended_at == latest} or {None}
            allowed |= {it.agent_id for it in spoke if latest == at}
        self._report.check(
            "conversion credited",
            row.agent_id in allowed or latest == at,
            at,
            f"{row} is credited to none of {sorted(map(str, allowed))}",
        )


def _after(at: datetime) -> datetime:
    return datetime.max.replace(tzinfo=at.tzinfo)


def _by_person(rows: Iterable[T]) -> Mapping[int, list[T]]:
    found: dict[int, list[T]] = defaultdict(list)
    for row in rows:
        found[row.user_id].append(row)
    return found


def _clusters(changes: Sequence[MatterChange]) -> list[list[MatterChange]]:
    """Group changes that came before the services must have noticed the one before."""
    clusters: list[list[MatterChange]] = []
    known_by: datetime | None = None
    for change in changes:
        if known_by is not None and change.at < known_by:
            clusters[-1].append(change)
            known_by = max(known_by, change.known_by)
        else:
            clusters.append([change])
            known_by = change.known_by
    return clusters


def _kinds_after(cluster: Sequence[MatterChange], change: MatterChange) -> set[str]:
    """Return what this change may have been recorded as: its former state may have gone unseen."""
    matters = {it.before for it in cluster} | {it.view.matter for it in cluster}
    kinds = {conversion_of(before, change.view) for before in matters}
    return {kind for kind in kinds if kind is not None}


def conversion_of(before: str | None, view: View) -> str | None:
    """Return what became of somebody who owed `before`; None for no conversion."""
    if before is None or before == view.matter or view.ending in ("gone", "no_claims"):
        return None
    if before == UNSIGNED and view.is_signed:
        return "signature_obtained"
    if view.ending == "claims_ended":
        return "claims_ended"
    if before == OUTSTANDING and view.ending == "requirements_met":
        return "requirements_met"
    return None
