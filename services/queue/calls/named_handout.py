"""Hands an agent the person that it names: one who rings us, or one that it chooses to phone."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from dialler.model.v1 import event_pb2
from dialler.queue.v1 import queue_pb2

from servicekit import telemetry
from servicekit.clock import Clock
from servicekit.errors import (
    Conflict,
    FailedPrecondition,
    Internal,
    NotFound,
    PermissionDenied,
)
from services.queue import metrics
from services.queue.calls.leases import Leases
from services.queue.calls.once import once
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.pauses import QueuePause
from services.queue.people.apply_facts import FactsApplication
from services.queue.people.placing import contact_statuses
from services.queue.people.rulebook import Rulebook
from services.queue.people.user_context_client import UserContextClient
from services.queue.store import agents, assignments, audit, entries, outbox, pauses, suppressions
from services.queue.store.assignments import Assignment
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import Action, AgentId, Direction, Queue, State, UserId
from services.queue.wire import messages
from services.queue.wire.requests import FactsUpdate


class NamedHandout:
    """Assigns the person that the request names, read from the main app within the request."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        facts: FactsApplication,
        user_context: UserContextClient,
        leases: Leases,
        clock: Clock,
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._facts = facts
        self._user_context = user_context
        self._leases = leases
        self._clock = clock

    async def hand_out(
        self,
        request: IdempotentRequest,
        user_id: UserId,
        direction: Direction,
        *,
        is_supervisor: bool,
    ) -> queue_pb2.AssignUserResponse:
        """Return the agent's assignment of that person.

        No rule of calls forbids a person who rang us. A person chosen to be phoned must be one who
        could be handed out now: what forbids a call forbids this one, whatever the order of the
        queue. Raises Conflict (PERSON_HELD, LINE_IN_CALL, AGENT_HOLDS_ANOTHER; CLAIM_ENDED for a
        repeat), FailedPrecondition (USER_NOT_CALLABLE), PermissionDenied (MANUAL_NOT_ALLOWED),
        NotFound (USER_UNKNOWN) and Unavailable (MAIN_APP_UNAVAILABLE).
        """
        placement = self._rulebook.placement
        is_chosen = direction is Direction.MANUAL
        if is_chosen and not is_supervisor and not placement.rules.agents.may_choose:
            raise PermissionDenied("MANUAL_NOT_ALLOWED", "only supervisors choose whom to phone")
        await self._expire_lapsed(request.agent_id, user_id)
        await self._refresh(user_id)
        begun: list[Assignment] = []

        async def begin(tx: Transaction) -> queue_pb2.AssignUserResponse:
            now = self._clock.now()
            held = await assignments.live_of_agent(tx, request.agent_id)
            if held is not None and held.user_id != user_id:
                raise Conflict(
                    "AGENT_HOLDS_ANOTHER",
                    "the agent holds another person: report that call or release the person",
                    assignment_id=str(held.assignment_id),
                )
            if held is None:
                held = await _begun(tx, request.agent_id, user_id, direction, placement, now)
                begun.append(held)
            return queue_pb2.AssignUserResponse(
                assignment=messages.assignment_message(held), already_held=not begun
            )

        response = await once(
            self._database,
            request,
            self._clock.now(),
            queue_pb2.AssignUserResponse,
            begin,
            lambda: metrics.CLAIMS.labels(direction.name.lower()).inc(len(begun)),
            suppressions.guard_shared,
        )
        if not begun:
            await self._require_current(request.agent_id, response)
        return response

    async def _require_current(
        self, agent_id: AgentId, response: queue_pb2.AssignUserResponse
    ) -> None:
        """Raise Conflict (CLAIM_ENDED) unless the agent still holds what was answered."""
        async with self._database.statements() as tx:
            held = await assignments.live_of_agent(tx, agent_id)
        is_live = held is not None and held.is_live(self._clock.now())
        if not is_live or str(held and held.assignment_id) != response.assignment.assignment_id:
            raise Conflict(
                "CLAIM_ENDED", "what this request was handed has ended; use a new request id"
            )

    async def _expire_lapsed(self, agent_id: AgentId, user_id: UserId) -> None:
        """End assignments in the way whose lease has run out, as the next sweep would."""
        async with self._database.statements() as tx:
            lines = await entries.lines_of(tx, user_id)
            of_agent = await assignments.live_of_agent(tx, agent_id)
            of_person = await assignments.holder_of(tx, user_id, lines)
        now = self._clock.now()
        found = [it for it in (of_agent, of_person) if it is not None and not it.is_live(now)]
        await self._leases.expire([it.assignment_id for it in found])

    async def _refresh(self, user_id: UserId) -> None:
        """Apply the main app's present facts of the person, whom the queue may not have known."""
        facts = await self._user_context.refresh([user_id])
        if not any(it.exists for it in facts):
            raise NotFound("USER_UNKNOWN", "the main app has no such person")
        await self._facts.apply([FactsUpdate(it) for it in facts])


