"""A person's place: how facts, calls and the passing of time move it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from services.queue.domain.assessment import Assessment, Assessor, cooled_at
from services.queue.domain.callbacks import Callback
from services.queue.domain.calling_hours import CallingHours
from services.queue.domain.caps import Cap
from services.queue.domain.eligibility import Verdict, conversion
from services.queue.domain.ranking import ORIGIN, Ranking
from services.queue.domain.terms import (
    BARRIERS,
    AgentId,
    Block,
    CallbackState,
    Conversion,
    Hold,
    Outcome,
    PhoneBlock,
    Queue,
    Reason,
    State,
    UserId,
)
from services.queue.rules import Rules


class Entry(NamedTuple):
    """Everything the queue knows of one person; a tuple, since thousands are changed at a time.

    `stay` numbers the matters that were open one after the other; `owes` is the queue of the
    present one, kept while the main app bars contact. `eligible_queue` and `eligible_reason` are
    the verdict of the latest facts. `queue`, `state`, `reason`, `hold`, `rank_key` and `due_at`
    are where the person stands, which during an assignment may lag behind the rest.
    `phone_e164` is the last valid number. `rest_until` is what cooling or the last outcome says,
    `capped_until` what `cap` says, `phone_free_at` what calls to the same number say.
    """

    user_id: UserId
    facts_version: int
    fingerprint: int
    phone_e164: str | None
    time_zone: str | None
    eligible_queue: Queue | None
    eligible_reason: Reason
    owes: Queue | None
    stay: int
    queue: Queue | None
    state: State
    reason: Reason
    hold: Hold | None
    rank_key: float
    due_at: datetime | None
    ready_since: datetime | None
    entered_at: datetime | None
    outcome_points: float
    attempt_points: float
    aged_from: datetime
    lender_points: float
    age_points: float
    age_points_until: datetime | None
    claimed_at: datetime | None
    rest_until: datetime | None
    capped_until: datetime | None
    cap: Hold | None
    phone_free_at: datetime | None
    phone_block: PhoneBlock | None
    callback_id: UUID | None
    callback_at: datetime | None
    callback_agent_id: AgentId | None
    block: Block | None
    attempts: int
    attempts_in_stay: int
    last_outcome: Outcome | None
    last_contact_at: datetime | None
    last_agent_id: AgentId | None
    fence: int
    agent_id: AgentId | None
    assignment_id: UUID | None
    reserved_by: UUID | None
    reserved_until: datetime | None

    @property
    def is_ours_to_place(self) -> bool:
        """True unless an agent holds the person: then nothing moves until the assignment ends."""
        return self.state is not State.ASSIGNED

    def with_callback(self, callback: Callback | None) -> "Entry":
        """Return the entry with this open callback; one that has ended is none."""
        if callback is None or callback.state is not CallbackState.OPEN:
            return self._replace(callback_id=None, callback_at=None, callback_agent_id=None)
        return self._replace(
            callback_id=callback.callback_id,
            callback_at=callback.scheduled_for,
            callback_agent_id=callback.preferred_agent_id,
        )

    def with_cap(self, cap: Cap | None) -> "Entry":
        """Return the entry with the cap its calls have reached."""
        if cap is None:
            return self._replace(capped_until=None, cap=None)
        return self._replace(capped_until=cap.until, cap=cap.hold)


class PhoneStanding(NamedTuple):
    """What is known of a phone number, apart from the person's own calls to it."""

    block: PhoneBlock | None = None
    last_call_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Application:
    """What applying facts to a person led to."""

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
    queue: Queue | None
    state: State
    reason: Reason
    hold: Hold | None
    rank_key: float
    due_at: datetime | None


def place_of(entry: Entry) -> tuple[Queue | None, State]:
    """Return where the person stands, as others see it."""
    return entry.queue, entry.state.seen_outside


def phone_after(before: Entry | None, assessment: Assessment) -> str | None:
    """Return the number by which the person is known once the facts are applied."""
    return assessment.phone_e164 or (before.phone_e164 if before is not None else None)


