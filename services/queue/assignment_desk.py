"""What agents do with the people they hold, and what happens when they no longer answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2

from servicekit import deadline, telemetry
from servicekit.clock import Clock
from servicekit.errors import Conflict, InvalidArgument, NotFound, ServiceError
from services.queue import messages, metrics
from services.queue.domain import outcomes
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.outcomes import CallReport
from services.queue.domain.terms import AgentId, Ending, Outcome
from services.queue.facts_application import FactsApplication
from services.queue.figures import Figures
from services.queue.main_app import MainApp
from services.queue.messages import FactsUpdate
from services.queue.store import assignments, entries, outbox
from services.queue.store.assignments import Answered, Assignment, Request
from services.queue.store.database import Database, Transaction

# Left of the request's time when the facts have been asked for after the outcome is safe.
_ANSWER_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How many assignments ended because their lease ran out."""

    expired: int
    has_more: bool


class AssignmentDesk:
    """Leases, releases and outcomes. Every change is durable before it is answered."""

    def __init__(
        self,
        database: Database,
        placement: Placement,
        facts: FactsApplication,
        main_app: MainApp,
        figures: Figures,
        clock: Clock,
        posted: Callable[[], None],
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._placement = placement
        self._facts = facts
        self._main_app = main_app
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
        """Extend the lease; raises NotFound or Conflict as `_require` does."""
        now = self._clock.now()
        rules = self._placement.rules.assignment
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
                _require(await assignments.lock(tx, assignment_id), agent_id, now)
        if extended is None:
            raise _not_live()
        return extended

    async def release(
        self, assignment_id: UUID, request: Request, *, is_skipped: bool
    ) -> queue_pb2.ReleaseAssignmentResponse:
        """Give the person back without a call."""
        now = self._clock.now()
        async with self._database.transaction() as tx:
            answered = await assignments.begin_request(tx, request, now)
            if answered is not None:
                answer = require_same(answered, request)
                return queue_pb2.ReleaseAssignmentResponse.FromString(answer)
            held = _require(await assignments.lock(tx, assignment_id), request.agent_id, now)
            give_up = outcomes.skipped if is_skipped else _returned
            await self._end(tx, held, Ending.RELEASED, now, give_up)
            response = queue_pb2.ReleaseAssignmentResponse(
                call_state=await self._call_state(tx, held)
            )
            await assignments.finish_request(tx, request, response.SerializeToString())
        self._posted()
        return response

    async def record(
        self, assignment_id: UUID, request: Request, report: CallReport
    ) -> queue_pb2.RecordOutcomeResponse:
        """Record how the call ended and end the assignment, both or neither."""
        now = self._clock.now()
        async with self._database.transaction() as tx:
            answered = await assignments.begin_request(tx, request, now)
            if answered is not None:
                answer = require_same(answered, request)
                return queue_pb2.RecordOutcomeResponse.FromString(answer)
            # After the look-up, since a time that lay ahead at first may have passed by a repeat.
            outcomes.check(report, self._placement, now)
            held = _require(await assignments.lock(tx, assignment_id), request.agent_id, now)
            await self._end_with(tx, held, report, now)
            response = await self._recorded(tx, held)
            await assignments.finish_request(tx, request, response.SerializeToString())
        metrics.OUTCOMES.labels(report.outcome.name.lower()).inc()
        self._posted()
        if self._placement.rules.outcomes[report.outcome].live_check_decides:
            return await self._checked(held, request, response)
        return response

    async def sweep_once(self, now: datetime) -> SweepResult:
        """End a batch of assignments whose lease has run out."""
        async with self._database.transaction() as tx:
            expired = await assignments.lock_expired(tx, now, limit=_SWEEP_BATCH)
            for held in expired:
                await self._end(tx, held, Ending.EXPIRED, now, _returned)
        if expired:
            self._posted()
        return SweepResult(len(expired), has_more=len(expired) == _SWEEP_BATCH)

    async def expire(self, assignment_ids: Sequence[UUID]) -> None:
        """End those of the assignments whose lease has run out, without waiting for the sweep."""
        now = self._clock.now()
        for assignment_id in assignment_ids:
            # One at a time: people are locked in the order of their ids, or alone.
            async with self._database.transaction() as tx:
                held = await assignments.lock(tx, assignment_id)
                if held is not None and held.ended_at is None and not held.is_live(now):
                    await self._end(tx, held, Ending.EXPIRED, now, _returned)
        self._posted()

    async def _end_with(
        self, tx: Transaction, held: Assignment, report: CallReport, now: datetime
    ) -> None:
        def after_call(entry: Entry, placement: Placement, now: datetime) -> Entry:
            return outcomes.applied(report, entry, held.agent_id, placement, now)

        await assignments.insert_attempt(tx, held, report, now)
        await self._end(tx, held, Ending.OUTCOME, now, after_call, report.outcome)

    async def _end(
        self,
        tx: Transaction,
        held: Assignment,
        ending: Ending,
        now: datetime,
        change: Callable[[Entry, Placement, datetime], Entry],
        outcome: Outcome | None = None,
    ) -> None:
        await assignments.end(tx, [held.assignment_id], ending, now)
        metrics.ENDINGS.labels(ending.name.lower()).inc()
        before = (await entries.lock(tx, [held.user_id])).get(held.user_id)
        if before is None or before.fence != held.fence:
            return
        after = change(before, self._placement, now)
        await entries.update(tx, [after])
        kinds = [event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED]
        if outcome is not None:
            kinds.insert(0, event_pb2.EVENT_TYPE_OUTCOME_RECORDED)
        traceparent = telemetry.inject()
        events = [
            messages.event(
                kind,
                before,
                after,
                now,
                traceparent,
                agent_id=held.agent_id,
                assignment_id=held.assignment_id,
                outcome=outcome,
            )
            for kind in kinds
        ]
        await outbox.post(tx, events)

    async def _checked(
        self, held: Assignment, request: Request, response: queue_pb2.RecordOutcomeResponse
    ) -> queue_pb2.RecordOutcomeResponse:
        """Ask the main app whether the call has led to anything; the outcome is safe already."""
        try:
            deadline.require(_ANSWER_SECONDS)
            facts = await self._main_app.refresh([held.user_id])
            await self._facts.apply([FactsUpdate(it) for it in facts])
            async with self._database.transaction() as tx:
                checked = await self._recorded(tx, held)
                await assignments.finish_request(tx, request, checked.SerializeToString())
        except ServiceError:
            # A change event or the next live check will tell.
            return response
        return checked

    async def _recorded(self, tx: Transaction, held: Assignment) -> queue_pb2.RecordOutcomeResponse:
        conversion = await entries.conversion_since(tx, held.user_id, held.started_at)
        return queue_pb2.RecordOutcomeResponse(
            call_state=await self._call_state(tx, held),
            conversion=messages.conversion_number(conversion),
        )

    async def _call_state(self, tx: Transaction, held: Assignment) -> call_state_pb2.CallState:
        states = await self._figures.states_within(tx, [held.user_id])
        return states.get(held.user_id) or call_state_pb2.CallState(user_id=held.user_id)


_SWEEP_BATCH = 100


def require_same(answered: Answered, request: Request) -> bytes:
    """Return the first answer; raises InvalidArgument (REQUEST_ID_REUSED) for another request."""
    same = (answered.method, answered.payload_hash) == (request.method, request.payload_hash)
    if not same or answered.response is None:
        raise InvalidArgument(
            "REQUEST_ID_REUSED", "the request id was used for another request before"
        )
    return answered.response


def _require(held: Assignment | None, agent_id: AgentId, now: datetime) -> Assignment:
    """Return the agent's live assignment; raises NotFound or Conflict."""
    if held is None:
        raise NotFound("ASSIGNMENT_NOT_FOUND", "there is no such assignment")
    if held.agent_id != agent_id:
        raise Conflict("ASSIGNMENT_NOT_YOURS", "another agent was given this assignment")
    if not held.is_live(now):
        raise _not_live()
    return held


def _not_live() -> Conflict:
    return Conflict("ASSIGNMENT_NOT_LIVE", "the assignment has ended")


def _returned(entry: Entry, placement: Placement, now: datetime) -> Entry:
    return placement.settled(entry, now)
