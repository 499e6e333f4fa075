"""A person's place: how facts, calls and the passing of time move it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from services.queue.domain.calling_hours import CallingHours
from services.queue.domain.eligibility import Eligibility, Verdict, conversion
from services.queue.domain.facts import UserFacts
from services.queue.domain.ranking import Ranking
from services.queue.domain.terms import (
    AgentId,
    Block,
    Conversion,
    Outcome,
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
    the verdict of the latest facts. `queue`, `state` and `reason` are where the person stands,
    which during an assignment may lag behind the facts. `phone_e164` is the last valid number.
    """

    user_id: UserId
    facts_version: int
    fingerprint: int
    phone_e164: str | None
    eligible_queue: Queue | None
    eligible_reason: Reason
    owes: Queue | None
    stay: int
    queue: Queue | None
    state: State
    reason: Reason
    rank_key: float
    entered_at: datetime | None
    ready_since: datetime | None
    due_at: datetime | None
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


def place_of(entry: Entry) -> tuple[Queue | None, State]:
    """Return where the person stands, as others see it."""
    return entry.queue, entry.state.seen_outside


class Placement:
    """The rules by which people are placed, ready to be applied to many."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.eligibility = Eligibility(rules.eligibility)
        self.ranking = Ranking(rules.score)
        self.calling_hours = CallingHours(rules.calling_hours)
        self._cooling = timedelta(hours=rules.calls.cooling_hours)

    def apply_facts(self, before: Entry | None, facts: UserFacts, now: datetime) -> Application:
        """Return the person with later facts applied; the caller has compared the versions."""
        verdict = self.eligibility.judge(facts)
        if before is None:
            after = self._discovered(facts, verdict, now)
            return Application(None, self.placed(after, now), None, is_context_changed=True)
        after = before._replace(
            facts_version=facts.version,
            fingerprint=facts.fingerprint,
            phone_e164=facts.phone_e164 or before.phone_e164,
            eligible_queue=verdict.queue,
            eligible_reason=verdict.reason,
        )
        if after.phone_e164 != before.phone_e164:
            after = self._with_phone_changed(after)
        if after.owes is not verdict.owes:
            after = self._with_matter(after, verdict, facts, now)
        return Application(
            before,
            self.placed(after, now),
            conversion(before.owes, verdict),
            is_context_changed=before.fingerprint != facts.fingerprint,
        )

    def placed(self, entry: Entry, now: datetime) -> Entry:
        """Return the entry where it belongs at this moment; assigned people stay with the agent.

        A reservation holds as long as the person belongs at the head of the same queue.
        """
        if not entry.is_ours_to_place:
            return entry
        queue, state, reason = self._place(entry, now)
        if state is State.READY and entry.state is State.RESERVED and queue is entry.queue:
            return entry if reason is entry.reason else entry._replace(reason=reason)
        if (queue, state, reason) == (entry.queue, entry.state, entry.reason):
            return entry
        was_ready = entry.state is State.READY and entry.queue is queue
        return entry._replace(
            queue=queue,
            state=state,
            reason=reason,
            ready_since=_ready_since(state, entry.ready_since if was_ready else None, now),
            reserved_by=None,
            reserved_until=None,
        )

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
        return self.ranking.score(entry.rank_key, at)

    def _place(self, entry: Entry, now: datetime) -> tuple[Queue | None, State, Reason]:
        if entry.block is Block.DO_NOT_CONTACT:
            return None, State.SUPPRESSED, Reason.DO_NOT_CONTACT
        if entry.block is Block.NO_CLAIM:
            return None, State.OUT, Reason.NO_CLAIM_REPORTED
        if entry.eligible_queue is None:
            return None, State.OUT, entry.eligible_reason
        if entry.rank_key >= self.ranking.frozen_from(now):
            return None, State.OUT, Reason.FROZEN
        is_due = entry.due_at is None or entry.due_at <= now
        state = State.READY if is_due else State.WAITING
        return entry.eligible_queue, state, entry.eligible_reason

    def _with_phone_changed(self, entry: Entry) -> Entry:
        """Lift the wait for a wrong number, since there is another one."""
        if entry.last_outcome is None:
            return entry
        rule = self.rules.outcomes[entry.last_outcome]
        return entry._replace(due_at=None) if rule.until_phone_changes else entry

    def _with_matter(
        self, entry: Entry, verdict: Verdict, facts: UserFacts, now: datetime
    ) -> Entry:
        """A matter that newly opens is a fresh start; what an outcome says of when stays."""
        if verdict.owes is None:
            return entry._replace(owes=None)
        is_first = entry.stay == 0
        return entry._replace(
            owes=verdict.owes,
            stay=entry.stay + 1,
            rank_key=self.ranking.key(self.rules.score.fresh, now),
            entered_at=now,
            attempts_in_stay=0,
            due_at=self._cooled_at(facts, now) if is_first else entry.due_at,
        )

    def _discovered(self, facts: UserFacts, verdict: Verdict, now: datetime) -> Entry:
        unknown = Entry(
            user_id=facts.user_id,
            facts_version=facts.version,
            fingerprint=facts.fingerprint,
            phone_e164=facts.phone_e164,
            eligible_queue=verdict.queue,
            eligible_reason=verdict.reason,
            owes=None,
            stay=0,
            queue=None,
            state=State.OUT,
            reason=verdict.reason,
            rank_key=self.ranking.key(self.rules.score.fresh, now),
            entered_at=None,
            ready_since=None,
            due_at=None,
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
        if verdict.owes is None:
            return unknown
        return self._with_matter(unknown, verdict, facts, now)

    def _cooled_at(self, facts: UserFacts, now: datetime) -> datetime | None:
        """Return when the first call may be; None when that is past."""
        claimed = [claim.created_at for claim in facts.claims if claim.created_at is not None]
        known = [facts.created_at] if facts.created_at is not None else []
        known += [min(claimed)] if claimed else []
        cooled_at = (max(known) if known else now) + self._cooling
        return cooled_at if cooled_at > now else None


def _ready_since(state: State, before: datetime | None, now: datetime) -> datetime | None:
    return (before or now) if state is State.READY else None