class Placement:
    """The rules by which people are placed, ready to be applied to many."""

    def __init__(self, rules: Rules, rank_offset: float = 0.0) -> None:
        self.rules = rules
        self.assessor = Assessor(rules)
        self.eligibility = self.assessor.eligibility
        self.ranking = Ranking(rules.score, rank_offset)
        self.calling_hours = CallingHours(rules.calling_hours)
        self.shared_phone_rest = timedelta(hours=rules.calls.shared_phone_hours)
        self._cooling = timedelta(hours=rules.calls.cooling_hours)

    def apply_facts(
        self,
        before: Entry | None,
        assessment: Assessment,
        now: datetime,
        phone: PhoneStanding | None = None,
    ) -> Application:
        """Return the person with later facts applied; the caller has compared the versions.

        `phone` is the standing of a number that is new to the person.
        """
        verdict = assessment.verdict
        if before is None:
            found = self._discovered(assessment, now)
            if phone is not None:
                found = self._with_phone(found, phone)
            return Application(None, self.placed(found, now), None, is_context_changed=True)
        after = before._replace(
            facts_version=assessment.facts_version,
            fingerprint=assessment.fingerprint or before.fingerprint,
            phone_e164=phone_after(before, assessment),
            time_zone=assessment.time_zone if assessment.phone_e164 else before.time_zone,
            eligible_queue=verdict.queue,
            eligible_reason=verdict.reason,
            lender_points=assessment.lender_points,
            age_points=assessment.age_points,
            age_points_until=assessment.age_points_until,
            claimed_at=assessment.claimed_at,
        )
        if after.phone_e164 != before.phone_e164:
            after = self._with_phone(self._with_other_number(after), phone)
        if after.owes is not verdict.owes:
            after = self._with_matter(after, verdict, assessment, now)
        return Application(
            before,
            self.placed(after, now),
            conversion(before.owes, verdict),
            is_context_changed=after.fingerprint != before.fingerprint,
        )

    def placed(self, entry: Entry, now: datetime) -> Entry:
        """Return the entry where it belongs at this moment; assigned people stay with the agent.

        A reservation holds as long as the person belongs at the head of the same queue.
        """
        if not entry.is_ours_to_place:
            return entry
        place = self._place(entry, now)
        is_reserved = entry.state is State.RESERVED and place.queue is entry.queue
        if place.state is State.READY and is_reserved:
            place = place._replace(state=State.RESERVED)
        return _moved(entry, place, now)

    def settled(self, entry: Entry, now: datetime) -> Entry:
        """Return the entry of a person whom an agent or a claim has let go."""
        free = entry._replace(
            state=State.OUT,
            agent_id=None,
            assignment_id=None,
            reserved_by=None,
            reserved_until=None,
        )
        return self.placed(free, now)

    def score(self, entry: Entry, at: datetime) -> float:
        """Return the score at a moment."""
        return self.ranking.score(entry, at)

    def not_before(self, entry: Entry) -> tuple[datetime | None, Hold | None]:
        """Return the earliest moment of the next call and what says so; None for now.

        A callback replaces what cooling and the last outcome say; caps and a shared number stay.
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
        kept_out = self._kept_out(entry, now, key)
        if kept_out is not None:
            state, reason = kept_out
            return _Place(None, state, reason, None, key, due_at)
        is_due = due_at is None or due_at <= now
        state = State.READY if is_due else State.WAITING
        queue, reason = entry.eligible_queue, entry.eligible_reason
        if entry.callback_at is not None and entry.callback_at <= now:
            queue, reason = Queue.CALLBACKS, Reason.CALLBACK_DUE
            key = (entry.callback_at - ORIGIN).total_seconds()
        elif queue is None:
            queue, reason = Queue.CALLBACKS, Reason.CALLBACK_AGREED
        return _Place(queue, state, reason, None if is_due else hold, key, due_at)

    def barrier(self, entry: Entry) -> Reason | None:
        """Return why nobody may call the person, callback or not; None when somebody may."""
        if entry.block is Block.DO_NOT_CONTACT:
            return Reason.DO_NOT_CONTACT
        if entry.phone_block is not None:
            return _PHONE_BLOCKS[entry.phone_block]
        if entry.eligible_reason in BARRIERS:
            return entry.eligible_reason
        return Reason.NO_CLAIM_REPORTED if entry.block is Block.NO_CLAIM else None

    def _kept_out(self, entry: Entry, now: datetime, key: float) -> tuple[State, Reason] | None:
        """Return where somebody stands who is not to be called, and why; None for others."""
        barrier = self.barrier(entry)
        if barrier is not None:
            return State.SUPPRESSED if barrier in _SUPPRESSING else State.OUT, barrier
        if entry.callback_at is not None:
            return None
        if entry.eligible_queue is None:
            return State.OUT, entry.eligible_reason
        if key >= self.ranking.frozen_from(now):
            return State.OUT, Reason.FROZEN
        return None

    def _with_other_number(self, entry: Entry) -> Entry:
        """Lift the wait for a wrong number, since there is another one."""
        if entry.last_outcome is None:
            return entry
        rule = self.rules.outcomes[entry.last_outcome]
        return entry._replace(rest_until=None) if rule.until_phone_changes else entry

    def _with_phone(self, entry: Entry, phone: PhoneStanding | None) -> Entry:
        standing = phone or PhoneStanding()
        return entry._replace(
            phone_block=standing.block,
            phone_free_at=self.phone_free_at(standing.last_call_at),
        )

    def phone_free_at(self, last_call_at: datetime | None) -> datetime | None:
        """Return from when on others with the same number may be called."""
        return None if last_call_at is None else last_call_at + self.shared_phone_rest

    def _with_matter(
        self, entry: Entry, verdict: Verdict, assessment: Assessment, now: datetime
    ) -> Entry:
        """A matter that newly opens is a fresh start; what an outcome says of when stays."""
        if verdict.owes is None:
            return entry._replace(owes=None)
        is_first = entry.stay == 0
        return entry._replace(
            owes=verdict.owes,
            stay=entry.stay + 1,
            outcome_points=self.rules.score.fresh,
            attempt_points=0.0,
            aged_from=now,
            entered_at=now,
            attempts_in_stay=0,
            rest_until=cooled_at(assessment, self._cooling, now) if is_first else entry.rest_until,
        )

    def _discovered(self, assessment: Assessment, now: datetime) -> Entry:
        """Return somebody new; made in one piece, since a rebuild makes hundreds of thousands."""
        verdict = assessment.verdict
        owes = verdict.owes
        return Entry(
            user_id=assessment.user_id,
            facts_version=assessment.facts_version,
            fingerprint=assessment.fingerprint,
            phone_e164=assessment.phone_e164,
            time_zone=assessment.time_zone,
            eligible_queue=verdict.queue,
            eligible_reason=verdict.reason,
            owes=owes,
            stay=0 if owes is None else 1,
            queue=None,
            state=State.OUT,
            reason=verdict.reason,
            hold=None,
            rank_key=0.0,
            due_at=None,
            ready_since=None,
            entered_at=None if owes is None else now,
            outcome_points=self.rules.score.fresh,
            attempt_points=0.0,
            aged_from=now,
            lender_points=assessment.lender_points,
            age_points=assessment.age_points,
            age_points_until=assessment.age_points_until,
            claimed_at=assessment.claimed_at,
            rest_until=None if owes is None else cooled_at(assessment, self._cooling, now),
            capped_until=None,
            cap=None,
            phone_free_at=None,
            phone_block=None,
            callback_id=None,
            callback_at=None,
            callback_agent_id=None,
            block=None,
            attempts=0,
            attempts_in_stay=0,
            last_outcome=None,
            last_contact_at=None,
            last_agent_id=None,
            fence=0,
            agent_id=None,
            assignment_id=None,
            reserved_by=None,
            reserved_until=None,
        )


_SUPPRESSING = (Reason.DO_NOT_CONTACT, Reason.PHONE_LISTED, Reason.PHONE_SUPPRESSED)
_PHONE_BLOCKS = {
    PhoneBlock.LISTED: Reason.PHONE_LISTED,
    PhoneBlock.DO_NOT_CONTACT: Reason.PHONE_SUPPRESSED,
}


def _moved(entry: Entry, place: _Place, now: datetime) -> Entry:
    stood = _Place(entry.queue, entry.state, entry.reason, entry.hold, entry.rank_key, entry.due_at)
    if place == stood:
        return entry
    is_reserved = place.state is State.RESERVED
    was_ready = entry.state is State.READY and entry.queue is place.queue
    ready_since = entry.ready_since if was_ready or is_reserved else None
    return entry._replace(
        queue=place.queue,
        state=place.state,
        reason=place.reason,
        hold=place.hold,
        rank_key=place.rank_key,
        due_at=place.due_at,
        ready_since=ready_since or now if place.state in _OFFERED else None,
        reserved_by=entry.reserved_by if is_reserved else None,
        reserved_until=entry.reserved_until if is_reserved else None,
    )


_OFFERED = (State.READY, State.RESERVED)
