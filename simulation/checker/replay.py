"""Goes through the records one by one, in the order in which they were answered."""

from datetime import datetime, timedelta

from simulation.checker.calls import check_hand_out
from simulation.checker.findings import Report
from simulation.checker.order import Order
from simulation.checker.people import LONG_AGO, Held, OpenCallback, Person
from simulation.checker.rules import (
    CALLBACK_RETRY,
    EFFECTS,
    MISSES_BEFORE_SUPERVISOR,
    PREFERRED_FOR,
)
from simulation.checker.scores import Key
from simulation.checker.state import Agent, State
from simulation.history import (
    CALLBACKS,
    AgentLimited,
    Callback,
    CallbackChanged,
    CallbackClosed,
    Claimed,
    Extended,
    HandOut,
    Lifted,
    PhonesImported,
    PresenceSet,
    Record,
    Recorded,
    Released,
    Suppressed,
    Truth,
    Window,
)

_SEEN_LATELY = timedelta(seconds=60)


class Replay:
    """Holds the records against the rules and remembers what the ending has to be compared with."""

    def __init__(self, state: State, report: Report) -> None:
        self.state = state
        self.report = report
        self.outcomes: dict[str, Recorded] = {}
        self._answers: dict[tuple[str, str], object] = {}
        self._order = Order(state, report)
        for person in state.people.values():
            self._order.touch(person, state.began_at)

    def take(self, record: Record) -> None:
        """Go on by one record."""
        match record:
            case Truth():
                self._order.touch(self.state.learn(record), record.at)
            case Claimed():
                self._claimed(record)
            case Extended():
                self._extended(record)
            case Released():
                self._released(record)
            case Recorded():
                self._recorded(record)
            case CallbackChanged():
                self._callback_changed(record)
            case CallbackClosed():
                self._callback_closed(record)
            case Suppressed() | Lifted():
                self._stopped_or_lifted(record)
            case PhonesImported():
                self._imported(record)
            case PresenceSet():
                self._said(record)
            case AgentLimited():
                if not record.error:
                    self.state.agents[record.agent_id].limits = record.queues

    def _claimed(self, record: Claimed) -> None:
        agent = self.state.agents[record.agent_id]
        agent.last_seen_at = record.at
        given = record.hand_out
        if record.error:
            agent.unanswered = record.window
        elif given is None:
            self._order.check(record, None, None)
        elif given.assignment_id not in self.state.assignments:
            window = record.window
            if record.already_held and agent.unanswered is not None:
                # Handed out by a claim whose answer was lost.
                window = Window(agent.unanswered.began, window.ended)
            self._hand_out(record, given, window)
        else:
            self._repeated(record, given)

    def _hand_out(self, record: Claimed, given: HandOut, window: Window) -> None:
        person = self.state.people.get(given.user_id)
        known = person is not None
        self.report.check("known person", known, record.at, f"person {given.user_id} is none")
        if person is None:
            return
        check_hand_out(self.state, self.report, person, given, window)
        self._check_preference(record, person, given)
        self._order.check(record, person, given.queue)
        held = Held(given, window, given.lease_expires_at, _number_called(person, window))
        self.state.assignments[given.assignment_id] = held
        agent = self.state.agents[given.agent_id]
        person.held = agent.held = held
        agent.skipped_user_id = agent.unanswered = None
        self._order.touch(person, record.at)

    def _repeated(self, record: Claimed, given: HandOut) -> None:
        """The same request again, or another one of an agent who holds somebody."""
        held = self.state.assignments[given.assignment_id].hand_out
        self.report.check(
            "same answer again",
            (held.user_id, held.agent_id) == (given.user_id, given.agent_id),
            record.at,
            f"assignment {given.assignment_id} is another one now",
        )

    def _check_preference(self, record: Claimed, person: Person, given: HandOut) -> None:
        callback = person.callback
        if given.queue != CALLBACKS or callback is None or not callback.preferred_agent_id:
            return
        preferred = self.state.agents.get(callback.preferred_agent_id, Agent())
        is_there = (
            preferred.presence == "available"
            # One who comes back at this very moment may not have been noticed yet.
            and preferred.last_seen_at < record.at < preferred.last_seen_at + _SEEN_LATELY
            and (preferred.held is None or not preferred.held.is_live(record.at))
            and (not preferred.limits or CALLBACKS in preferred.limits)
        )
        is_early = record.at < callback.due_at + PREFERRED_FOR
        is_theirs = given.agent_id == callback.preferred_agent_id
        self.report.check(
            "preferred agent first",
            is_theirs or not is_early or not is_there or callback.misses > 0,
            record.at,
            f"person {person.user_id} to {given.agent_id} while {callback.preferred_agent_id}"
            " was free",
        )

    def _extended(self, record: Extended) -> None:
        held = self.state.assignments.get(record.assignment_id)
        if held is None or record.lease_expires_at is None:
            return
        is_live = held.is_live(record.at)
        self.report.check(
            "no life after the lease", is_live, record.at, f"{record.assignment_id} was extended"
        )
        held.lease_expires_at = max(held.lease_expires_at, record.lease_expires_at)
        self.state.agents[held.hand_out.agent_id].last_seen_at = record.at
        self._order.touch(self.state.people[held.hand_out.user_id], record.at)

    def _released(self, record: Released) -> None:
        held = self.state.assignments.get(record.assignment_id)
        if held is None or record.error or held.ended_at is not None:
            return
        held.ended_at = record.at
        person = self.state.people[held.hand_out.user_id]
        if record.how == "skipped":
            self.state.agents[held.hand_out.agent_id].skipped_user_id = person.user_id
            if held.hand_out.queue == CALLBACKS:
                _miss(person, record.at, record.window)
            else:
                self._put_behind(person, record.at)
        self._order.touch(person, record.at)

    def _put_behind(self, person: Person, at: datetime) -> None:
        behind = person.key.behind(at)
        # A skip alone freezes nobody.
        key = behind if behind.highest_score(at) < _NEARLY_FROZEN else behind.or_else(person.key)
        person.key = self._or_fresh(person, key, at)

    def _or_fresh(self, person: Person, key: Key, at: datetime) -> Key:
        """A change of the matter that is yet to be noticed starts afresh when it is."""
        if at < person.matter_known_by:
            return key.or_else(Key.fresh(at, person.matter_known_by))
        return key

    def _recorded(self, record: Recorded) -> None:
        held = self.state.assignments.get(record.assignment_id)
        if held is None or record.error:
            return
        first = self.outcomes.get(record.assignment_id)
        if first is not None:
            self.report.check(
                "one outcome a call",
                first.request_id == record.request_id,
                record.at,
                f"assignment {record.assignment_id} took {record.outcome} after {first.outcome}",
            )
            return
        self.outcomes[record.assignment_id] = record
        person = self.state.people[held.hand_out.user_id]
        is_still_theirs = person.held is held
        self.report.check(
            "late outcome",
            is_still_theirs,
            record.at,
            f"assignment {record.assignment_id} after person {person.user_id} was another's",
        )
        held.ended_at = min(held.end, record.at)
        self._apply_outcome(person, held, record)
        self._order.touch(person, record.at)

    def _apply_outcome(self, person: Person, held: Held, record: Recorded) -> None:
        effect, at = EFFECTS[record.outcome], record.at
        person.attempts.append(at)
        if held.phone is not None:
            self.state.last_calls[held.phone] = (at, person.user_id)
        person.last_outcome = record.outcome
        person.last_agent_id = record.agent_id
        person.key = self._or_fresh(person, person.key.after(effect, at), at)
        rested_at = at + effect.wait if effect.wait is not None else LONG_AGO
        # Of a callback that is called off either time may be what is left.
        agreed_for = record.callback_at or rested_at
        person.next_call_at = min(agreed_for, rested_at)
        person.next_call_by = max(agreed_for, rested_at)
        if record.outcome == "bad_number" and at < person.phone_known_by:
            person.next_call_at = LONG_AGO
        if effect.wait is None:
            person.is_blocked = True
        if record.outcome == "do_not_contact":
            person.suppressed = record.window
            self._suppress_phone(person, record.window, at)
        self._callback_after(person, held, record)

    def _callback_after(self, person: Person, held: Held, record: Recorded) -> None:
        """What was agreed takes the place of the old one; what came to nothing is retried."""
        expected = _expected_callback(person, record)
        told = record.open_callback
        is_kept = (told is None) == (expected is None) and (
            told is None
            or expected is None
            or abs(told.scheduled_for - expected.due_at) < _A_MOMENT
        )
        self.report.check(
            "callbacks kept after a call",
            is_kept,
            record.at,
            f"{record.outcome} of person {person.user_id}: {told} instead of {expected}",
        )
        if person.callback is not None and (told is None or expected is None):
            person.callback_ended = record.window
        person.callback = None
        if told is not None:
            person.callback = expected or _opened(told, record.window)
            person.callback.callback_id = told.callback_id
            person.callback.due_at = told.scheduled_for
            person.callback.preferred_agent_id = told.preferred_agent_id

    def _callback_changed(self, record: CallbackChanged) -> None:
        if record.error or record.callback is None:
            return
        person = self.state.people[record.callback.user_id]
        if record.how == "cancelled":
            # It may be one that was missed before the present one was agreed.
            open_ = person.callback
            if open_ is not None and open_.callback_id == record.callback.callback_id:
                person.callback = None
                person.callback_ended = record.window
        else:
            person.callback = _opened(record.callback, record.window)
        self._order.touch(person, record.at)

    def _callback_closed(self, record: CallbackClosed) -> None:
        """By itself the queue closes callbacks only of people whom nobody may call."""
        row, at = record.row, record.at
        person = self.state.people[row.user_id]
        phone = person.last_phone
        is_barred = (
            person.may_be_taken_as_barred(at)
            or person.is_blocked
            or person.suppressed is not None
            or phone in self.state.suppressed_phones
            or phone in self.state.doubtful_phones
        )
        self.report.check(
            "callbacks end for a reason", is_barred and bool(row.closed_reason), at, f"{row}"
        )
        if person.callback is not None and person.callback.callback_id == row.callback_id:
            person.callback = None
            person.callback_ended = record.window
        self._order.touch(person, at)

    def _stopped_or_lifted(self, record: Suppressed | Lifted) -> None:
        person = self.state.people.get(record.user_id)
        if person is None or record.error:
            return
        if isinstance(record, Suppressed):
            person.suppressed = record.window
            person.callback = None
            person.callback_ended = record.window
            self._suppress_phone(person, record.window, record.at)
        else:
            person.suppressed = None
            person.is_blocked = False
            # A fresh start, but for the number of attempts.
            person.key = Key.fresh(record.at, record.at)._replace(
                attempts=person.key.attempts, fresh_at=None
            )
            person.next_call_at = person.next_call_by = LONG_AGO
            if person.last_phone is not None:
                self.state.doubtful_phones.add(person.last_phone)
        self._order.touch(person, record.at)

    def _suppress_phone(self, person: Person, window: Window, at: datetime) -> None:
        if person.last_phone is None:
            return
        if at < person.phone_known_by:
            self.state.doubtful_phones.update(
                seen.view.phone for seen in person.seen if seen.view.phone is not None
            )
        else:
            self.state.suppressed_phones.setdefault(person.last_phone, window)

    def _imported(self, record: PhonesImported) -> None:
        if record.error:
            return
        for phone in record.phones:
            self.state.suppressed_phones.setdefault(phone, record.window)

    def _said(self, record: PresenceSet) -> None:
        if record.error:
            return
        agent = self.state.agents[record.agent_id]
        agent.presence = record.presence
        agent.last_seen_at = record.at


