"""One round of claims: reserve, check against the main app, hand out, put right what was wrong."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol
from uuid import UUID, uuid4

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import ServiceError, Unavailable
from services.queue import messages, metrics
from services.queue.domain.entries import Placement
from services.queue.domain.facts import UserFacts
from services.queue.domain.terms import Queue, UserId
from services.queue.facts_application import FactsApplication
from services.queue.main_app import MainApp
from services.queue.requests import FactsUpdate
from services.queue.store import assignments, claims, entries
from services.queue.store.answers import Request
from services.queue.store.assignments import Assignment, HandOut
from services.queue.store.claims import Candidate, Gate
from services.queue.store.database import Database
from services.queue.time_zones import TimeZones
from services.queue.writing import place_by_number

_log = logging.getLogger(__name__)

# People reserved beyond one for each agent, once a round has turned somebody down: doubled with
# every further round, so that a head full of outdated people is got through in a few.
_MOST_SPARE = 64

_FAULTS_AT_MOST = 3


class Claimant(Protocol):
    """An agent who waits, as a round sees it."""

    request: Request
    traceparent: str | None
    rejected: int
    # Whom the agent skipped last; not handed to them again while others wait.
    skipped_user_id: UserId | None

    def hand_out(self, assignment: Assignment, *, already_held: bool) -> None:
        """Answer with somebody."""
        ...

    def response(
        self, assignment: Assignment, *, already_held: bool
    ) -> queue_pb2.ClaimNextResponse:
        """Return the answer that hands this assignment out."""
        ...


@dataclass(slots=True)
class _Checked:
    """Candidates by what the main app says of them, each list in the order of the queue."""

    fit: list[Candidate] = field(default_factory=list)
    unfit: list[Candidate] = field(default_factory=list)
    # Fit, but for a phone number that is not the one they were placed by.
    renumbered: list[Candidate] = field(default_factory=list)
    # Their check failed for their own sake.
    faulty: list[Candidate] = field(default_factory=list)


class ClaimRound:
    """Serves a group of agents; used again for those of them who are left.

    Whoever it reserves it hands out, gives back, puts right or sets aside; after a crash the
    reservation lapses.
    """

    def __init__(
        self,
        database: Database,
        placement: Placement,
        facts: FactsApplication,
        main_app: MainApp,
        time_zones: TimeZones,
        clock: Clock,
        posted: Callable[[], None],
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._placement = placement
        self._time_zones = time_zones
        self._facts = facts
        self._main_app = main_app
        self._clock = clock
        self._posted = posted
        self._claim: UUID = uuid4()
        self._spare = 0
        self._turned_down = 0
        self._faults_in_a_row = 0
        self._rules = placement.rules.assignment

    def may_go_on(self, claims: int) -> bool:
        """Return False when too many candidates have been turned down for so many claims."""
        return self._turned_down < self._rules.candidates_at_most * claims

    async def run(self, queues: Sequence[Queue], claimants: Sequence[Claimant]) -> bool:
        """Answer as many claimants as qualify; returns True if nobody more can be called now.

        Raises Unavailable when nobody can be checked: then everybody reserved is given back.
        """
        gate = await self._gate()
        if not gate.is_usual_zone_open and not gate.open_zones:
            return True
        # One more for each agent who must not get the one they have just skipped.
        skips = sum(it.skipped_user_id is not None for it in claimants)
        wanted = len(claimants) + self._spare + skips
        candidates = await self._reserve(queues, wanted, gate, claimants)
        if not candidates:
            return True
        try:
            checked = await self._check(candidates)
        except BaseException:
            await self._give_back(candidates)
            raise
        pairs = self._paired(candidates, checked, claimants, is_all=len(candidates) < wanted)
        # Answered when all of it is done: whoever hears of somebody turned down finds it recorded.
        handed_out, put_right = await asyncio.gather(
            self._hand_out(pairs), self._put_right(checked), return_exceptions=True
        )
        if isinstance(handed_out, BaseException):
            raise handed_out
        _audit(checked, handed_out)
        self._answer(pairs, handed_out)
        left = [it for it in checked.fit + checked.renumbered if it.user_id not in handed_out]
        if left:
            await self._give_back(left)
        refused = [it for it, _ in pairs if it.user_id not in handed_out]
        if refused:
            await self._place_refused(refused)
        if isinstance(put_right, BaseException):
            raise put_right
        self._note_faults(checked)
        return False

    async def _gate(self) -> Gate:
        now = self._clock.now()
        hours, rules = self._placement.calling_hours, self._placement.rules
        return Gate(
            frozen_from=self._placement.ranking.frozen_from(now),
            is_usual_zone_open=hours.are_open(now),
            open_zones=hours.open_zones(now, await self._time_zones.current()),
            kept_since=now - timedelta(minutes=rules.callbacks.preferred_minutes),
            seen_since=now - timedelta(seconds=rules.agents.presence_seconds),
        )

    async def _reserve(
        self, queues: Sequence[Queue], count: int, gate: Gate, claimants: Sequence[Claimant]
    ) -> list[Candidate]:
        until = self._clock.now() + timedelta(seconds=self._rules.reservation_seconds)
        found: list[Candidate] = []
        async with self._database.statements() as tx:
            for queue in queues:
                found += await claims.reserve(
                    tx,
                    queue,
                    count - len(found),
                    claim=self._claim,
                    until=until,
                    gate=gate,
                    agent_ids=[it.request.agent_id for it in claimants],
                )
                if len(found) >= count:
                    break
        return found

    async def _check(self, candidates: Sequence[Candidate]) -> _Checked:
        """Sort the candidates by what the main app says of them now."""
        try:
            facts = await self._main_app.read([it.user_id for it in candidates])
        except Unavailable:
            raise
        except ServiceError as error:
            if len(candidates) == 1:
                return _Checked(faulty=list(candidates))
            return await self._check_singly(candidates, error)
        return self._sorted(candidates, facts)

    async def _check_singly(self, candidates: Sequence[Candidate], error: ServiceError) -> _Checked:
        """Find out whose check fails; if everybody's does, it is not for their own sake."""
        checked = _Checked()
        for candidate in candidates:
            one = await self._check([candidate])
            checked.fit += one.fit
            checked.unfit += one.unfit
            checked.renumbered += one.renumbered
            checked.faulty += one.faulty
        if len(checked.faulty) == len(candidates):
            raise _cannot_check(error.reason)
        return checked

    def _sorted(self, candidates: Sequence[Candidate], facts: dict[UserId, UserFacts]) -> _Checked:
        checked = _Checked()
        for candidate in candidates:
            found = facts.get(candidate.user_id)
            if found is None:
                checked.faulty.append(candidate)
            elif not self._qualifies(candidate, found):
                checked.unfit.append(candidate)
            elif found.phone_e164 not in (None, candidate.phone_e164):
                checked.renumbered.append(candidate)
            else:
                checked.fit.append(candidate)
        return checked

    def _qualifies(self, candidate: Candidate, facts: UserFacts) -> bool:
        verdict = self._placement.eligibility.judge(facts)
        if candidate.queue is Queue.CALLBACKS:
            return verdict.is_contact_allowed
        return verdict.queue is candidate.queue

    def _paired(
        self,
        candidates: Sequence[Candidate],
        checked: _Checked,
        claimants: Sequence[Claimant],
        *,
        is_all: bool,
    ) -> list[tuple[Candidate, Claimant]]:
        """Give each candidate who qualifies to the first agent in line who may have them.

        Those turned down on the way count for the agent who would have got them. `is_all` tells
        that nobody else waits: then an agent may get the one they have just skipped.
        """
        fit = {it.user_id for it in checked.fit}
        unfit = {it.user_id for it in checked.unfit}
        line = list(claimants)
        phones: set[str] = set()
        pairs: list[tuple[Candidate, Claimant]] = []
        skipped: list[Candidate] = []
        # Calling hours may have ended while the main app was asked.
        now, hours = self._clock.now(), self._placement.calling_hours
        is_open = {it: hours.are_open(now, it) for it in {each.time_zone for each in candidates}}
        for candidate in candidates:
            if not line:
                break
            if candidate.user_id in unfit:
                line[0].rejected += 1
            # Of people with one number only the first can be on the phone.
            elif (
                candidate.user_id in fit
                and is_open[candidate.time_zone]
                and candidate.phone_e164 not in phones
            ):
                if candidate.phone_e164 is not None:
                    phones.add(candidate.phone_e164)
                claimant = _next_for(candidate, line)
                if claimant is None:
                    skipped.append(candidate)
                else:
                    line.remove(claimant)
                    pairs.append((candidate, claimant))
        if is_all and not checked.renumbered:
            for candidate in skipped:
                kept_for = candidate.kept_for
                may = [it for it in line if kept_for in (None, it.request.agent_id)]
                if may:
                    line.remove(may[0])
                    pairs.append((candidate, may[0]))
        return pairs

    async def _hand_out(
        self, pairs: Sequence[tuple[Candidate, Claimant]]
    ) -> dict[UserId, Assignment]:
        """Assign the people; returns the assignments that came about, by person."""
        if not pairs:
            return {}
        made = [self._assignment(candidate, claimant) for candidate, claimant in pairs]
        given = [
            HandOut(
                assignment=assignment,
                request=claimant.request,
                response=claimant.response(assignment, already_held=False).SerializeToString(),
                event=messages.hand_out_event(assignment, claimant.traceparent),
            )
            for assignment, (_, claimant) in zip(made, pairs, strict=True)
        ]
        now = self._clock.now()
        async with self._database.statements() as tx:
            handed_out = await assignments.hand_out(
                tx,
                given,
                claim=self._claim,
                frozen_from=self._placement.ranking.frozen_from(now),
                phone_rest_from=now - self._placement.shared_phone_rest,
                now=now,
            )
        self._posted()
        return {it.user_id: it for it in made if it.user_id in handed_out}

    def _answer(
        self,
        pairs: Sequence[tuple[Candidate, Claimant]],
        handed_out: dict[UserId, Assignment],
    ) -> None:
        for candidate, claimant in pairs:
            if candidate.user_id in handed_out:
                metrics.CLAIMS.labels("handed_out").inc()
                claimant.hand_out(handed_out[candidate.user_id], already_held=False)

    def _assignment(self, candidate: Candidate, claimant: Claimant) -> Assignment:
        now = self._clock.now()
        return Assignment(
            assignment_id=uuid4(),
            agent_id=claimant.request.agent_id,
            user_id=candidate.user_id,
            queue=candidate.queue,
            reason=candidate.reason,
            score=self._placement.ranking.score(candidate, now),
            fence=candidate.fence + 1,
            started_at=now,
            lease_expires_at=now + timedelta(seconds=self._rules.lease_seconds),
            phone_e164=candidate.phone_e164,
        )

    async def _give_back(self, candidates: Sequence[Candidate]) -> None:
        async with self._database.statements() as tx:
            await claims.give_back(tx, [it.user_id for it in candidates], self._claim)

    async def _place_refused(self, refused: Sequence[Candidate]) -> None:
        """Have people whom the hand-out refused stand where their phone number says.

        They might come to the head again and again otherwise, if their entry knew nothing of a
        call to the number.
        """
        self._turned_down += len(refused)
        async with self._database.transaction() as tx:
            people = await entries.lock(tx, sorted(it.user_id for it in refused))
            await place_by_number(tx, list(people.values()), self._placement, self._clock.now())

    async def _put_right(self, checked: _Checked) -> None:
        """Bring those turned down in line with the main app and keep the rest from the head."""
        if checked.renumbered:
            self._turned_down += len(checked.renumbered)
            await self._refresh([it.user_id for it in checked.renumbered])
        turned_down = checked.unfit + checked.faulty
        if not turned_down:
            return
        self._turned_down += len(turned_down)
        self._spare = min(_MOST_SPARE, max(1, 2 * self._spare))
        metrics.PREVENTED_CALLS.inc(len(checked.unfit))
        metrics.SET_ASIDE.inc(len(checked.faulty))
        now = self._clock.now()
        until = now + timedelta(seconds=self._rules.set_aside_seconds)
        async with self._database.statements() as tx:
            if checked.unfit:
                people = [(it.user_id, it.queue) for it in checked.unfit]
                await claims.insert_prevented_calls(tx, people, now)
            # First of all out of the way: nothing that follows may put them back to the head.
            user_ids = [it.user_id for it in turned_down]
            await claims.set_aside(tx, user_ids, self._claim, until)
        if checked.unfit:
            await self._refresh([it.user_id for it in checked.unfit])

    def _note_faults(self, checked: _Checked) -> None:
        """Raise Unavailable once check after check has failed: the fault is not in the people."""
        if not checked.faulty or checked.fit or checked.unfit or checked.renumbered:
            self._faults_in_a_row = 0
            return
        self._faults_in_a_row += 1
        if self._faults_in_a_row == _FAULTS_AT_MOST:
            raise _cannot_check("CHECKS_FAIL")

    async def _refresh(self, user_ids: Sequence[UserId]) -> None:
        try:
            facts = await self._main_app.refresh(user_ids)
            await self._facts.apply([FactsUpdate(it) for it in facts])
        except ServiceError:
            # They are set aside; a change event, or the next live check, puts them right.
            return


def _next_for(candidate: Candidate, line: Sequence[Claimant]) -> Claimant | None:
    """Return who gets the candidate: the agent a callback prefers, else the first who may."""
    willing = [it for it in line if it.skipped_user_id != candidate.user_id]
    for claimant in willing:
        if candidate.callback_agent_id == claimant.request.agent_id:
            return claimant
    return willing[0] if willing and candidate.kept_for is None else None


def _audit(checked: _Checked, handed_out: Collection[UserId]) -> None:
    """Hold what was done against what was read, whatever code lies between."""
    fit = {it.user_id for it in checked.fit}
    wrong = sum(user_id not in fit for user_id in handed_out)
    if wrong:
        metrics.WRONG_CALLS.inc(wrong)
        _log.error("handed_out_unfit", extra={"people": wrong})


def _cannot_check(cause: str) -> Unavailable:
    return Unavailable(
        "MAIN_APP_UNAVAILABLE",
        "nobody can be checked against the main app",
        retry_after_seconds=1.0,
        cause=cause,
    )
