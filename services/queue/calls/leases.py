"""Leases: how long an agent holds a user, and how an assignment ends without a report."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import FailedPrecondition, NotFound, ServiceError, Unavailable
from services.queue import metrics
from services.queue.calls.held_assignment import (
    is_still_with,
    no_such_assignment,
    not_live,
    require_live,
    write_end,
)
from services.queue.calls.once import once
from services.queue.domain import outcomes
from services.queue.domain.callbacks import missed
from services.queue.domain.entries import Entry, Placement
from services.queue.people.placing import (
    Moved,
    contact_statuses,
    place_by_status,
)
from services.queue.people.rulebook import Rulebook
from services.queue.reads.figures import QueueFigures
from services.queue.store import agents, assignments, audit, callbacks, entries
from services.queue.store.assignments import Assignment
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import Action, AgentId, Direction, Ending, Queue, UserId

_SWEEP_BATCH = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How many assignments ended because their lease ran out."""

    expired: int
    has_more: bool


class Leases:
    """Extends, releases and expires assignments. Every change is durable before it is answered."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        figures: QueueFigures,
        clock: Clock,
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._figures = figures
        self._clock = clock

    async def current(self, agent_id: AgentId) -> Assignment:
        """Return the agent's live assignment; raises NotFound (NO_LIVE_ASSIGNMENT)."""
        async with self._database.statements() as tx:
            held = await assignments.live_of_agent(tx, agent_id)
        if held is None or not held.is_live(self._clock.now()):
            raise NotFound("NO_LIVE_ASSIGNMENT", "the agent holds no user")
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
        self, assignment_id: UUID, request: IdempotentRequest, *, is_skipped: bool
    ) -> queue_pb2.ReleaseAssignmentResponse:
        """End the agent's assignment without a call.

        Raises NotFound or Conflict as `require_live` does, and FailedPrecondition (SKIP_LIMIT) when
        the agent has skipped as many people as the rules allow in an hour.
        """
        now, placement = self._clock.now(), self._rulebook.placement
        agent_id = request.agent_id

        async def release(tx: Transaction) -> queue_pb2.ReleaseAssignmentResponse:
            held = require_live(await assignments.lock(tx, assignment_id), agent_id, now)
            # Only a person whom the queue handed out can be skipped.
            is_skip = is_skipped and held.direction is Direction.OUTBOUND
            most = placement.rules.agents.skips_per_hour
            if is_skip and most is not None:
                skipped_by = await audit.skips_last_hour(tx, now, agent_id)
                if skipped_by.get(agent_id, 0) >= most:
                    raise FailedPrecondition(
                        "SKIP_LIMIT",
                        f"no more than {most} people may be skipped in an hour",
                        skips_per_hour=str(most),
                    )
            ending = Ending.SKIPPED if is_skip else Ending.RELEASED
            await self._end(tx, held, ending, placement, now)
            action = Action.SKIPPED if is_skip else Action.RELEASED
            details = {"assignment_id": str(assignment_id)}
            await audit.note(tx, agent_id, action, [held.user_id], now, **details)
            skipped = held.user_id if is_skip else None
            await agents.seen(tx, [agent_id], now, skipped)
            state = await self._figures.state_within(tx, held.user_id)
            return queue_pb2.ReleaseAssignmentResponse(call_state=state)

        response = queue_pb2.ReleaseAssignmentResponse
        return await once(self._database, request, now, response, release)

    async def force_release(
        self, assignment_id: UUID, request: IdempotentRequest, notes: str | None
    ) -> queue_pb2.ForceReleaseAssignmentResponse:
        """End an agent's assignment; the agent may still report the call for a while.

        Raises NotFound (ASSIGNMENT_NOT_FOUND) or Conflict (ASSIGNMENT_NOT_LIVE).
        """
        now, placement = self._clock.now(), self._rulebook.placement

        async def release(tx: Transaction) -> queue_pb2.ForceReleaseAssignmentResponse:
            held = await assignments.lock(tx, assignment_id)
            if held is None:
                raise no_such_assignment()
            if held.ended_at is not None:
                raise not_live()
            await self._end(tx, held, Ending.FORCED, placement, now, notes)
            details = {"agent_id": held.agent_id, "assignment_id": str(assignment_id)}
            action, user_ids = Action.FORCED_RELEASE, [held.user_id]
            await audit.note(tx, request.agent_id, action, user_ids, now, **details)
            state = await self._figures.state_within(tx, held.user_id)
            return queue_pb2.ForceReleaseAssignmentResponse(call_state=state)

        response = queue_pb2.ForceReleaseAssignmentResponse
        return await once(self._database, request, now, response, release)

    async def sweep_once(self, now: datetime) -> SweepResult:
        """End a batch of assignments whose lease has run out."""
        async with self._database.statements() as tx:
            await assignments.free_ended_lines(tx)
            expired = await assignments.expired(tx, now, limit=_SWEEP_BATCH)
        await self.expire(expired)
        return SweepResult(len(expired), has_more=len(expired) == _SWEEP_BATCH)

    async def expire(self, assignment_ids: Sequence[UUID]) -> None:
        """End the assignments among these whose lease has run out, each in its own transaction.

        A transaction locks the users who share a line in the order of their ids, so it takes one
        assignment only. An assignment that cannot be ended is logged, and the others still end.
        """
        now, placement = self._clock.now(), self._rulebook.placement
        for assignment_id in assignment_ids:
            try:
                async with self._database.transaction() as tx:
                    held = await assignments.lock(tx, assignment_id)
                    if held is not None and held.ended_at is None and not held.is_live(now):
                        await self._end(tx, held, Ending.EXPIRED, placement, now)
            except Unavailable:
                raise
            except ServiceError as error:
                extra = {"assignment_id": str(assignment_id), "error": str(error)}
                _log.error("assignment_not_ended", extra=extra)

    async def enter_lost_call(
        self, assignment_id: UUID, agent_id: AgentId, user_id: UserId, began_at: datetime
    ) -> bool:
        """Enter a call that a restored database lacks, as one that ends now without a report.

        The agent may still report it. Returns False for an assignment that is known; raises
        NotFound (USER_UNKNOWN).
        """
        now, placement = self._clock.now(), self._rulebook.placement
        async with self._database.transaction() as tx:
            if await assignments.lock(tx, assignment_id) is not None:
                return False
            entry = (await entries.lock(tx, [user_id])).get(user_id)
            if entry is None:
                raise NotFound("USER_UNKNOWN", "the queue knows no such person")
            lost = Assignment(
                assignment_id=assignment_id,
                agent_id=agent_id,
                user_id=user_id,
                queue=entry.queue or entry.eligible_queue or Queue.UNSIGNED_USERS,
                reason=entry.reason,
                score=0.0,
                fence=entry.fence,
                started_at=began_at,
                lease_expires_at=now,
                lines=entry.lines,
                heartbeat_at=began_at,
                ended_at=now,
                ending=Ending.EXPIRED,
            )
            await assignments.insert(tx, lost)
            await self._end(tx, lost, Ending.EXPIRED, placement, now)
            details = {"assignment_id": str(assignment_id)}
            await audit.note(tx, agent_id, Action.HANDED_OUT, [user_id], began_at, **details)
        return True

    async def _end(
        self,
        tx: Transaction,
        held: Assignment,
        ending: Ending,
        placement: Placement,
        now: datetime,
        notes: str | None = None,
    ) -> None:
        """End a locked assignment without a report, and place its user.

        An agent that has sent heartbeats may have been on the phone: the assignment counts as a
        call, of the user and of all users who share a line, until the agent reports it.
        """
        is_call = ending in (Ending.EXPIRED, Ending.FORCED) and held.heartbeat_at is not None
        lines = held.lines if is_call else ()
        people = await entries.lock_sharers(tx, [held.user_id], lines)
        ended_at = min(now, held.lease_expires_at)
        if is_call:
            await assignments.keep_attempt(tx, held, None, ended_at)
            metrics.UNREPORTED_CALLS.inc()
        before = people.pop(held.user_id, None)
        if before is None or not is_still_with(before, held):
            await write_end(tx, held, ending, None, now, notes=notes)
        else:
            after = before
            if ending is Ending.SKIPPED:
                after = await _skipped(tx, held, before, placement, now)
            if is_call:
                statuses = await contact_statuses(tx, [before], placement, now)
                called = outcomes.called(after, ended_at)
                after = placement.with_status(called, statuses[held.user_id], now)
            moved = Moved(before, placement.settled(after, now))
            await write_end(tx, held, ending, moved, now, notes=notes)
        await place_by_status(tx, list(people.values()), placement, now)


async def _skipped(
    tx: Transaction, held: Assignment, before: Entry, placement: Placement, now: datetime
) -> Entry:
    """Return the entry after a skip: its callback is due again later, else its score is raised."""
    if held.queue is not Queue.CALLBACKS:
        return outcomes.skipped(before, placement, now)
    callback = (await callbacks.open_of(tx, [held.user_id])).get(held.user_id)
    if callback is None or not callback.is_due(now):
        return before
    callback = missed(callback, "SKIPPED", placement.rules, placement.opening(before), now)
    await callbacks.update(tx, callback)
    metrics.CALLBACKS.labels("skipped").inc()
    return before.with_callback(callback)
