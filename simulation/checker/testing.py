"""Histories written by hand, for the tests of the checker."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from simulation.history import (
    UNSIGNED,
    AssignmentRow,
    AttemptRow,
    Callback,
    CallbackChanged,
    CallbackRow,
    Claimed,
    ConversionRow,
    EntryRow,
    Extended,
    HandOut,
    History,
    Record,
    Recorded,
    Released,
    Tables,
    Truth,
    View,
    Window,
)

MONDAY = datetime(2026, 6, 8, tzinfo=UTC)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
OWES_SIGNATURE = View(True, True, UNSIGNED, "", False, None, LONG_AGO, LONG_AGO)
SIGNED = OWES_SIGNATURE._replace(matter=None, ending="requirements_met", is_signed=True)
LEASE = timedelta(minutes=2)


class Story:
    """A week told line by line, with tables that agree with it until somebody spoils them."""

    def __init__(self, *people: int, view: View = OWES_SIGNATURE) -> None:
        self.now = MONDAY + timedelta(hours=6)
        self.history = History(self.now, dict.fromkeys(people, view))
        self.assignments: dict[str, AssignmentRow] = {}
        self.attempts: list[AttemptRow] = []
        self.conversions: list[ConversionRow] = []
        self.callbacks: dict[str, CallbackRow] = {}
        self.entries: dict[int, EntryRow] = {it: EntryRow(it, 0, None, None) for it in people}
        self._real = 0.0
        self._count = 0

    def at(self, hour: int, minute: int = 0, *, day: int = 0) -> "Story":
        """Go on at that time in London, which is an hour ahead of UTC in June."""
        self.now = MONDAY + timedelta(days=day, hours=hour - 1, minutes=minute)
        return self

    def later(self, minutes: float) -> "Story":
        """Go on so many minutes later."""
        self.now += timedelta(minutes=minutes)
        return self

    def window(self) -> Window:
        """Return the next moment of real time."""
        self._real += 2.0
        return Window(self._real, self._real + 1.0)

    def add(self, record: Record) -> None:
        """Write down anything else."""
        self.history.records.append(record)

    def identity(self) -> str:
        """Return an id nobody has had."""
        self._count += 1
        return str(UUID(int=self._count))

    def becomes(self, user_id: int, view: View) -> None:
        """Let MySQL say something else of somebody."""
        self.add(Truth(self.now, self.window(), user_id, view))

    def gets(self, agent_id: str, user_id: int, queue: str = UNSIGNED) -> HandOut:
        """Hand somebody out."""
        given = HandOut(self.identity(), agent_id, user_id, queue, self.now, self.now + LEASE)
        self.add(Claimed(self.now, self.window(), agent_id, self.identity(), (), hand_out=given))
        self.assignments[given.assignment_id] = AssignmentRow(*given, ended_at=None)
        return given

    def gets_nobody(self, agent_id: str) -> None:
        """Answer an agent that there is nobody."""
        self.add(Claimed(self.now, self.window(), agent_id, self.identity(), ()))

    def talks(self, given: HandOut) -> None:
        """Answer a heartbeat."""
        until = self.now + LEASE
        self.add(Extended(self.now, self.window(), given.assignment_id, until))
        row = self.assignments[given.assignment_id]
        self.assignments[given.assignment_id] = row._replace(lease_expires_at=until)

    def gives_back(self, given: HandOut, how: str = "skipped") -> None:
        """End an assignment without a call."""
        self.add(Released(self.now, self.window(), given.assignment_id, how))
        self._end(given)

    def reports(
        self,
        given: HandOut,
        outcome: str,
        *,
        callback_at: datetime | None = None,
        is_retried: bool = False,
    ) -> Recorded:
        """Record an outcome, and the callback it makes or the one that is tried again."""
        callback = self._retried(given.user_id) if is_retried else None
        if callback_at is not None:
            callback = Callback(self.identity(), given.user_id, callback_at, given.agent_id, "open")
            self.callbacks[callback.callback_id] = CallbackRow(
                callback.callback_id, given.user_id, "open", callback_at, 0, None, ""
            )
        record = Recorded(
            self.now,
            self.window(),
            given.assignment_id,
            given.agent_id,
            self.identity(),
            outcome,
            "",
            callback_at,
            callback,
        )
        self.add(record)
        self.attempts.append(
            AttemptRow(given.assignment_id, given.user_id, given.agent_id, outcome, "", self.now)
        )
        entry = self.entries[given.user_id]
        self.entries[given.user_id] = EntryRow(
            entry.user_id, entry.attempts + 1, outcome, given.agent_id
        )
        self._end(given)
        return record

    def calls(self, agent_id: str, user_id: int, outcome: str = "no_answer") -> HandOut:
        """Hand somebody out and record an outcome a minute later."""
        given = self.gets(agent_id, user_id)
        self.later(1).reports(given, outcome)
        return given

    def converts(self, user_id: int, agent_id: str | None, kind: str) -> None:
        """Put a conversion into the table."""
        self.conversions.append(ConversionRow(user_id, UNSIGNED, kind, agent_id, self.now))

    def ends_callback(self, callback_id: str, state: str, reason: str, *, misses: int = 0) -> None:
        """Let the table say that a callback has come to its end."""
        row = self.callbacks[callback_id]
        self.callbacks[callback_id] = row._replace(
            state=state, closed_at=self.now, closed_reason=reason, misses=misses
        )

    def schedules(self, user_id: int, moment: datetime) -> Callback:
        """Let a supervisor agree a callback."""
        made = Callback(self.identity(), user_id, moment, "", "open")
        self.add(CallbackChanged(self.now, self.window(), "scheduled", made, user_id))
        self.callbacks[made.callback_id] = CallbackRow(
            made.callback_id, user_id, "open", moment, 0, None, ""
        )
        return made

    def calls_off(self, callback: Callback) -> None:
        """Let a supervisor call a callback off."""
        gone = callback._replace(state="cancelled")
        self.add(CallbackChanged(self.now, self.window(), "cancelled", gone, callback.user_id))
        self.ends_callback(callback.callback_id, "cancelled", "CANCELLED")

    def _retried(self, user_id: int) -> Callback:
        row = next(it for it in self.callbacks.values() if it.user_id == user_id)
        again = row._replace(scheduled_for=self.now + timedelta(minutes=15), misses=1)
        self.callbacks[row.callback_id] = again
        return Callback(row.callback_id, user_id, again.scheduled_for, "", "open")

    def told(self) -> History:
        """Return the whole of it."""
        tables = Tables(
            tuple(self.assignments.values()),
            tuple(self.attempts),
            tuple(self.conversions),
            tuple(self.callbacks.values()),
            tuple(self.entries.values()),
        )
        return replace(
            self.history, tables=tables, ended_at=max(self.now, MONDAY + timedelta(days=5))
        )

    def _end(self, given: HandOut) -> None:
        row = self.assignments[given.assignment_id]
        self.assignments[given.assignment_id] = row._replace(ended_at=self.now)
