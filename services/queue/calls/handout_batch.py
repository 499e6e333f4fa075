"""One batch of hand-outs: reserves users, checks them against the main app, hands them out.

Users whom the check turns down are repaired.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

from servicekit.clock import Clock
from servicekit.errors import ServiceError, Unavailable
from services.queue import metrics
from services.queue.calls.waiting_agent import WaitingAgent
from services.queue.domain.entries import Placement
from services.queue.domain.longest_waiting import LongestWaitingShare
from services.queue.people.isolation import isolated
from services.queue.people.placing import place_by_status
from services.queue.people.refreshing import Refreshing
from services.queue.people.time_zones import TimeZones
from services.queue.people.user_context_client import UserContextClient
from services.queue.store import audit, entries, handouts, suppressions
from services.queue.store.assignments import Assignment
from services.queue.store.database import Database
from services.queue.store.handouts import Candidate, Gate, HandOut, LinesInCall
from services.queue.types import SCORED_QUEUES, Action, Queue, UserId
from services.queue.wire import messages

_log = logging.getLogger(__name__)

# Users reserved beyond one for each agent once a batch has turned a user down. The number doubles
# with every further batch, so that a few batches get past many outdated users at the head.
_MOST_SPARE = 64

# Users whose check fails before a hand-out asks whether any check works.
_FAULTS_AT_MOST = 20
# Of those, so many are quarantined even when no check works: the next hand-out begins behind them.
_QUARANTINED_AT_LEAST = 3


@dataclass(slots=True)
class _Checked:
    """Candidates by what the main app says of them, each list in the order of the queue."""

    fit: list[Candidate] = field(default_factory=list)
    unfit: list[Candidate] = field(default_factory=list)
    # Fit, but the phone number differs from the one by which the user was placed.
    renumbered: list[Candidate] = field(default_factory=list)

    @property
    def are_all_fit(self) -> bool:
        """Whether no candidate was turned down."""
        return not self.unfit and not self.renumbered

    def add(self, others: "_Checked") -> None:
        """Add candidates that come after these in the queue."""
        self.fit += others.fit
        self.unfit += others.unfit
        self.renumbered += others.renumbered


class HandoutBatch:
    """Serves a group of agents; used again for the agents that are left.

    It hands out, releases or quarantines every user that it reserves; after a crash the reservation
    lapses. A user who cannot be handed out for a reason of their own is quarantined for
    `set_aside_seconds`, whatever the reason, so that no such user blocks the head.
    """

    def __init__(
        self,
        database: Database,
        placement: Placement,
        refreshing: Refreshing,
        user_context: UserContextClient,
        time_zones: TimeZones,
        clock: Clock,
        share: LongestWaitingShare,
    ) -> None:
        """`share` is that of all batches of this process."""
        self._share = share
        self._database = database
        self._placement = placement
        self._time_zones = time_zones
        self._refreshing = refreshing
        self._user_context = user_context
        self._clock = clock
        self._rules = placement.rules.assignment
        # The id by which this batch holds its reservations.
        self._handout_id: UUID = uuid4()
        self._spare = 0
        self._turned_down = 0
        # Whether a check has worked. Until one has, users whose check failed stay reserved.
        self._is_reading = False
        self._unreadable: list[Candidate] = []
        # Users of earlier runs whom a refresh, or placing them anew, has not helped.
        self._renumbered: set[UserId] = set()
        self._refused: set[UserId] = set()
        # Users reserved because no other one has been ready for longer.
        self._longest_waiting: set[UserId] = set()

    def may_go_on(self, agents: int) -> bool:
        """Return False when too many candidates have been turned down for so many agents."""
        return self._turned_down < self._rules.candidates_at_most * agents

    async def run(
        self,
        queues: Sequence[Queue],
        agents: Sequence[WaitingAgent],
        *,
        own_callbacks_only: bool = False,
    ) -> bool:
        """Answer agents with the users who qualify; returns True if no other user can be called.

        With `own_callbacks_only` a callback goes to its preferred agent or to none of these.
        Raises Unavailable when no check works: then every reserved user is released.
        """
        now, rules = self._clock.now(), self._placement.rules
        hours = self._placement.calling_hours
        gate = Gate(
            frozen_from=self._placement.ranking.frozen_from(now),
            is_usual_zone_open=hours.are_open(now),
            open_zones=hours.open_zones(now, await self._time_zones.current()),
            now=now,
            seen_since=now - timedelta(seconds=rules.agents.presence_seconds),
        )
        if not gate.is_usual_zone_open and not gate.open_zones:
            return True
        # One more for each agent that must not get the user it has just skipped.
        skips = sum(it.skipped_user_id is not None for it in agents)
        wanted = len(agents) + self._spare + skips
        until = self._clock.now() + timedelta(seconds=self._rules.reservation_seconds)
        candidates: list[Candidate] = []
        async with self._database.statements() as tx:
            for queue in queues:
                reserve = partial(
                    handouts.reserve,
                    tx,
                    queue,
                    handout_id=self._handout_id,
                    until=until,
                    gate=gate,
                    agent_ids=[it.request.agent_id for it in agents],
                )
                of_share = self._due_to_longest_waiting(queue, len(agents) - len(candidates))
                if of_share:
                    # First, so that they are not among those reserved as spare.
                    longest = await reserve(of_share, by_waiting=True)
                    self._longest_waiting.update(it.user_id for it in longest)
                    candidates += longest
                candidates += await reserve(
                    wanted - len(candidates), own_callbacks_only=own_callbacks_only
                )
                if len(candidates) >= wanted:
                    break
        try:
            if not candidates:
                if self._unreadable:
                    await self._quarantine_unreadable()
                return True
            await self._serve(candidates, agents, is_all=len(candidates) < wanted)
        except BaseException:
            # Does nothing to users who have been handed out or quarantined.
            await self._release([*candidates, *self._unreadable])
            raise
        return False

    def _due_to_longest_waiting(self, queue: Queue, hand_outs: int) -> int:
        if queue not in SCORED_QUEUES or hand_outs <= 0:
            return 0
        return self._share.due(queue, hand_outs, self._rules.longest_waiting_one_in)

    def _count_share(self, handed_out: Collection[Assignment]) -> None:
        for queue in SCORED_QUEUES:
            user_ids = {it.user_id for it in handed_out if it.queue is queue}
            of_share = len(user_ids & self._longest_waiting)
            others, one_in = len(user_ids) - of_share, self._rules.longest_waiting_one_in
            self._share.count(queue, of_share, others, one_in)
            metrics.LONGEST_WAITING.labels(queue.name.lower()).inc(of_share)

    async def _serve(
        self, candidates: Sequence[Candidate], agents: Sequence[WaitingAgent], *, is_all: bool
    ) -> None:
        checked = await self._check(candidates)
        pairs = self._pair(candidates, checked, agents, is_all=is_all)
        repaired: BaseException | None = None
        if checked.are_all_fit and not self._unreadable:
            # Without a task, so that the agents are answered before the dispatch that the commit
            # wakes takes its turn of the event loop.
            handed_out = await self._hand_out(pairs)
        else:
            handed_out, repaired = await self._hand_out_and_repair(pairs, checked)
        _audit(checked, handed_out)
        self._count_share(handed_out.values())
        for candidate, agent in pairs:
            if candidate.user_id in handed_out:
                metrics.CLAIMS.labels("handed_out").inc()
                agent.hand_out(handed_out[candidate.user_id], already_held=False)
        refused = [it for it, _ in pairs if it.user_id not in handed_out]
        if refused:
            await self._place_refused(refused)
        left = [it for it in checked.fit + checked.renumbered if it.user_id not in handed_out]
        if left:
            await self._release(left)
        if repaired is not None:
            raise repaired

    async def _hand_out_and_repair(
        self, pairs: Sequence[tuple[Candidate, WaitingAgent]], checked: _Checked
    ) -> tuple[dict[UserId, Assignment], BaseException | None]:
        """Do both at once; returns the users handed out, and what the repair raised.

        The agents are answered when both are done: an agent that learns of a user turned down
        finds it recorded.
        """
        handed_out, repaired = await asyncio.gather(
            self._hand_out(pairs), self._repair(checked), return_exceptions=True
        )
        if isinstance(handed_out, BaseException):
            raise handed_out
        return handed_out, repaired

    async def _check(self, candidates: Sequence[Candidate]) -> _Checked:
        """Sort the candidates by what the main app says of them now.

        Candidates whose check fails become unreadable. Raises Unavailable when no check works.
        """
        checked = _Checked()

        async def check(some: Sequence[Candidate]) -> None:
            facts = await self._user_context.read([it.user_id for it in some])
            # Added all at once: `isolated` repeats the work when the facts of one user fail it.
            these = _Checked()
            for candidate in some:
                found = facts.get(candidate.user_id)
                if found is None:
                    continue
                verdict = self._placement.eligibility.judge(found)
                if candidate.queue is Queue.CALLBACKS:
                    qualifies = verdict.is_contact_allowed
                else:
                    qualifies = verdict.queue is candidate.queue
                if not qualifies:
                    these.unfit.append(candidate)
                elif found.phones != candidate.phones:
                    these.renumbered.append(candidate)
                else:
                    these.fit.append(candidate)
            checked.add(these)
            self._is_reading = True
            self._add_unreadable([it for it in some if it.user_id not in facts])

        async def set_unreadable(candidate: Candidate, _: Exception) -> None:
            self._add_unreadable([candidate])
            most = min(_FAULTS_AT_MOST, self._rules.candidates_at_most)
            if not self._is_reading and len(self._unreadable) >= most:
                await self._quarantine_unreadable()

        await isolated(candidates, check, set_unreadable)
        return checked

    def _add_unreadable(self, candidates: Sequence[Candidate]) -> None:
        self._unreadable += candidates
        self._turned_down += len(candidates)

    async def _quarantine_unreadable(self) -> None:
        """Quarantine all unreadable candidates if another user can be read, else the first few.

        Raises Unavailable when no other user can be read either.
        """
        self._is_reading = await self._user_context.is_readable()
        unreadable = self._unreadable
        if not self._is_reading:
            unreadable = unreadable[:_QUARANTINED_AT_LEAST]
        await self._quarantine(unreadable, "unreadable")
        self._unreadable = self._unreadable[len(unreadable) :]
        if not self._is_reading:
            raise Unavailable(
                "MAIN_APP_UNAVAILABLE",
                "no person can be checked against the main app",
                retry_after_seconds=1.0,
                cause="CHECKS_FAIL",
            )

    async def _quarantine(self, candidates: Sequence[Candidate], why: str) -> None:
        """Keep users that this batch still reserves from every hand-out for a while."""
        if not candidates:
            return
        user_ids = [it.user_id for it in candidates]
        until = self._clock.now() + timedelta(seconds=self._rules.set_aside_seconds)
        async with self._database.statements() as tx:
            await handouts.quarantine(tx, user_ids, self._handout_id, until)
        metrics.QUARANTINED.labels(why).inc(len(user_ids))
        _log.warning("quarantined", extra={"user_ids": user_ids, "why": why})

    def _pair(
        self,
        candidates: Sequence[Candidate],
        checked: _Checked,
        agents: Sequence[WaitingAgent],
        *,
        is_all: bool,
    ) -> list[tuple[Candidate, WaitingAgent]]:
        """Give each fit candidate to the agent its callback prefers, else to the first in line.

        A candidate turned down on the way counts for the agent that would have got it. `is_all`
        says that no other user waits: then an agent may get the user it has just skipped.
        """
        fit = {it.user_id for it in checked.fit}
        unfit = {it.user_id for it in checked.unfit}
        line = list(agents)
        lines: set[str] = set()
        pairs: list[tuple[Candidate, WaitingAgent]] = []
        skipped: list[Candidate] = []
        # Calling hours may have ended while the main app was asked.
        now, hours = self._clock.now(), self._placement.calling_hours
        is_open = {it: hours.are_open(now, it) for it in {each.time_zone for each in candidates}}
        for candidate in candidates:
            if not line:
                break
            if candidate.user_id in unfit:
                line[0].rejected += 1
                continue
            # Of users who share a phone line only the first can be on the phone.
            if (
                candidate.user_id not in fit
                or not is_open[candidate.time_zone]
                or not lines.isdisjoint(candidate.lines)
            ):
                continue
            lines.update(candidate.lines)
            willing = [it for it in line if it.skipped_user_id != candidate.user_id]
            preferred_id = candidate.callback_agent_id
            agent = next((it for it in willing if it.request.agent_id == preferred_id), None)
            if agent is None and willing and candidate.kept_for is None:
                agent = willing[0]
            if agent is None:
                skipped.append(candidate)
            else:
                line.remove(agent)
                pairs.append((candidate, agent))
        if is_all and not checked.renumbered:
            for candidate in skipped:
                kept_for = candidate.kept_for
                may = [it for it in line if kept_for in (None, it.request.agent_id)]
                if may:
                    line.remove(may[0])
                    pairs.append((candidate, may[0]))
        return pairs

    async def _hand_out(
        self, pairs: Sequence[tuple[Candidate, WaitingAgent]]
    ) -> dict[UserId, Assignment]:
        """Assign the users; returns the assignments that were written, by user."""
        handed_out: dict[UserId, Assignment] = {}

        async def hand_out(some: Sequence[tuple[Candidate, WaitingAgent]]) -> None:
            now = self._clock.now()
            given = []
            for candidate, agent in some:
                assignment = Assignment(
                    assignment_id=uuid4(),
                    agent_id=agent.request.agent_id,
                    user_id=candidate.user_id,
                    queue=candidate.queue,
                    reason=candidate.reason,
                    score=self._placement.ranking.score(candidate, now),
                    fence=candidate.fence + 1,
                    started_at=now,
                    lease_expires_at=now + timedelta(seconds=self._rules.lease_seconds),
                    lines=candidate.lines,
                )
                given.append(
                    HandOut(
                        assignment=assignment,
                        request=agent.request,
                        response=agent.response(assignment, already_held=False).SerializeToString(),
                        event=messages.hand_out_event(assignment, agent.traceparent),
                    )
                )
            written = await self._write(given)
            for it in given:
                if it.assignment.user_id in written:
                    handed_out[it.assignment.user_id] = it.assignment
                    _log_hand_out(it.assignment)

        async def refuse(pair: tuple[Candidate, WaitingAgent], _: Exception) -> None:
            await self._quarantine([pair[0]], "refused")

        await isolated(pairs, hand_out, refuse)
        return handed_out

    async def _write(self, given: Sequence[HandOut]) -> set[UserId]:
        """Write together, or one by one when a line has come into a call meanwhile."""
        now = self._clock.now()
        try:
            async with self._database.statements() as tx:
                return await handouts.hand_out(
                    tx,
                    given,
                    handout_id=self._handout_id,
                    frozen_from=self._placement.ranking.frozen_from(now),
                    phone_rest_from=now - self._placement.shared_phone_rest,
                    now=now,
                )
        except LinesInCall:
            if len(given) == 1:
                return set()
        handed_out: set[UserId] = set()
        for one in given:
            handed_out |= await self._write([one])
        return handed_out

    async def _release(self, candidates: Sequence[Candidate]) -> None:
        async with self._database.statements() as tx:
            await handouts.release(tx, [it.user_id for it in candidates], self._handout_id)

    async def _place_refused(self, refused: Sequence[Candidate]) -> None:
        """Place users whom the hand-out refused by what their phone number says.

        Their entry may not have known of a call to the number, or of a list that has just come
        into force. Users who are refused again, or whom this fails to place, are quarantined.
        """
        self._turned_down += len(refused)
        again = [it for it in refused if it.user_id in self._refused]
        await self._quarantine(again, "refused")
        first = [it for it in refused if it.user_id not in self._refused]
        self._refused.update(it.user_id for it in first)

        async def place(some: Sequence[Candidate]) -> None:
            async with self._database.transaction() as tx:
                await suppressions.guard_shared(tx)
                people = await entries.lock(tx, sorted(it.user_id for it in some))
                now = self._clock.now()
                await place_by_status(tx, list(people.values()), self._placement, now)

        async def quarantine(candidate: Candidate, _: Exception) -> None:
            await self._quarantine([candidate], "refused")

        await isolated(first, place, quarantine)

    async def _repair(self, checked: _Checked) -> None:
        """Apply what the main app says of users turned down; quarantines those still at the head.

        A renumbered user is placed by the new number, and quarantined if that does not help.
        """
        if checked.unfit or self._unreadable:
            self._spare = min(_MOST_SPARE, max(1, 2 * self._spare))
        if self._is_reading:
            await self._quarantine(self._unreadable, "unreadable")
            self._unreadable = []
        if checked.renumbered:
            self._turned_down += len(checked.renumbered)
            user_ids = [it.user_id for it in checked.renumbered]
            unhelped = await self._refresh(user_ids) | self._renumbered.intersection(user_ids)
            self._renumbered.update(user_ids)
            left = [it for it in checked.renumbered if it.user_id in unhelped]
            await self._quarantine(left, "renumbered")
        if not checked.unfit:
            return
        self._turned_down += len(checked.unfit)
        metrics.PREVENTED_CALLS.inc(len(checked.unfit))
        now = self._clock.now()
        until = now + timedelta(seconds=self._rules.set_aside_seconds)
        user_ids = [it.user_id for it in checked.unfit]
        async with self._database.statements() as tx:
            people = [(it.user_id, it.queue) for it in checked.unfit]
            await handouts.insert_prevented_calls(tx, people, now)
            # Quarantined before the refresh: if that fails, they are still not at the head.
            await handouts.quarantine(tx, user_ids, self._handout_id, until)
        await self._refresh(user_ids)

    async def _refresh(self, user_ids: Sequence[UserId]) -> set[UserId]:
        """Refresh these users; returns those for whom it failed, whatever the reason.

        A change event, or the user's next live check, applies the facts then.
        """
        try:
            return await self._refreshing.refresh(user_ids)
        except ServiceError:
            return set(user_ids)


def _log_hand_out(assignment: Assignment) -> None:
    """Log what the statement of the hand-out has kept for audit."""
    details = {"assignment_id": str(assignment.assignment_id)}
    audit.log(
        assignment.agent_id,
        Action.HANDED_OUT,
        assignment.user_id,
        assignment.started_at,
        details,
    )


def _audit(checked: _Checked, handed_out: Collection[UserId]) -> None:
    """Count and log users handed out whom the check did not find fit; a defect, never expected."""
    fit = {it.user_id for it in checked.fit}
    wrong = sum(user_id not in fit for user_id in handed_out)
    if wrong:
        metrics.WRONG_CALLS.inc(wrong)
        _log.error("handed_out_unfit", extra={"people": wrong})
