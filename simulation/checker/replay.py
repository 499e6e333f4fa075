"""Goes through the records one by one, in the order in which they were answered."""

import heapq
import math
from datetime import datetime, timedelta

from simulation.checker import hours
from simulation.checker.calls import check_hand_out
from simulation.checker.findings import Report
from simulation.checker.holds import first_callable_at
from simulation.checker.hours import LONG_AGO
from simulation.checker.lines import LineCall
from simulation.checker.objections import Objections
from simulation.checker.order import OrderCheck
from simulation.checker.people import Held, OpenCallback, PersonState
from simulation.checker.rules import (
    BAD_NUMBER,
    CALLBACK_RETRY,
    EFFECTS,
    LATE_REPORT,
    MISSES_BEFORE_SUPERVISOR,
    NO_CLAIM,
    NOT_SPOKEN,
    OBJECTION,
    PREFERRED_FOR,
    UNREPORTED_REST,
    WRONG_PERSON,
)
from simulation.checker.scores import Key
from simulation.checker.state import AgentState, CheckerState
from simulation.history import (
    CALLBACKS,
    AgentLimited,
    CallbackChanged,
    CallbackClosed,
    CallbackRecord,
    ClaimRecord,
    HandOutRecord,
    HeartbeatRecord,
    LiftRecord,
    OutcomeRecord,
    PhonesImported,
    PresenceSet,
    Record,
    ReleaseRecord,
    SuppressionRecord,
    Truth,
    Window,
)

OUTSIDE_HOURS = "CALLBACK_OUTSIDE_HOURS"

_SEEN_LATELY = timedelta(seconds=60)


