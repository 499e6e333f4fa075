"""The world as the checker has it after the records so far; no judgement is here."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from simulation.checker.people import LONG_AGO, Held, MatterChange, Person, Seen
from simulation.checker.scores import Key
from simulation.history import CaptureStopped, History, Reconciled, Truth, View, Window


@dataclass(frozen=True, slots=True)
class Patience:
    """How late the services may be, in simulated time.

    `promotion` for what falls due by the passing of time, `capture` for a change of MySQL from the
    moment on from which capture works.
    """

    promotion: timedelta = timedelta(minutes=3)
    capture: timedelta = timedelta(minutes=30)


@dataclass(slots=True)
class Agent:
    """One agent."""

    held: Held | None = None
    presence: str = ""
    limits: tuple[str, ...] = ()
    # Whom the agent skipped last, unless something came after.
    skipped_user_id: int | None = None
    unanswered: Window | None = None
    last_seen_at: datetime = LONG_AGO


@dataclass(slots=True)
class State:
    """Everybody and everything."""

    patience: Patience
    began_at: datetime
    stops: list[CaptureStopped]
    reconciliations: list[Reconciled]
    people: dict[int, Person] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=lambda: defaultdict(Agent))
    assignments: dict[str, Held] = field(default_factory=dict)
    by_phone: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    # When each number was called last, and whose it was then.
    last_calls: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    suppressed_phones: dict[str, Window] = field(default_factory=dict)
    # Numbers of which it cannot be told any more whether they are suppressed.
    doubtful_phones: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, history: History, patience: Patience) -> "State":
        """Return the state before the first record."""
        state = cls(patience, history.began_at, history.stops, history.reconciliations)
        for user_id, view in history.people.items():
            state._meet(user_id, Window(0.0, 0.0), view, state.began_at, state.began_at)
        return state

    def known_by(self, truth: Truth) -> datetime:
        """Return when the services must have noticed a change."""
        if truth.is_captured:
            stops = (it.until for it in self.stops if it.at <= truth.at < it.until)
            return max(stops, default=truth.at) + self.patience.capture
        # One that began at the very same moment may have passed the person already.
        looks = (it.until for it in self.reconciliations if it.at > truth.at)
        return min(looks, default=_NEVER)

    def learn(self, truth: Truth) -> Person:
        """Take over a change of somebody's rows."""
        known_by = self.known_by(truth)
        person = self.people.get(truth.user_id)
        if person is None:
            return self._meet(truth.user_id, truth.window, truth.view, truth.at, known_by)
        before, view = person.view, truth.view
        if view.phone is not None and view.phone != person.last_phone:
            self._change_phone(person, view.phone, truth.at, known_by)
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
    ) -> Person:
        key = Key.fresh(at, known_by)
        person = Person(user_id, [Seen(window, view, at, known_by)], known_by, key, key)
        person.last_phone = view.phone
        if view.phone is not None:
            self.by_phone[view.phone].add(user_id)
        if view.matter is not None:
            person.matter_known_by = known_by
            person.begin_cooling(view, at, known_by)
            person.matter_changes.append(MatterChange(at, known_by, None, view))
        self.people[user_id] = person
        return person

    def _change_phone(self, person: Person, phone: str, at: datetime, known_by: datetime) -> None:
        self.by_phone[phone].add(person.user_id)
        if person.last_outcome == "bad_number":
            person.next_call_at = LONG_AGO
            if at >= person.phone_known_by:
                person.next_call_by = min(person.next_call_by, known_by)
        person.last_phone = phone
        person.phone_known_by = max(person.phone_known_by, known_by)

    def _change_matter(self, person: Person, view: View, at: datetime, known_by: datetime) -> None:
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

    def sharers(self, person: Person) -> Iterable[Person]:
        """Return everybody else who has, or had, the person's number."""
        if person.last_phone is None:
            return ()
        others = self.by_phone[person.last_phone]
        return (self.people[it] for it in others if it != person.user_id)


_NEVER = datetime.max.replace(tzinfo=LONG_AGO.tzinfo)