_NEARLY_FROZEN = 199.0
_A_MOMENT = timedelta(seconds=1)


def _number_called(person: Person, window: Window) -> str | None:
    phones = {view.phone for view in person.views_within(window)}
    return person.last_phone if phones == {person.last_phone} else None


def _expected_callback(person: Person, record: Recorded) -> OpenCallback | None:
    effect, before = EFFECTS[record.outcome], person.callback
    if effect.wait is None:
        return None
    agreed_for = record.callback_at
    if agreed_for is None and effect.makes_callback:
        agreed_for = record.at + effect.wait
    if agreed_for is not None:
        return OpenCallback(
            "", person.user_id, agreed_for, record.agent_id, agreed_for, record.window
        )
    if before is None or before.due_at > record.at:
        return before
    if record.outcome != "no_answer":
        return None
    _miss(person, record.at, record.window)
    return person.callback


def _opened(told: Callback, window: Window) -> OpenCallback:
    return OpenCallback(
        told.callback_id,
        told.user_id,
        told.scheduled_for,
        told.preferred_agent_id,
        told.scheduled_for,
        window,
    )


def _miss(person: Person, at: datetime, window: Window) -> None:
    """A callback call that came to nothing is tried once more, then left to a supervisor."""
    callback = person.callback
    if callback is None:
        return
    callback.misses += 1
    callback.due_at = at + CALLBACK_RETRY
    if callback.misses >= MISSES_BEFORE_SUPERVISOR:
        person.callback = None
        person.callback_ended = window
