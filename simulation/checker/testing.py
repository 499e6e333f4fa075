"""Histories written by hand, for the tests of the checker."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from simulation.checker.rules import NOT_SPOKEN
from simulation.history import (
    UNSIGNED,
    AssignmentRow,
    AttemptRow,
    CallbackChanged,
    CallbackRecord,
    CallbackRow,
    ClaimRecord,
    ConversionRecord,
    EntryRow,
    HandOutRecord,
    HeartbeatRecord,
    LiftRecord,
    OutcomeRecord,
    PhonesImported,
    Record,
    ReleaseRecord,
    SuppressionRecord,
    Tables,
    Truth,
    View,
    WeekHistory,
    Window,
)

MONDAY = datetime(2026, 6, 8, tzinfo=UTC)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
# Stands for a number that no other person has.
OWN_NUMBER = "own"
OWES_SIGNATURE = View(True, True, UNSIGNED, "", False, (OWN_NUMBER,), LONG_AGO, LONG_AGO)
SIGNED = OWES_SIGNATURE._replace(matter=None, ending="requirements_met", is_signed=True)
LEASE = timedelta(minutes=2)


class Story:
    """A week told line by line, with tables that agree with it until a test spoils them."""

    def __init__(self, *people: int, view: View = OWES_SIGNATURE) -> None:
        self.now = MONDAY + timedelta(hours=6)
        self.history = WeekHistory(self.now, {it: numbered(it, view) for it in people})
        self.assignments: dict[str, AssignmentRow] = {}
        self.attempts: list[AttemptRow] = []
        self.conversions: list[ConversionRecord] = []
        self.callbacks: dict[str, CallbackRow] = {}
        self.entries: dict[int, EntryRow] = {it: EntryRow(it, 0, None, None) for it in people}
        self.objections: set[int | str] = set()
        self._heartbeated: set[str] = set()
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
        """Return an id that no person has had."""
        self._count += 1
        return str(UUID(int=self._count))

    def begins_as(self, view: View, *people: int) -> None:
        """Let MySQL say this of people from the beginning."""
        self.history.people |= {it: numbered(it, view) for it in people}
        self.entries |= {it: EntryRow(it, 0, None, None) for it in people}

    def becomes(self, user_id: int, view: View) -> None:
        """Let MySQL say something else of a person."""
        self.add(Truth(self.now, self.window(), user_id, numbered(user_id, view)))

    def imports(self, *phones: str, error: str = "") -> None:
        """Take over a list of numbers."""
        self.add(PhonesImported(self.now, self.window(), frozenset(phones), error))

    def objects(self, user_id: int = 0, *, phone: str = "", error: str = "") -> None:
        """Take an objection of a person, or to a bare number, outside a call."""
        self.add(SuppressionRecord(self.now, self.window(), user_id, error, phone))
        if not error:
            self.objections.add(phone or user_id)

    def lifts(self, user_id: int = 0, what: str = "", *, phone: str = "", error: str = "") -> None:
        """Let a supervisor lift what stops calls."""
        self.add(LiftRecord(self.now, self.window(), user_id, error, what, phone))
        if not error and what != "no_claim":
            self.objections.discard(phone or user_id)

    def gets(self, agent_id: str, user_id: int, queue: str = UNSIGNED) -> HandOutRecord:
        """Hand a person out."""
        given = HandOutRecord(self.identity(), agent_id, user_id, queue, self.now, self.now + LEASE)
        self.add(
            ClaimRecord(self.now, self.window(), agent_id, self.identity(), (), hand_out=given)
        )
        self.assignments[given.assignment_id] = AssignmentRow(*given, ended_at=None)
        return given

    def gets_no_person(self, agent_id: str) -> None:
        """Answer an agent that there is no person."""
        self.add(ClaimRecord(self.now, self.window(), agent_id, self.identity(), ()))

    def talks(self, given: HandOutRecord) -> None:
        """Answer a heartbeat."""
        until = self.now + LEASE
        self.add(HeartbeatRecord(self.now, self.window(), given.assignment_id, until))
        self._heartbeated.add(given.assignment_id)
        row = self.assignments[given.assignment_id]
        self.assignments[given.assignment_id] = row._replace(lease_expires_at=until)

    def gives_back(self, given: HandOutRecord, how: str = "skipped") -> None:
        """End an assignment without a call."""
        self.add(ReleaseRecord(self.now, self.window(), given.assignment_id, how))
        if how == "forced" and given.assignment_id in self._heartbeated:
            self._attempt(given, "", "")
        self._end(given)

    def reports(
        self,
        given: HandOutRecord,
        outcome: str,
        *,
        callback_at: datetime | None = None,
        is_retried: bool = False,
        notes: str = "",
        error: str = "",
        is_attempt: bool = True,
    ) -> OutcomeRecord:
        """Record an outcome, and the callback it makes or the one that is tried again.

        With an `error` nothing comes of it; without `is_attempt` it is an objection only.
        """
        callback = self._retried(given.user_id) if is_retried else None
        if callback_at is not None and not error:
            callback = CallbackRecord(
                self.identity(), given.user_id, callback_at, given.agent_id, "open"
            )
            self.callbacks[callback.callback_id] = CallbackRow(
                callback.callback_id, given.user_id, "open", callback_at, 0, None, ""
            )
        notes = notes or ("objects" if outcome == "do_not_contact" else "")
        record = OutcomeRecord(
            self.now,
            self.window(),
            given.assignment_id,
            given.agent_id,
            self.identity(),
            outcome,
            notes,
            callback_at,
            callback,
            error,
        )
        self.add(record)
        if error:
            return record
        if outcome == "do_not_contact":
            self.objections.add(given.user_id)
        if is_attempt:
            self._attempt(given, outcome, notes)
            self._end(given)
        return record

    def _attempt(self, given: HandOutRecord, outcome: str, notes: str) -> None:
        """Put a call into the tables; a report takes the place of a call without one."""
        entry = self.entries[given.user_id]
        others = [it for it in self.attempts if it.assignment_id != given.assignment_id]
        attempts = entry.attempts + (1 if len(others) == len(self.attempts) else 0)
        row = AttemptRow(
            given.assignment_id, given.user_id, given.agent_id, outcome, notes, self.now
        )
        self.attempts = [*others, row]
        is_spoken = outcome and outcome not in NOT_SPOKEN
        self.entries[given.user_id] = EntryRow(
            entry.user_id,
            attempts,
            outcome or entry.last_outcome,
            given.agent_id if is_spoken else entry.last_agent_id,
        )

    def calls(self, agent_id: str, user_id: int, outcome: str = "no_answer") -> HandOutRecord:
        """Hand a person out and record an outcome a minute later."""
        given = self.gets(agent_id, user_id)
        self.later(1).reports(given, outcome)
        return given

    def converts(self, user_id: int, agent_id: str | None, kind: str) -> None:
        """Put a conversion into the table."""
        self.conversions.append(ConversionRecord(user_id, UNSIGNED, kind, agent_id, self.now))

    def ends_callback(self, callback_id: str, state: str, reason: str, *, misses: int = 0) -> None:
        """Let the table say that a callback has come to its end."""
        row = self.callbacks[callback_id]
        self.callbacks[callback_id] = row._replace(
            state=state, closed_at=self.now, closed_reason=reason, misses=misses
        )

    def schedules(self, user_id: int, moment: datetime, *, error: str = "") -> CallbackRecord:
        """Let a supervisor agree a callback."""
        made = CallbackRecord(self.identity(), user_id, moment, "", "open")
        told = None if error else made
        record = CallbackChanged(
            self.now, self.window(), "scheduled", told, user_id, error, asked_for=moment
        )
        self.add(record)
        if not error:
            self.callbacks[made.callback_id] = CallbackRow(
                made.callback_id, user_id, "open", moment, 0, None, ""
            )
        return made

    def calls_off(self, callback: CallbackRecord) -> None:
        """Let a supervisor call a callback off."""
        gone = callback._replace(state="cancelled")
        self.add(CallbackChanged(self.now, self.window(), "cancelled", gone, callback.user_id))
        self.ends_callback(callback.callback_id, "cancelled", "CANCELLED")

    def _retried(self, user_id: int) -> CallbackRecord:
        row = next(it for it in self.callbacks.values() if it.user_id == user_id)
        again = row._replace(scheduled_for=self.now + timedelta(minutes=15), misses=1)
        self.callbacks[row.callback_id] = again
        return CallbackRecord(row.callback_id, user_id, again.scheduled_for, "", "open")

    def told(self) -> WeekHistory:
        """Return the whole of it."""
        tables = Tables(
            tuple(self.assignments.values()),
            tuple(self.attempts),
            tuple(self.conversions),
            tuple(self.callbacks.values()),
            tuple(self.entries.values()),
            frozenset(self.objections),
        )
        return replace(
            self.history, tables=tables, ended_at=max(self.now, MONDAY + timedelta(days=5))
        )

    def talks_and_vanishes(
        self, agent_id: str, user_id: int, queue: str = UNSIGNED
    ) -> HandOutRecord:
        """Hand a person out, with a heartbeat a minute later and nothing after it."""
        given = self.gets(agent_id, user_id, queue)
        self.later(1).talks(given)
        self.later(2)._attempt(given, "", "")
        return given

    def _end(self, given: HandOutRecord) -> None:
        row = self.assignments[given.assignment_id]
        self.assignments[given.assignment_id] = row._replace(ended_at=self.now)


def numbered(user_id: int, view: View) -> View:
    """Return the view with a number that no other person has where it asks for one."""
    own = f"2079460{user_id:03}"
    return view._replace(phones=tuple(own if it == OWN_NUMBER else it for it in view.phones))
