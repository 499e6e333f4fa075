"""A person's entry, and how facts, calls and the passing of time move it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from services.queue.domain.assessment import Assessment, Assessor, cooled_at
from services.queue.domain.callbacks import Callback, Opening
from services.queue.domain.calling_hours import CallingHours
from services.queue.domain.caps import LineCall, PastCall, capped
from services.queue.domain.eligibility import EligibilityVerdict, conversion
from services.queue.domain.pauses import QueuePause, opening_outside
from services.queue.domain.ranking import ORIGIN, Ranking
from services.queue.domain.rules import Rules
from services.queue.types import (
    NO_CONTACT_REASONS,
    AgentId,
    CallbackState,
    ContactBlock,
    Conversion,
    Hold,
    Outcome,
    PhoneBlock,
    Queue,
    Reason,
    State,
    UserId,
)


class Entry(NamedTuple):
    """Everything the queue knows of one person; a tuple, since thousands are changed at a time.

    `case_number` counts the person's cases, one open at a time; `open_case_queue` is the queue of
    the open case, kept while the main app bars contact. `eligible_queue` and `eligible_reason` are
    the verdict of the latest facts. `queue`, `state`, `reason`, `hold`, `rank_key` and `due_at`
    are the person's place, which during an assignment may lag behind the rest. `phones` are the
    numbers found in the person's phone field, `lines` those of them that count: without a line the
    person cannot be called. `rest_until` is set by cooling or by the last outcome, `capped_until`
    by `cap`, `phone_free_at` by calls to other people on the lines. A due callback is reserved for
    its preferred agent until `kept_until`. `last_agent_id` is the agent who last spoke with the
    person, at `last_spoken_at`.
    """

    user_id: UserId
    facts_version: int
    fingerprint: int
    phones: tuple[str, ...]
    time_zone: str | None
    eligible_queue: Queue | None
    eligible_reason: Reason
    open_case_queue: Queue | None
    case_number: int
    entered_at: datetime | None
    rest_until: datetime | None
    outcome_points: float
    aged_from: datetime
    lender_points: float
    age_points: float
    age_points_until: datetime | None
    claimed_at: datetime | None
    lines: tuple[str, ...]
    # From here on as in `_Place`, and then what `_moved` sets with a place.
    reason: Reason
    queue: Queue | None = None
    state: State = State.OUT
    hold: Hold | None = None
    rank_key: float = 0.0
    due_at: datetime | None = None
    kept_until: datetime | None = None
    ready_since: datetime | None = None
    reserved_by: UUID | None = None
    reserved_until: datetime | None = None
    attempt_points: float = 0.0
    capped_until: datetime | None = None
    cap: Hold | None = None
    phone_free_at: datetime | None = None
    phone_block: PhoneBlock = PhoneBlock(0)
    callback_id: UUID | None = None
    callback_at: datetime | None = None
    callback_agent_id: AgentId | None = None
    block: ContactBlock = ContactBlock(0)
    attempts: int = 0
    attempts_in_case: int = 0
    last_outcome: Outcome | None = None
    last_contact_at: datetime | None = None
    last_agent_id: AgentId | None = None
    last_spoken_at: datetime | None = None
    fence: int = 0
    agent_id: AgentId | None = None
    assignment_id: UUID | None = None

    @property
    def is_unassigned(self) -> bool:
        """True unless an agent holds the person, who is not placed until the assignment ends."""
        return self.state is not State.ASSIGNED

    def with_callback(self, callback: Callback | None) -> "Entry":
        """Return the entry with this callback if it is open, else with none."""
        if callback is None or callback.state is not CallbackState.OPEN:
            return self._replace(
                callback_id=None, callback_at=None, callback_agent_id=None, kept_until=None
            )
        return self._replace(
            callback_id=callback.callback_id,
            callback_at=callback.scheduled_for,
            callback_agent_id=callback.preferred_agent_id,
        )


class ContactStatus(NamedTuple):
    """A person's contact status: what other tables hold of the person and of the numbers.

    `lines` are the numbers that count, `phone_block` what stops any of them, `objections` those of
    the person; `calls` and `line_calls` are those of the period that caps look at.
    """

    lines: tuple[str, ...] = ()
    phone_block: PhoneBlock = PhoneBlock(0)
    objections: ContactBlock = ContactBlock(0)
    calls: Sequence[PastCall] = ()
    line_calls: Sequence[LineCall] = ()

    def with_call(
        self,
        called: UserId,
        lines: Collection[str],
        outcome: Outcome,
        now: datetime,
        *,
        is_own: bool,
    ) -> "ContactStatus":
        """Return the status once a call of `called` on these lines counts, which has just ended."""
        on_lines = (LineCall(phone, called, now, outcome) for phone in self.lines if phone in lines)
        return self._replace(
            calls=(*self.calls, PastCall(now)) if is_own else self.calls,
            line_calls=(*self.line_calls, *on_lines),
        )


@dataclass(frozen=True, slots=True)
class Application:
    """The result of applying facts to a person."""

    before: Entry | None
    after: Entry
    conversion: Conversion | None
    is_context_changed: bool

    @property
    def is_moved(self) -> bool:
        """True when the person entered, changed or left a queue, or changed state in it."""
        if self.before is None:
            return self.after.queue is not None
        return place_of(self.before) != place_of(self.after)


class _Place(NamedTuple):
    reason: Reason
    queue: Queue | None
    state: State
    hold: Hold | None
    rank_key: float
    due_at: datetime | None
    kept_until: datetime | None


def place_of(entry: Entry) -> tuple[Queue | None, State]:
    """Return the person's queue and state, as other services see them."""
    return entry.queue, entry.state.seen_outside


