"""Leases: how long an agent holds somebody, and what happens when they give them back or vanish."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import NotFound
from services.queue import metrics
from services.queue.domain import outcomes
from services.queue.domain.callbacks import missed
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.terms import Action, AgentId, Ending, Queue
from services.queue.figures import Figures
from services.queue.rulebook import Rulebook
from services.queue.store import agents, answers, assignments, audit, callbacks, entries
from services.queue.store.answers import Request
from services.queue.store.assignments import Assignment
from services.queue.store.database import Database, Transaction
from services.queue.writing import (
    Moved,
    is_still_with,
    no_such_assignment,
    not_live,
    require_live,
    require_same,
    write_end,
)

_SWEEP_BATCH = 100


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How many assignments ended because their lease ran out."""

    expired: int
    has_more: bool


class AssignmentDesk:
    """Leases and releases. Every change is durable before it is answered."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        figures: Figures,
        clock: Clock,
        posted: Callable[[], None],
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._rulebook = rulebook
        self._figures = figures
        self._clock = clock
        self._posted = posted

    async def current(self, agent_id: AgentId) -> Assignment:
        """Return what the agent holds; raises NotFound (NO_LIVE_ASSIGNMENT)."""
        async with self._database.statements() as tx:
            held = await assignments.live_of_agent(tx, agent_id)
        if held is None or not held.is_live(self._clock.now()):
            raise NotFound("NO_LIVE_ASSIGNMENT", "the agent holds nobody")
        return held

    async def extend(self, assignment_id: UUID, agent_id: AgentId) -> Assignment:
        """Extend the lease; raises NotFound or Conflict as `require_live` does."""
        now = self._clock.now()
        rules = self._rulebook.rules.assignment
        async with self._database.statements() as tx:
            extended = await assignments.extend(
                tx,
                assignment_id,
                agent_id,
                now=now,
                until=now + timedelta(seconds=rules.lease_seconds),
                longest_seconds=rules.longest_seconds,
            )
            if extended is None:
                require_live(await assignments.lock(tx, assignment_id), agent_id, now)
            await agents.seen(tx, [agent_id], now)
        if extended is None:
            raise not_live()
        return extended

    async def release(
        self, assignment_id: UUID, request: Request, *, is_skipped: bool
    ) -> queue_pb2.ReleaseAssignmentResponse:
        """Give the person back without a call."""
        now, placement = self._clock.now(), self._rulebook.placement
        agent_id = request.agent_id
        async with self._database.transaction() as tx:
            answered = await answers.begin_request(tx, request, now)
            if answered is not None:
                answer = require_same(answered, request)
                return queue_pb2.ReleaseAssignmentResponse.FromString(answer)
            held = require_live(await assignments.lock(tx, assignment_id), agent_id, now)
            ending = Ending.SKIPPED if is_skipped else Ending.RELEASED
            await self._end(tx, held, ending, placement, now)
            action = Action.SKIPPED if is_skipped else Action.RELEASED
            await _note(tx, agent_id, action, held, now)
            skipped = held.user_id if is_skipped else None
            await agents.seen(tx, [agent_id], now, skipped)
            response = queue_pb2.ReleaseAssignmentResponse(
                call_state=await self._figures.state_within(tx, held.user_id)
            )
            await answers.finish_request(tx, request, response.SerializeToString())
        self._posted()
        return response

    async def force_release(
        self, assignment_id: UUID, request: Request
    ) -> queue_pb2.ForceReleaseAssignmentResponse:
        """End somebody else's assignment; the agent may still report the call for a while."""
        now, placement = self._clock.now(), self._rulebook.placement
        async with self._database.transaction() as tx:
            answered = await answers.begin_request(tx, request, now)
            if answered is not None:
                answer = require_same(answered, request)
                return queue_pb2.ForceReleaseAssignmentResponse.FromString(answer)
            held = await assignments.lock(tx, assignment_id)
            if held is None:
                raise no_such_assignment()
            if held.ended_at is not None:
                raise not_live()
            await self._end(tx, held, Ending.FORCED, placement, now)
            actor_id = request.agent_id
            await _note(tx, actor_id, Action.FORCED_RELEASE, held, now, agent_id=held.agent_id)
            response = queue_pb2.ForceReleaseAssignmentResponse(
                call_state=await self._figures.state_within(tx, held.user_id)
            )
            await answers.finish_request(tx, request, response.SerializeToString())
        self._posted()
        return response

    async def sweep_once(self, now: datetime) -> SweepResult:
        """End a batch of assignments whose lease has run out."""
        placement = self._rulebook.placement
        async with self._database.transaction() as tx:
            expired = await assignments.lock_expired(tx, now, limit=_SWEEP_BATCH)
            for held in expired:
                await self._end(tx, held, Ending.EXPIRED, placement, now)
        if expired:
            self._posted()
        return SweepResult(len(expired), has_more=len(expired) == _SWEEP_BATCH)

    async def expire(self, assignment_ids: Sequence[UUID]) -> None:
        """End those of the assignments whose lease has run out, without waiting for the sweep."""
        now, placement = self._clock.now(), self._rulebook.placement
        for assignment_id in assignment_ids:
            # One at a time: people are locked in the order of their ids, or alone.
            async with self._database.transaction() as tx:
                held = await assignments.lock(tx, assignment_id)
                if held is not None and held.ended_at is None and not held.is_live(now):
                    await self._end(tx, held, Ending.EXPIRED, placement, now)
        self._posted()

    async def _end(
        self,
        tx: Transaction,
        held: Assignment,
        ending: Ending,
        placement: Placement,
        now: datetime,
    ) -> None:
        before = (await entries.lock(tx, [held.user_id])).get(held.user_id)
        if before is None or not is_still_with(before, held):
            await write_end(tx, held, ending, None, now)
            return
        after = before
        if ending is Ending.SKIPPED:
            after = await _skipped(tx, held, before, placement, now)
        await write_end(tx, held, ending, Moved(before, placement.settled(after, now)), now)


async def _skipped(
    tx: Transaction, held: Assignment, before: Entry, placement: Placement, now: datetime
) -> Entry:
    """A skipped callback is tried again later; anybody else goes to the back of their score."""
    if held.queue is not Queue.CALLBACKS:
        return outcomes.skipped(before, placement, now)
    callback = (await callbacks.open_of(tx, [held.user_id])).get(held.user_id)
    if callback is None or not callback.is_due(now):
        return before
    callback = missed(callback, "SKIPPED", placement.rules, now)
    await callbacks.update(tx, callback)
    metrics.CALLBACKS.labels("skipped").inc()
    return before.with_callback(callback)


async def _note(
    tx: Transaction,
    actor_id: str,
    action: Action,
    held: Assignment,
    now: datetime,
    **details: str,
) -> None:
    details["assignment_id"] = str(held.assignment_id)
    await audit.note(tx, actor_id, action, [held.user_id], now, **details)
