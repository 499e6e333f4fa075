"""The world as the checker has it after the records so far; no judgement is here."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from simulation.checker.hours import LONG_AGO
from simulation.checker.lines import CallLog, Holders, PhoneStops
from simulation.checker.people import Held, MatterChange, PersonState, Seen
from simulation.checker.rules import BAD_NUMBER, WRONG_PERSON
from simulation.checker.scores import Key
from simulation.history import CaptureStopped, Reconciled, Truth, View, WeekHistory, Window


@dataclass(frozen=True, slots=True)
class AllowedDelays:
    """How late the services may be, in simulated time.

    `promotion` for what falls due by the passing of time, `capture` for a change of MySQL from the
    moment on from which capture works.
    """

    promotion: timedelta = timedelta(minutes=3)
    capture: timedelta = timedelta(minutes=30)


@dataclass(slots=True)
class AgentState:
    """One agent."""

    held: Held | None = None
    presence: str = ""
    limits: tuple[str, ...] = ()
    # Whom the agent skipped last, unless something came after.
    skipped_user_id: int | None = None
    unanswered: Window | None = None
    last_seen_at: datetime = LONG_AGO


@dataclass(slots=True)
class CheckerState:
    """The state of every person, agent and assignment."""

    delays: AllowedDelays
    began_at: datetime
    stops: list[CaptureStopped]
    reconciliations: list[Reconciled]
    people: dict[int, PersonState] = field(default_factory=dict)
    agents: dict[str, AgentState] = field(default_factory=lambda: defaultdict(AgentState))
    assignments: dict[str, Held] = field(default_factory=dict)
    # Every person who has or had a number.
    by_phone: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    holders: Holders = field(default_factory=Holders)
    lines: dict[str, CallLog] = field(default_factory=lambda: defaultdict(CallLog))
    phone_stops: dict[str, PhoneStops] = field(default_factory=lambda: defaultdict(PhoneStops))

    @classmethod
    def of(cls, history: WeekHistory, delays: AllowedDelays) -> "CheckerState":
        """Return the state before the first record."""
        state = cls(delays, history.began_at, history.stops, history.reconciliations)
        for user_id, view in history.people.items():
            state._meet(user_id, Window(0.0, 0.0), view, state.began_at, state.began_at)
        return state

    def known_by(self, truth: Truth) -> datetime:
        """Return when the services must have noticed a change."""
        if truth.is_captured:
            stops = (it.until for it in self.stops if it.at <= truth.at < it.until)
            return max(stops, default=truth.at) + self.delays.capture
        # One that began at the very same moment may have passed the person already.
        looks = (it.until for it in self.reconciliations if it.at > truth.at)
        return min(looks, default=_NEVER)

    def learn(self, truth: Truth) -> PersonState:
        """Take over a change of a person's rows."""
        known_by = self.known_by(truth)
        person = self.people.get(truth.user_id)
        if person is None:
            return self._meet(truth.user_id, truth.window, truth.view, truth.at, known_by)
        before, view = person.view, truth.view
        if view.phones != before.phones:
            self._change_phones(person, view, truth.at, known_by)
        if (view.matter, view.ending, view.is_signed) != (
            before.matter,
            before.ending,
            before.is_signed,
        ):
            person.matter_changes.append(MatterChange(truth.at, known_by, before.matter, view))
        if view.matter != before.matter:
            self._change_matter(person, view, truth.at, known_by)
        elif person.was_ever_owing and truth.at < person.known_by:
            person.reconsider_cooling(view)
        person.seen.append(Seen(truth.window, view, truth.at, known_by))
        person.known_by = max(person.known_by, known_by)
        return person

    def _meet(
        self, user_id: int, window: Window, view: View, at: datetime, known_by: datetime
    ) -> PersonState:
        key = Key.fresh(at, known_by)
        person = PersonState(user_id, [Seen(window, view, at, known_by)], known_by, key, key)
        for phone in view.phones:
            self._get(phone, user_id, at, known_by)
        if view.matter is not None:
            person.matter_known_by = known_by
            person.begin_cooling(view, at, known_by)
            person.matter_changes.append(MatterChange(at, known_by, None, view))
        self.people[user_id] = person
        return person

    def _change_phones(
        self, person: PersonState, view: View, at: datetime, known_by: datetime
    ) -> None:
        before, after = set(person.view.phones), set(view.phones)
        for phone in after - before:
            self._get(phone, person.user_id, at, known_by)
        for phone in before - after:
            self.holders.lose(phone, at=at, certain_by=self._counted_by(at, known_by))
        if person.objection is not None:
            for phone in before ^ after:
                self.phone_stops[phone].doubt(person.user_id)
        if person.last_outcome in (BAD_NUMBER, WRONG_PERSON):
            person.next_call_at = LONG_AGO
            is_another = bool(before and after) and not before & after
            if is_another and at >= person.phone_known_by:
                person.next_call_by = min(person.next_call_by, known_by)
        person.phone_known_by = max(person.phone_known_by, known_by)

    def _get(self, phone: str, user_id: int, at: datetime, known_by: datetime) -> None:
        self.by_phone[phone].add(user_id)
        self.holders.get(phone, at=at, certain_by=self._counted_by(at, known_by))

    def _counted_by(self, at: datetime, known_by: datetime) -> datetime:
        """When others with the number must be placed by the new count of its holders."""
        if known_by <= at or known_by == _NEVER:
            return known_by
        return known_by + self.delays.capture

    def _change_matter(
        self, person: PersonState, view: View, at: datetime, known_by: datetime
    ) -> None:
        is_settled = at >= person.matter_known_by
        if is_settled:
            person.settled_key = person.key
        person.matter_known_by = max(person.matter_known_by, known_by)
        if view.matter is None:
            return
        fresh = Key.fresh(at, known_by)
        if is_settled:
            person.key = fresh
        else:
            person.key = person.key.or_else(fresh).or_else(person.settled_key)
        if not person.was_ever_owing:
            person.begin_cooling(view, at, known_by)
        elif not is_settled:
            person.reconsider_cooling(view)

    def lines_of(self, phones: Iterable[str]) -> list[str]:
        """Return those of the numbers that may count as one; a placeholder does not."""
        return [it for it in phones if not self.holders.surely_a_placeholder(it)]

    def sure_lines_of(self, phones: Iterable[str]) -> list[str]:
        """Return those of the numbers that certainly count as one."""
        return [it for it in phones if self.holders.surely_a_line(it)]

    def others_with(self, phone: str, person: PersonState) -> Iterable[PersonState]:
        """Return every other person who has or had the number."""
        return (self.people[it] for it in self.by_phone[phone] if it != person.user_id)


_NEVER = datetime.max.replace(tzinfo=LONG_AGO.tzinfo)