async def _begun(
    tx: Transaction,
    agent_id: AgentId,
    user_id: UserId,
    direction: Direction,
    placement: Placement,
    now: datetime,
) -> Assignment:
    """Write the assignment and all that comes with it; raises what `hand_out` does."""
    before = (await entries.lock(tx, [user_id])).get(user_id)
    if before is None:
        raise Internal("USER_NOT_ENTERED", "the person was deleted meanwhile")
    holder = await assignments.holder_of(tx, user_id, before.lines)
    if holder is not None:
        raise _held_elsewhere(holder, user_id)
    status = (await contact_statuses(tx, [before], placement, now))[user_id]
    placed = placement.settled(placement.with_status(before, status, now), now)
    block = placement.contact_block(placed)
    if direction is Direction.MANUAL:
        paused = await pauses.in_force(tx, now)
        _require_callable(placed, placement, paused, now)
    assignment = Assignment(
        assignment_id=uuid4(),
        agent_id=agent_id,
        user_id=user_id,
        queue=placed.queue or placed.open_case_queue or Queue.UNSIGNED_USERS,
        reason=block or placed.reason,
        score=placement.score(placed, now),
        fence=placed.fence + 1,
        started_at=now,
        lease_expires_at=now + timedelta(seconds=placement.rules.assignment.lease_seconds),
        lines=placed.lines,
        direction=direction,
    )
    if not await assignments.insert(tx, assignment):
        # A hand-out, or the call of another person with the number, was quicker.
        raise Conflict("HANDED_OUT_MEANWHILE", "the agent or the person is in a call by now")
    after = placed._replace(
        state=State.ASSIGNED,
        ready_since=None,
        fence=assignment.fence,
        agent_id=agent_id,
        assignment_id=assignment.assignment_id,
    )
    await entries.update(tx, [after])
    kind, traceparent = event_pb2.EVENT_TYPE_ASSIGNMENT_STARTED, telemetry.inject()
    await outbox.post(tx, [messages.event(kind, before, after, now, traceparent)])
    details = {
        "assignment_id": str(assignment.assignment_id),
        "direction": direction.name.lower(),
        **({} if block is None else {"contact_block": str(block)}),
    }
    await audit.note(tx, agent_id, Action.HANDED_OUT, [user_id], now, **details)
    await agents.seen(tx, [agent_id], now)
    return assignment


def _held_elsewhere(holder: Assignment, user_id: UserId) -> Conflict:
    if holder.user_id == user_id:
        reason, words = "PERSON_HELD", "another agent holds the person"
    else:
        reason, words = "LINE_IN_CALL", "an agent holds another person with one of the numbers"
    return Conflict(reason, words, agent_id=holder.agent_id)


def _require_callable(
    placed: Entry, placement: Placement, paused: Sequence[QueuePause], now: datetime
) -> None:
    """Raise FailedPrecondition unless the person could be handed out now at the head of a queue."""
    cause: str | None = None
    if placed.state is not State.READY:
        cause = placed.reason if placed.hold is None else placed.hold.name
    elif not placement.calling_hours.are_open(now, placed.time_zone):
        cause = "CALLING_HOURS"
    elif any(it.covers(placed.queue) for it in paused):
        cause = "PAUSED"
    if cause is not None:
        raise FailedPrecondition(
            "USER_NOT_CALLABLE", "the person may not be phoned now", cause=cause
        )