class Replay:
    """Holds the records against the rules and remembers what the ending has to be compared with."""

    def __init__(self, state: CheckerState, report: Report) -> None:
        self.state = state
        self.report = report
        self.outcomes: dict[str, OutcomeRecord] = {}
        # Those on assignments that took no outcome any more, by assignment.
        self.late_objections: dict[str, OutcomeRecord] = {}
        # The ends of leases, some of them put off since.
        self._leases: list[tuple[datetime, str]] = []
        self._objections = Objections(state, report)
        self._order = OrderCheck(state, report)
        for person in state.people.values():
            self._order.touch(person, state.began_at)

    def take(self, record: Record) -> None:
        """Go on by one record."""
        self.state.holders.advance(record.at)
        self._end_leases(record.at)
        match record:
            case Truth():
                self._order.touch(self.state.learn(record), record.at)
            case ClaimRecord():
                self._claimed(record)
            case HeartbeatRecord():
                self._extended(record)
            case ReleaseRecord():
                self._released(record)
            case OutcomeRecord():
                self._recorded(record)
            case CallbackChanged():
                self._callback_changed(record)
            case CallbackClosed():
                self._callback_closed(record)
            case SuppressionRecord():
                self._touch(self._objections.suppressed(record), record.at)
            case LiftRecord():
                self._touch(self._objections.lifted(record), record.at)
            case PhonesImported():
                self._objections.imported(record)
            case PresenceSet():
                self._said(record)
            case AgentLimited():
                if not record.error:
                    self.state.agents[record.agent_id].limits = record.queues

    def finish(self, at: datetime) -> None:
        """Take over what comes of itself until the end of the week."""
        self._end_leases(at)

    def _touch(self, person: PersonState | None, at: datetime) -> None:
        if person is not None:
            self._order.touch(person, at)

    def _claimed(self, record: ClaimRecord) -> None:
        agent = self.state.agents[record.agent_id]
        given = record.hand_out
        if record.error:
            # A claim that is refused does not make the agent one who is there.
            agent.unanswered = record.window
            return
        agent.last_seen_at = record.at
        if given is None:
            self._order.check(record, None, None)
        elif given.assignment_id not in self.state.assignments:
            window = record.window
            if record.already_held and agent.unanswered is not None:
                # Handed out by a claim whose answer was lost.
                window = Window(agent.unanswered.began, window.ended)
            self._hand_out(record, given, window)
        else:
            self._repeated(record, given)

    def _hand_out(self, record: ClaimRecord, given: HandOutRecord, window: Window) -> None:
        person = self.state.people.get(given.user_id)
        known = person is not None
        self.report.check("known person", known, record.at, f"person {given.user_id} is none")
        if person is None:
            return
        check_hand_out(self.state, self.report, person, given, window)
        self._check_preference(record, person, given)
        self._order.check(record, person, given.queue)
        phones = [frozenset(view.phones) for view in person.views_within(window)]
        held = Held(
            given,
            window,
            given.lease_expires_at,
            phones=frozenset.intersection(*phones),
            possible_phones=frozenset.union(*phones),
        )
        self.state.assignments[given.assignment_id] = held
        heapq.heappush(self._leases, (held.lease_expires_at, given.assignment_id))
        agent = self.state.agents[given.agent_id]
        person.held = agent.held = held
        agent.skipped_user_id = agent.unanswered = None
        self._order.touch(person, record.at)

    def _repeated(self, record: ClaimRecord, given: HandOutRecord) -> None:
        """The same request again, or another one of an agent who holds a person."""
        held = self.state.assignments[given.assignment_id].hand_out
        self.report.check(
            "same answer again",
            (held.user_id, held.agent_id) == (given.user_id, given.agent_id),
            record.at,
            f"assignment {given.assignment_id} is another one now",
        )

    def _check_preference(
        self, record: ClaimRecord, person: PersonState, given: HandOutRecord
    ) -> None:
        callback = person.callback
        if given.queue != CALLBACKS or callback is None or not callback.preferred_agent_id:
            return
        preferred = self.state.agents.get(callback.preferred_agent_id, AgentState())
        is_there = (
            preferred.presence == "available"
            # One who comes back at this very moment may not have been noticed yet.
            and preferred.last_seen_at < record.at < preferred.last_seen_at + _SEEN_LATELY
            and (preferred.held is None or not preferred.held.is_live(record.at))
        )
        begins_at = first_callable_at(self.state, person, callback.due_at)
        is_early = record.at < begins_at + PREFERRED_FOR
        is_theirs = given.agent_id == callback.preferred_agent_id
        self.report.check(
            "preferred agent first",
            is_theirs or not is_early or not is_there or callback.misses > 0,
            record.at,
            f"person {person.user_id} to {given.agent_id} while {callback.preferred_agent_id}"
            " was free",
        )

    def _extended(self, record: HeartbeatRecord) -> None:
        held = self.state.assignments.get(record.assignment_id)
        if held is None or record.lease_expires_at is None:
            return
        is_live = held.is_live(record.at)
        self.report.check(
            "no heartbeat after the lease",
            is_live,
            record.at,
            f"{record.assignment_id} was extended",
        )
        held.is_heartbeated = True
        held.lease_expires_at = max(held.lease_expires_at, record.lease_expires_at)
        heapq.heappush(self._leases, (held.lease_expires_at, record.assignment_id))
        self.state.agents[held.hand_out.agent_id].last_seen_at = record.at
        self._order.touch(self.state.people[held.hand_out.user_id], record.at)

    def _released(self, record: ReleaseRecord) -> None:
        held = self.state.assignments.get(record.assignment_id)
        if held is None or record.error or held.ended_at is not None:
            return
        held.ended_at = record.at
        held.is_given_back = record.how != "forced"
        person = self.state.people[held.hand_out.user_id]
        if record.how == "skipped":
            self.state.agents[held.hand_out.agent_id].skipped_user_id = person.user_id
            if held.hand_out.queue == CALLBACKS:
                _miss(person, record.at, record.window)
            else:
                self._put_behind(person, record.at)
        elif record.how == "forced":
            self._end_unreported(person, held, record.at)
        self._order.touch(person, record.at)

    def _end_leases(self, now: datetime) -> None:
        """Count the calls that ended unreported because their leases ran out."""
        while self._leases and self._leases[0][0] <= now:
            ends_at, assignment_id = heapq.heappop(self._leases)
            held = self.state.assignments[assignment_id]
            if held.ended_at is None and held.lease_expires_at == ends_at:
                person = self.state.people[held.hand_out.user_id]
                self._end_unreported(person, held, ends_at)
                self._order.touch(person, ends_at)

    def _end_unreported(self, person: PersonState, held: Held, at: datetime) -> None:
        """A call with a heartbeat is one though no agent reports it; without, there was none."""
        held.is_unreported = True
        if held.is_heartbeated:
            self._count_call(person, held, at)
            person.rests_until = at + UNREPORTED_REST
            # The call may count as an attempt of the score, or not.
            fewest, most = person.key.attempts
            person.key = person.key._replace(attempts=(fewest, most + 1))

    def _count_call(
        self,
        person: PersonState,
        held: Held,
        at: datetime,
        *,
        is_certain: bool = True,
        is_bad: bool = False,
    ) -> None:
        """Count a call for the person and every line of the person's, in place of an earlier one.

        A call that was counted when its lease ran out is reported late.
        """
        given = held.hand_out
        person.calls.drop(given.assignment_id)
        person.calls.add(LineCall(at, person.user_id, given.assignment_id, is_certain))
        views = person.views_within(Window(held.window.began, math.inf))
        sure = held.phones.intersection(*(view.phones for view in views))
        for phone in self.state.lines_of(held.possible_phones | person.possible_phones(at)):
            is_sure = is_certain and phone in self.state.sure_lines_of(sure)
            line = self.state.lines[phone]
            line.drop(given.assignment_id)
            line.add(LineCall(at, person.user_id, given.assignment_id, is_sure, is_bad))

    def _put_behind(self, person: PersonState, at: datetime) -> None:
        behind = person.key.behind(at)
        # A skip alone freezes no person.
        key = behind if behind.highest_score(at) < _NEARLY_FROZEN else behind.or_else(person.key)
        person.key = self._or_fresh(person, key, at)

    def _or_fresh(self, person: PersonState, key: Key, at: datetime) -> Key:
        """A change of the matter that is yet to be noticed starts afresh when it is."""
        if at < person.matter_known_by:
            return key.or_else(Key.fresh(at, person.matter_known_by))
        return key

    def _recorded(self, record: OutcomeRecord) -> None:
        held = self.state.assignments.get(record.assignment_id)
        if held is None:
            return
        is_objection = record.outcome == OBJECTION and bool(record.notes.strip())
        words = f"{record.outcome} on assignment {record.assignment_id}: {record.error}"
        if is_objection:
            self._objections.check_taken(record.error, record.at, words)
        self._check_callback_time(record.callback_at, record.error, record.at, words)
        if record.error:
            return
        person = self.state.people[held.hand_out.user_id]
        first = self.outcomes.get(record.assignment_id)
        is_repeated = first is not None and first.request_id == record.request_id
        may_be_late = (
            person.held is held
            and record.at <= held.end + LATE_REPORT + self.state.delays.promotion
        )
        is_over = first is not None or held.is_given_back or not may_be_late
        if is_objection and not is_repeated and is_over:
            self._object_late(person, held, record)
        elif first is not None:
            self.report.check(
                "one outcome a call",
                is_repeated,
                record.at,
                f"assignment {record.assignment_id} took {record.outcome} after {first.outcome}",
            )
        else:
            self.report.check(
                "late outcome",
                may_be_late,
                record.at,
                f"assignment {record.assignment_id} of person {person.user_id} ended {held.end}",
            )
            self.outcomes[record.assignment_id] = record
            held.ended_at = min(held.end, record.at)
            self._apply_outcome(person, held, record)
        self._order.touch(person, record.at)

    def _check_callback_time(
        self, asked_for: datetime | None, error: str, at: datetime, words: str
    ) -> None:
        if asked_for is None:
            return
        is_open = hours.are_open(asked_for)
        is_right = not is_open if error == OUTSIDE_HOURS else is_open or bool(error)
        self.report.check("callback hours", is_right, at, f"{words}, asked for {asked_for}")

    def _object_late(self, person: PersonState, held: Held, record: OutcomeRecord) -> None:
        """An objection on an assignment that takes no outcome any more stops calls all the same."""
        if record.assignment_id in self.late_objections:
            return
        self.late_objections[record.assignment_id] = record
        is_told = held.is_given_back or (held.is_unreported and held.is_heartbeated)
        if record.assignment_id not in self.outcomes and not is_told:
            # The agent was on the phone after all, as it seems.
            person.late_objections += 1
            self._count_call(person, held, held.end, is_certain=False)
        self._objections.take(person, record.window, record.at, held)

    def _apply_outcome(self, person: PersonState, held: Held, record: OutcomeRecord) -> None:
        effect, at = EFFECTS[record.outcome], record.at
        self._count_call(person, held, at, is_bad=record.outcome == BAD_NUMBER)
        if held.is_unreported:
            # Reported after all: the outcome says when the next call may be.
            person.rests_until = LONG_AGO
        person.last_outcome = record.outcome
        if record.outcome not in NOT_SPOKEN:
            person.last_agent_id = record.agent_id
        person.key = self._or_fresh(person, person.key.after(effect, at), at)
        rested_at = at + effect.wait if effect.wait is not None else LONG_AGO
        # Of a callback that is called off either time may be what is left.
        agreed_for = record.callback_at or rested_at
        person.next_call_at = min(agreed_for, rested_at)
        person.next_call_by = max(agreed_for, rested_at)
        if record.outcome in (BAD_NUMBER, WRONG_PERSON) and at < person.phone_known_by:
            person.next_call_at = LONG_AGO
        self._callback_after(person, held, record)
        if record.outcome == OBJECTION:
            self._objections.take(person, record.window, at, held)
        elif record.outcome == NO_CLAIM:
            person.no_claim = person.no_claim or record.window

    def _callback_after(self, person: PersonState, held: Held, record: OutcomeRecord) -> None:
        """What was agreed takes the place of the old one; what came to nothing is retried."""
        expected = _expected_callback(person, record)
        told = record.open_callback
        is_kept = (told is None) == (expected is None) and (
            told is None
            or expected is None
            or abs(told.scheduled_for - expected.due_at) < _A_MOMENT
        )
        if told is None and person.is_stopped:
            # An objection came in during the call.
            is_kept = True
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
        words = f"callback {record.how} for person {record.user_id}: {record.error}"
        self._check_callback_time(record.asked_for, record.error, record.at, words)
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
        """By itself the queue closes callbacks only of people whom no agent may call."""
        row, at = record.row, record.at
        person = self.state.people[row.user_id]
        is_barred = (
            person.may_be_taken_as_barred(at)
            or person.is_stopped
            or any(self.state.phone_stops[it].may_stop for it in person.possible_phones(at))
            or not self.state.sure_lines_of(person.view.phones)
            or at < person.phone_known_by
        )
        self.report.check(
            "callbacks end for a reason", is_barred and bool(row.closed_reason), at, f"{row}"
        )
        if person.callback is not None and person.callback.callback_id == row.callback_id:
            person.callback = None
            person.callback_ended = record.window
        self._order.touch(person, at)

    def _said(self, record: PresenceSet) -> None:
        if record.error:
            return
        agent = self.state.agents[record.agent_id]
        agent.presence = record.presence
        agent.last_seen_at = record.at


_NEARLY_FROZEN = 199.0
_A_MOMENT = timedelta(seconds=1)


def _expected_callback(person: PersonState, record: OutcomeRecord) -> OpenCallback | None:
    effect, before = EFFECTS[record.outcome], person.callback
    if effect.wait is None:
        return None
    agreed_for = record.callback_at
    if agreed_for is None and effect.makes_callback:
        # A callback that the person's call makes is due at once.
        asks_at_once = effect.wait == timedelta(0)
        agreed_for = record.at if asks_at_once else hours.next_open(record.at + effect.wait)
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


def _opened(told: CallbackRecord, window: Window) -> OpenCallback:
    return OpenCallback(
        told.callback_id,
        told.user_id,
        told.scheduled_for,
        told.preferred_agent_id,
        told.scheduled_for,
        window,
    )


def _miss(person: PersonState, at: datetime, window: Window) -> None:
    """A callback call that came to nothing is tried once more, then left to a supervisor."""
    callback = person.callback
    if callback is None:
        return
    callback.misses += 1
    callback.due_at = hours.next_open(at + CALLBACK_RETRY)
    if callback.misses >= MISSES_BEFORE_SUPERVISOR:
        person.callback = None
        person.callback_ended = window
