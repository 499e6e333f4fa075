"""Objections, "no claim" marks and lists of numbers: each stands and falls by itself."""

from datetime import datetime

from simulation.checker.findings import Report
from simulation.checker.hours import LONG_AGO
from simulation.checker.people import Held, PersonState
from simulation.checker.rules import NO_CLAIM
from simulation.checker.scores import Key
from simulation.checker.state import CheckerState
from simulation.history import LiftRecord, PhonesImported, SuppressionRecord, Window

# The server was too busy to answer: nothing is known of what it did.
_UNANSWERED = ("UPSTREAM_UNAVAILABLE", "UPSTREAM_DEADLINE_EXCEEDED")
_OBJECTION = "objection"


class Objections:
    """Takes them over into the state and checks that none was refused."""

    def __init__(self, state: CheckerState, report: Report) -> None:
        self._state = state
        self._report = report

    def check_taken(self, error: str, at: datetime, words: str) -> None:
        """Check that an objection was not refused."""
        self._report.check("objection taken", not error or error in _UNANSWERED, at, words)

    def take(
        self, person: PersonState, window: Window, at: datetime, held: Held | None = None
    ) -> None:
        """Stop the calls to a person, to the person's numbers and to those of the call."""
        person.objection = person.objection or window
        if person.callback is not None:
            person.callback = None
            person.callback_ended = window
        certain = set(person.view.phones) if at >= person.phone_known_by else set()
        possible = set(person.possible_phones(at))
        if held is not None:
            certain |= set(self._state.sure_lines_of(held.phones))
            possible |= held.possible_phones
        person.objection_phones |= possible
        for phone in possible:
            stops = self._state.phone_stops[phone]
            if phone in certain:
                stops.of_people.setdefault(person.user_id, window)
            else:
                stops.doubt(person.user_id)

    def suppressed(self, record: SuppressionRecord) -> PersonState | None:
        """Take an objection that came in outside a call; return the person it stops."""
        person = self._state.people.get(record.user_id)
        if record.phone:
            words = f"objection to a bare number: {record.error}"
            self.check_taken(record.error, record.at, words)
            if not record.error:
                stops = self._state.phone_stops[record.phone]
                stops.bare = stops.bare or record.window
            return None
        if person is None:
            return None
        if person.view.exists:
            words = f"objection of person {record.user_id}: {record.error}"
            self.check_taken(record.error, record.at, words)
        if record.error:
            return None
        self.take(person, record.window, record.at)
        return person

    def lifted(self, record: LiftRecord) -> PersonState | None:
        """Lift what a supervisor lifted; return the person who is concerned."""
        if record.phone:
            if not record.error:
                self._state.phone_stops[record.phone].bare = None
            return None
        person = self._state.people.get(record.user_id)
        if person is None:
            return None
        marks = (person.objection, person.no_claim)
        began = record.window.began
        if not record.what and all(it is not None and it.ended < began for it in marks):
            self._report.check(
                "several stand",
                bool(record.error),
                record.at,
                f"lifted of person {record.user_id} without a word which",
            )
        if record.error:
            return None
        self._lift(person, record)
        return person

    def _lift(self, person: PersonState, record: LiftRecord) -> None:
        """Lift one thing; the other stands."""
        if record.what != NO_CLAIM:
            person.objection = None
            for phone in person.objection_phones | person.possible_phones(record.at):
                self._state.phone_stops[phone].doubt(person.user_id)
            person.objection_phones.clear()
        if record.what != _OBJECTION:
            person.no_claim = None
        # A fresh start, but for the number of attempts.
        fresh = Key.fresh(record.at, record.at)._replace(
            attempts=person.key.attempts, fresh_at=None
        )
        person.key = fresh.or_else(person.key) if person.is_stopped else fresh
        person.next_call_at = person.next_call_by = LONG_AGO

    def imported(self, record: PhonesImported) -> None:
        """Stop the calls to the numbers of a list."""
        is_taken = not record.error or record.error in _UNANSWERED
        self._report.check("list taken over", is_taken, record.at, record.error)
        if record.error:
            return
        for phone in record.phones:
            stops = self._state.phone_stops[phone]
            stops.listed = stops.listed or record.window
