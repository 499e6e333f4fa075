"""Whether the tables at the end tell what the answers told: nothing lost, nothing made up."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from simulation.checker.findings import Report
from simulation.checker.people import MatterChange
from simulation.checker.replay import OUTSIDE_HOURS, Replay
from simulation.checker.rules import CREDITED_FOR, NOT_SPOKEN, OBJECTION
from simulation.history import (
    OUTSTANDING,
    UNSIGNED,
    AssignmentRow,
    AttemptRow,
    ClaimRecord,
    ConversionRecord,
    OutcomeRecord,
    View,
    WeekHistory,
)

T = TypeVar("T", AssignmentRow, AttemptRow, ConversionRecord)


def check_tables(history: WeekHistory, replay: Replay, report: Report) -> None:
    """Compare the tables with what was answered, and with each other."""
    _check_assignments(history, replay, report)
    _check_overlaps(history.tables.assignments, lambda row: f"person {row.user_id}", report)
    _check_overlaps(history.tables.assignments, lambda row: f"agent {row.agent_id}", report)
    _check_attempts(history, replay, report)
    _check_entries(history, replay, report)
    _check_objections(history, replay, report)
    _Conversions(history, replay, report).check()


def _check_assignments(history: WeekHistory, replay: Replay, report: Report) -> None:
    rows = {row.assignment_id: row for row in history.tables.assignments}
    for assignment_id, held in replay.state.assignments.items():
        given, row = held.hand_out, rows.get(assignment_id)
        same = row is not None and (row.agent_id, row.user_id) == (given.agent_id, given.user_id)
        report.check(
            "hand-outs in the table", same, given.started_at, f"{given} is {row} in the table"
        )
    left_waiting = {
        it.agent_id for it in history.records if isinstance(it, ClaimRecord) and it.error
    }
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


def _check_attempts(history: WeekHistory, replay: Replay, report: Report) -> None:
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
    unreported = _unreported(replay)
    for assignment_id in unreported:
        found = rows.get(assignment_id, [])
        outcomes = ("", OBJECTION) if assignment_id in replay.late_objections else ("",)
        report.check(
            "unreported calls kept",
            len(found) == 1 and found[0].outcome in outcomes,
            replay.state.assignments[assignment_id].end,
            f"{assignment_id} ended without a report: {found}",
        )
    unsure = {
        it.assignment_id
        for it in history.records
        if isinstance(it, OutcomeRecord) and it.error not in ("", OUTSIDE_HOURS)
    }
    acknowledged = replay.outcomes.keys() | replay.late_objections.keys() | unreported | unsure
    for assignment_id, found in rows.items():
        is_told = assignment_id in acknowledged
        report.check(
            "no outcome made up", is_told, found[0].ended_at, f"{found[0]} was never acknowledged"
        )


def _unreported(replay: Replay) -> set[str]:
    """Return the assignments of calls that were never reported."""
    return {
        assignment_id
        for assignment_id, held in replay.state.assignments.items()
        if held.is_unreported and held.is_heartbeated and assignment_id not in replay.outcomes
    }


def _is_same(row: AttemptRow, told: OutcomeRecord) -> bool:
    written = (row.agent_id, row.outcome, row.notes, row.ended_at)
    return written == (told.agent_id, told.outcome, told.notes, told.at)


def _check_entries(history: WeekHistory, replay: Replay, report: Report) -> None:
    for row in history.tables.entries:
        person = replay.state.people.get(row.user_id)
        if person is None:
            continue
        told = (person.calls.certain, person.last_outcome, person.last_agent_id)
        is_counted = 0 <= row.attempts - person.calls.certain <= person.late_objections
        report.check(
            "outcomes took effect",
            is_counted and told[1:] == (row.last_outcome, row.last_agent_id),
            history.ended_at or history.began_at,
            f"person {row.user_id}: {told} by the answers, {row} in the table",
        )


def _check_objections(history: WeekHistory, replay: Replay, report: Report) -> None:
    ended_at, found = history.ended_at or history.began_at, history.tables.objections
    for user_id, person in replay.state.people.items():
        if person.objection is not None:
            report.check(
                "no objection lost", user_id in found, ended_at, f"that of person {user_id}"
            )
    for phone, stops in replay.state.phone_stops.items():
        if stops.bare is not None:
            report.check("no objection lost", phone in found, ended_at, "that of a bare number")


class _Conversions:
    """Each matter that came to its end is recorded once, to the credit of the right agent."""

    def __init__(self, history: WeekHistory, replay: Replay, report: Report) -> None:
        self._people = replay.state.people
        self._report = report
        self._ended_at = history.ended_at or history.began_at
        self._rows = _by_person(history.tables.conversions)
        self._attempts = _by_person(history.tables.attempts)
        self._assignments = _by_person(history.tables.assignments)
        # Objections that were no report of the call: credited with what came during it, no more.
        self._only_objections = replay.late_objections.keys() - replay.outcomes.keys()

    def check(self) -> None:
        """Check every person."""
        for user_id in sorted(self._rows.keys() | self._people.keys()):
            person = self._people.get(user_id)
            rows = sorted(self._rows.get(user_id, []), key=lambda row: row.recorded_at)
            for row in rows:
                self._check_credit(row)
            changes = person.matter_changes if person is not None else []
            self._check_person(user_id, changes, rows)

    def _check_person(
        self, user_id: int, changes: Sequence[MatterChange], rows: Sequence[ConversionRecord]
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

    def _check_credit(self, row: ConversionRecord) -> None:
        """To the holder who then reports to have spoken with the person, else who did so last."""
        at = row.recorded_at
        assignments = self._assignments.get(row.user_id, [])
        spoken = [
            it
            for it in self._attempts.get(row.user_id, [])
            if it.outcome and it.outcome not in NOT_SPOKEN
        ]
        reported = {it.assignment_id for it in spoken if it.ended_at >= at}
        # Of calls that began before and were reported afterwards, one goes on for certain, unless
        # it begins or ends at this very moment or its lease has run out.
        later = [it for it in assignments if it.assignment_id in reported and it.started_at <= at]
        certain = [it for it in later if it.started_at < at < _end_of(it)]
        before = [
            it
            for it in spoken
            if it.ended_at <= at and it.assignment_id not in self._only_objections
        ]
        latest = max((it.ended_at for it in before), default=None)
        allowed: set[str | None] = {it.agent_id for it in certain or later}
        if not certain:
            is_recent = latest is not None and latest > at - CREDITED_FOR
            last = {it.agent_id for it in before if it.ended_at == latest and is_recent}
            allowed |= last or {None}
        self._report.check(
            "conversion credited",
            row.agent_id in allowed or latest == at,
            at,
            f"{row} is credited to none of {sorted(map(str, allowed))}",
        )


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
        # At that very moment either of the two may be noticed first.
        if known_by is not None and change.at <= known_by:
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
    """Return what became of a person with the open case `before`; None for no conversion."""
    if before is None or before == view.matter or view.ending in ("gone", "no_claims"):
        return None
    if before == UNSIGNED and view.is_signed:
        return "signature_obtained"
    if view.ending == "claims_ended":
        return "claims_ended"
    if before == OUTSTANDING and view.ending == "requirements_met":
        return "requirements_met"
    return None