class Placement:
    """The rules by which people are placed, ready to be applied to many people.

    `pauses` are those in force or ahead. They move no person: hand-outs read them at each claim,
    and callbacks are agreed outside of them.
    """

    def __init__(
        self,
        rules: Rules,
        rank_offset: float = 0.0,
        on_missing_zone: Callable[[str], None] = lambda _: None,
        pauses: Sequence[QueuePause] = (),
    ) -> None:
        self.rules = rules
        self.pauses = pauses
        self.assessor = Assessor(rules)
        self.eligibility = self.assessor.eligibility
        self.ranking = Ranking(rules.score, rank_offset)
        self.calling_hours = CallingHours(rules.calling_hours, on_missing_zone)
        self.shared_phone_rest = timedelta(hours=rules.calls.shared_phone_hours)
        # For how long an outcome holds a number for other people.
        self.number_holds = {
            outcome: timedelta(hours=it.next_call_hours or 0.0)
            for outcome, it in rules.outcomes.items()
            if it.holds_number
        }
        # How far back calls are looked at, for caps and for shared lines.
        self.calls_kept = max(
            timedelta(days=rules.calls.period_days),
            self.shared_phone_rest,
            *self.number_holds.values(),
        )
        self._cooling = timedelta(hours=rules.calls.cooling_hours)

    def apply_facts(
        self,
        before: Entry | None,
        assessment: Assessment,
        now: datetime,
        status: ContactStatus | None = None,
    ) -> Application:
        """Return the person with later facts applied; the caller has compared the versions.

        `status` is that of a person who is new or has other numbers; without it every number of
        a new person counts and nothing blocks it.
        """
        verdict = assessment.verdict
        if before is None:
            found = self._discovered(assessment, now)
            if status is not None:
                found = self.with_status(found, status, now)
            return Application(None, self.placed(found, now), None, is_context_changed=True)
        after = before._replace(
            facts_version=assessment.facts_version,
            fingerprint=assessment.fingerprint or before.fingerprint,
            phones=assessment.phones,
            time_zone=assessment.time_zone,
            eligible_queue=verdict.queue,
            eligible_reason=verdict.reason,
            lender_points=assessment.lender_points,
            age_points=assessment.age_points,
            age_points_until=assessment.age_points_until,
            claimed_at=assessment.claimed_at,
        )
        if after.phones != before.phones:
            status = status or ContactStatus(after.phones)
            after = self._with_other_number(before, after, status)
            after = self.with_status(after, status, now)
        if after.open_case_queue is not verdict.open_case_queue:
            after = self._with_case(after, verdict, assessment, now)
        return Application(
            before,
            self.placed(after, now),
            conversion(before.open_case_queue, verdict),
            is_context_changed=after.fingerprint != before.fingerprint,
        )

    def placed(self, entry: Entry, now: datetime) -> Entry:
        """Return the entry placed for this moment; assigned people stay with the agent.

        A reservation holds while the person stays ready in the same queue.
        """
        if not entry.is_unassigned:
            return entry
        place = self._place(entry, now)
        is_reserved = entry.state is State.RESERVED and place.queue is entry.queue
        if place.state is State.READY and is_reserved:
            place = place._replace(state=State.RESERVED)
        return _moved(entry, place, now)

    def settled(self, entry: Entry, now: datetime) -> Entry:
        """Return the entry of a person released by an agent or a hand-out, placed."""
        free = entry._replace(
            state=State.OUT,
            agent_id=None,
            assignment_id=None,
            reserved_by=None,
            reserved_until=None,
        )
        return self.placed(free, now)

    def opening(self, entry: Entry | None) -> Opening:
        """Return the function that finds when a callback of the person may be.

        That is within the calling hours of the person's zone, the usual one of a person who is not
        known, and outside of pauses.
        """
        time_zone = None if entry is None else entry.time_zone
        hours = partial(self.calling_hours.open_at, time_zone=time_zone)
        return opening_outside([it for it in self.pauses if it.covers(Queue.CALLBACKS)], hours)

    def score(self, entry: Entry, at: datetime) -> float:
        """Return the score at a moment."""
        return self.ranking.score(entry, at)

    def not_before(self, entry: Entry) -> tuple[datetime | None, Hold | None]:
        """Return the earliest moment of the next call and what sets it; None for now.

        A callback replaces cooling and the wait of the last outcome; caps and shared numbers apply.
        """
        at, hold = entry.rest_until, Hold.COOLING if entry.last_outcome is None else Hold.NEXT_CALL
        if entry.callback_at is not None:
            at, hold = entry.callback_at, Hold.CALLBACK
        latest: tuple[datetime | None, Hold | None] = (None, None) if at is None else (at, hold)
        for other, other_hold in (
            (entry.capped_until, entry.cap),
            (entry.phone_free_at, Hold.SHARED_PHONE),
        ):
            if other is not None and (latest[0] is None or other > latest[0]):
                latest = (other, other_hold)
        return latest

    def _place(self, entry: Entry, now: datetime) -> _Place:
        key = self.ranking.key(entry)
        due_at, hold = self.not_before(entry)
        block = self.contact_block(entry)
        if block is not None:
            state = State.SUPPRESSED if block in _SUPPRESSING else State.OUT
            return _Place(block, None, state, None, key, due_at, None)
        if entry.callback_at is None:
            reason = None
            if entry.eligible_queue is None:
                reason = entry.eligible_reason
            elif key >= self.ranking.frozen_from(now):
                reason = Reason.FROZEN
            if reason is not None:
                return _Place(reason, None, State.OUT, None, key, due_at, None)
        is_due = due_at is None or due_at <= now
        state = State.READY if is_due else State.WAITING
        queue, reason = entry.eligible_queue, entry.eligible_reason
        kept_until = None
        if entry.callback_at is not None and entry.callback_at <= now:
            queue, reason = Queue.CALLBACKS, Reason.CALLBACK_DUE
            key = (entry.callback_at - ORIGIN).total_seconds()
            if entry.callback_agent_id is not None:
                # The agent's minutes begin when the person can first be called: at the agreed
                # moment, or later because of a cap, a shared line or calling hours.
                first_at = due_at or entry.callback_at
                callable_at = self.calling_hours.open_at(first_at, entry.time_zone) or first_at
                minutes = self.rules.callbacks.preferred_minutes
                kept_until = callable_at + timedelta(minutes=minutes)
        elif queue is None:
            queue, reason = Queue.CALLBACKS, Reason.CALLBACK_AGREED
        return _Place(reason, queue, state, None if is_due else hold, key, due_at, kept_until)

    def contact_block(self, entry: Entry) -> Reason | None:
        """Return why no agent may call the person, callback or not; None when one may.

        The reasons are independent; of several the strictest is returned.
        """
        if ContactBlock.DECEASED in entry.block:
            return Reason.DECEASED
        if ContactBlock.DO_NOT_CONTACT in entry.block:
            return Reason.DO_NOT_CONTACT
        if PhoneBlock.DO_NOT_CONTACT in entry.phone_block:
            return Reason.PHONE_SUPPRESSED
        if PhoneBlock.LISTED in entry.phone_block:
            return Reason.PHONE_LISTED
        if entry.eligible_reason in NO_CONTACT_REASONS:
            return entry.eligible_reason
        if ContactBlock.NO_CLAIM in entry.block:
            return Reason.NO_CLAIM_REPORTED
        return None if entry.lines else Reason.NO_CALLABLE_NUMBER

    def _with_other_number(self, before: Entry, after: Entry, status: ContactStatus) -> Entry:
        """End the wait after a wrong number if there is one that the last call did not use."""
        if before.last_outcome is None:
            return after
        called = {
            it.phone
            for it in status.line_calls
            if it.user_id == before.user_id and it.ended_at == before.last_contact_at
        }
        is_other = bool(set(after.phones) - set(before.phones) - called)
        rule = self.rules.outcomes[before.last_outcome]
        return after._replace(rest_until=None) if rule.until_phone_changes and is_other else after

    def with_status(self, entry: Entry, status: ContactStatus, now: datetime) -> Entry:
        """Return the entry with this contact status; the caller places it.

        A wait that has passed stays as it is, so that an entry that time alone has moved is not
        taken for an altered one.
        """
        zone = self.calling_hours.zone(entry.time_zone)
        cap = capped(status.calls, status.line_calls, now, zone, self.rules.calls)
        if cap is not None:
            entry = entry._replace(capped_until=cap.until, cap=cap.hold)
        elif entry.capped_until is not None and entry.capped_until > now:
            entry = entry._replace(capped_until=None, cap=None)
        others = [it for it in status.line_calls if it.user_id != entry.user_id]
        free_at = None
        if others:
            rested_at = max(it.ended_at for it in others) + self.shared_phone_rest
            held_until = self.numbers_held_until(entry.user_id, status, now)
            free_at = rested_at if held_until is None else max(rested_at, held_until)
        is_free = free_at is None or free_at <= now
        if is_free and entry.phone_free_at is not None and entry.phone_free_at <= now:
            free_at = entry.phone_free_at
        return entry._replace(
            lines=status.lines,
            phone_block=status.phone_block,
            phone_free_at=free_at,
            # An objection that is missing from its table is not lifted here: supervisors lift it.
            block=entry.block | status.objections,
        )

    def numbers_held_until(
        self, user_id: UserId, status: ContactStatus, now: datetime
    ) -> datetime | None:
        """Return when the first of the person's lines is free of what calls to others found there.

        None unless each of the lines is held: its last reported call was to another person, and
        had an outcome that holds the number.
        """
        until = []
        for line in status.lines:
            calls = [it for it in status.line_calls if it.phone == line and it.outcome is not None]
            last = max(calls, key=lambda it: it.ended_at, default=None)
            if last is None or last.user_id == user_id or last.outcome not in self.number_holds:
                return None
            until.append(last.ended_at + self.number_holds[last.outcome])
        first = min(until, default=None)
        return first if first is not None and first > now else None

    def _with_case(
        self, entry: Entry, verdict: EligibilityVerdict, assessment: Assessment, now: datetime
    ) -> Entry:
        """Return the entry with the verdict's case; a new case is a fresh start.

        The wait that an outcome has set stays.
        """
        if verdict.open_case_queue is None:
            return entry._replace(open_case_queue=None)
        is_first = entry.case_number == 0
        return entry._replace(
            open_case_queue=verdict.open_case_queue,
            case_number=entry.case_number + 1,
            outcome_points=self.rules.score.fresh,
            attempt_points=0.0,
            aged_from=now,
            entered_at=now,
            attempts_in_case=0,
            rest_until=cooled_at(assessment, self._cooling, now) if is_first else entry.rest_until,
        )

    def _discovered(self, assessment: Assessment, now: datetime) -> Entry:
        """Return a new person; made in one piece, since a rebuild makes hundreds of thousands."""
        verdict = assessment.verdict
        has_case = verdict.open_case_queue is not None
        return Entry(
            user_id=assessment.user_id,
            facts_version=assessment.facts_version,
            fingerprint=assessment.fingerprint,
            phones=assessment.phones,
            time_zone=assessment.time_zone,
            eligible_queue=verdict.queue,
            eligible_reason=verdict.reason,
            open_case_queue=verdict.open_case_queue,
            case_number=1 if has_case else 0,
            reason=verdict.reason,
            entered_at=now if has_case else None,
            rest_until=cooled_at(assessment, self._cooling, now) if has_case else None,
            outcome_points=self.rules.score.fresh,
            aged_from=now,
            lender_points=assessment.lender_points,
            age_points=assessment.age_points,
            age_points_until=assessment.age_points_until,
            claimed_at=assessment.claimed_at,
            lines=assessment.phones,
        )


_SUPPRESSING = (
    Reason.DECEASED,
    Reason.DO_NOT_CONTACT,
    Reason.PHONE_LISTED,
    Reason.PHONE_SUPPRESSED,
)


_OFFERED = (State.READY, State.RESERVED)
_PLACE = Entry._fields.index(_Place._fields[0])
_PLACE_END = _PLACE + len(_Place._fields)
_PLACED_END = Entry._fields.index("reserved_until") + 1


def _moved(entry: Entry, place: _Place, now: datetime) -> Entry:
    """Return the entry in that place; one that is there already is returned as it is.

    Joins slices: `_replace` takes thrice as long, which counts in a rebuild.
    """
    if place == entry[_PLACE:_PLACE_END]:
        return entry
    is_reserved = place.state is State.RESERVED
    was_ready = entry.state is State.READY and entry.queue is place.queue
    ready_since = entry.ready_since if was_ready or is_reserved else None
    return Entry._make(
        (
            *entry[:_PLACE],
            *place,
            ready_since or now if place.state in _OFFERED else None,
            entry.reserved_by if is_reserved else None,
            entry.reserved_until if is_reserved else None,
            *entry[_PLACED_END:],
        )
    )
