"""Whether every callback that was agreed is kept, or came to an end for a reason that is told."""

from collections import Counter, defaultdict
from datetime import datetime

from simulation.checker.findings import Report
from simulation.checker.replay import Replay
from simulation.checker.rules import MISSES_BEFORE_SUPERVISOR, OBJECTION
from simulation.history import (
    CallbackChanged,
    CallbackRow,
    OutcomeRecord,
    SuppressionRecord,
    WeekHistory,
)


def check_callbacks(history: WeekHistory, replay: Replay, report: Report) -> None:
    """Check every callback that an answer told of, and every row of the table."""
    _Callbacks(history, replay, report).check()


class _Callbacks:
    def __init__(self, history: WeekHistory, replay: Replay, report: Report) -> None:
        self._history = history
        self._replay = replay
        self._report = report
        self._rows = {row.callback_id: row for row in history.tables.callbacks}
        self._cancelled: set[str] = set()
        self._suppressed: set[int] = set()
        self._told: dict[str, datetime] = {}
        self._of_person: Counter[int] = Counter(row.user_id for row in self._rows.values())
        self._call_ends: dict[int, set[datetime]] = defaultdict(set)
        self._listen()

    def _listen(self) -> None:
        for record in self._history.records:
            match record:
                case CallbackChanged(how=how, callback=callback) if callback and not record.error:
                    self._told.setdefault(callback.callback_id, record.at)
                    if how == "cancelled":
                        self._cancelled.add(callback.callback_id)
                case SuppressionRecord(error="", phone=phone):
                    self._suppressed |= self._replay.state.by_phone[phone] | {record.user_id}
                case OutcomeRecord(error="", outcome=outcome) if outcome == OBJECTION:
                    held = self._replay.state.assignments.get(record.assignment_id)
                    if held is not None:
                        self._suppressed.add(held.hand_out.user_id)
        for assignment_id, told in self._replay.outcomes.items():
            if told.open_callback is not None:
                self._told.setdefault(told.open_callback.callback_id, told.at)
            given = self._replay.state.assignments[assignment_id].hand_out
            self._call_ends[given.user_id].add(told.at)

    def check(self) -> None:
        """Go through what was told, then through what there is."""
        for callback_id, at in self._told.items():
            self._report.check(
                "no callback lost", callback_id in self._rows, at, f"callback {callback_id}"
            )
        opened: Counter[int] = Counter()
        for row in self._rows.values():
            self._report.check(
                "callbacks end for a reason",
                self._is_explained(row),
                row.closed_at or row.scheduled_for,
                f"{row}",
            )
            if row.state == "open":
                opened[row.user_id] += 1
        for user_id, count in opened.items():
            self._report.check(
                "one callback a person",
                count == 1,
                self._history.began_at,
                f"person {user_id} has {count}",
            )

    def _is_explained(self, row: CallbackRow) -> bool:
        match row.state:
            case "open":
                return row.closed_at is None
            case "done":
                return row.closed_at in self._call_ends[row.user_id]
            case "missed":
                return row.misses >= MISSES_BEFORE_SUPERVISOR
            case "cancelled":
                return row.callback_id in self._cancelled or row.user_id in self._suppressed
            case "replaced":
                return self._of_person[row.user_id] > 1
            case "closed":
                # Looked at as of that moment when the records were gone through.
                return row.closed_at is not None
        return False
