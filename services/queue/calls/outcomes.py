"""Outcomes: an agent's report of a call is recorded once, with all that follows from it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from dialler.queue.v1 import queue_pb2

from servicekit import deadline
from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.queue import metrics
from services.queue.calls.callbacks import require_room
from services.queue.calls.held_assignment import (
    is_still_with,
    not_live,
    require_of_agent,
    write_end,
)
from services.queue.calls.once import first_answer
from services.queue.domain import outcomes
from services.queue.domain.amending import CallEffects, ReportEffects
from services.queue.domain.callbacks import Callback
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.outcomes import CallReport
from services.queue.people.apply_facts import FactsApplication
from services.queue.people.placing import (
    Moved,
    kind_details,
    notify_holders,
    object_to_calls,
    write_moved,
)
from services.queue.people.rulebook import Rulebook
from services.queue.people.user_context_client import UserContextClient
from services.queue.reads.figures import QueueFigures
from services.queue.store import (
    agents,
    assignments,
    audit,
    callbacks,
    entries,
    idempotency_records,
    suppressions,
)
from services.queue.store import outcomes as statements
from services.queue.store.amendments import effects_json
from services.queue.store.assignments import Assignment, KeptAttempt
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.store.outcomes import CallReading, LockedCall
from services.queue.store.reading import RECENT_ATTEMPTS, KnownPerson, RecentAttempt
from services.queue.store.suppressions import Suppression
from services.queue.store.writing import together
from services.queue.types import (
    OBJECTIONS,
    Action,
    ContactBlock,
    Ending,
    Queue,
    Reason,
    UserId,
)
from services.queue.wire import messages
from services.queue.wire.requests import FactsUpdate

# Time that must remain to ask the main app once the outcome is durable.
_ANSWER_SECONDS = 0.2

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

# Endings without a report after which the agent may still have been on the phone.
_WITHOUT_THE_AGENT = (Ending.EXPIRED, Ending.FORCED)


@dataclass(frozen=True, slots=True)
class _Call:
    """One report of a call, with the rules and the moment by which it is judged."""

    held: Assignment
    report: CallReport
    placement: Placement
    now: datetime

    @property
    def is_objection(self) -> bool:
        return _objection_of(self.report, self.placement) is not None

    @property
    def is_in_time(self) -> bool:
        """Return whether the call can still be reported: live, or ended late without the agent."""
        if self.held.ending is not None and self.held.ending not in _WITHOUT_THE_AGENT:
            return False
        late = timedelta(seconds=self.placement.rules.assignment.late_outcome_seconds)
        return self.now <= self.held.call_ended_at + late

    def objection(self, lines: Collection[str]) -> Suppression:
        """Return the objection that was heard, to calls on these lines."""
        return Suppression(
            suppression_id=uuid4(),
            user_id=self.held.user_id,
            lines=sorted(lines),
            created_by=self.held.agent_id,
            created_at=self.now,
            notes=self.report.notes,
            kind=_objection_of(self.report, self.placement) or ContactBlock.DO_NOT_CONTACT,
        )


class Outcomes:
    """Records outcomes. What an agent has reported is durable before it is answered."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        facts: FactsApplication,
        user_context: UserContextClient,
        figures: QueueFigures,
        clock: Clock,
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._facts = facts
        self._user_context = user_context
        self._figures = figures
        self._clock = clock

    async def record(
        self, assignment_id: UUID, request: IdempotentRequest, report: CallReport
    ) -> queue_pb2.RecordOutcomeResponse:
        """Record how the call ended and end the assignment, both or neither.

        The same report of the same assignment again, whatever its request id, changes nothing. An
        assignment that expired or was ended by force still takes a report for a while, if no other
        agent has been handed the user. An objection is taken of any assignment of the agent,
        however it ended: when the call can no longer be reported, only the objection is recorded.
        """
        now, placement = self._clock.now(), self._rulebook.placement
        rule = placement.rules.outcomes[report.outcome]
        is_objection = _objection_of(report, placement) is not None
        async with self._database.transaction() as tx:
            if is_objection:
                await suppressions.guard(tx)
            # Whom an objection concerns is seen later: the user may have other numbers by now.
            locked = await statements.lock(
                tx, request, now, assignment_id, with_people=not is_objection
            )
            if locked is None:
                answered = await idempotency_records.find(tx, request)
                first = first_answer(answered, request)
                return queue_pb2.RecordOutcomeResponse.FromString(first)
            call, attempt = await _call(tx, assignment_id, locked, request, report, placement, now)
            is_new = attempt is None or attempt.report != report
            if not is_new:
                response = await self._recorded(tx, call.held)
                await idempotency_records.finish(tx, request, response.SerializeToString())
            elif call.held.ending is Ending.OUTCOME and not call.is_objection:
                raise not_live()
            else:
                is_new, response = await self._write(tx, call, locked.people, request, attempt)
        if is_new:
            metrics.OUTCOMES.labels(report.outcome.name.lower()).inc()
        if rule.live_check_decides:
            return await self._checked(call.held, request, response)
        return response

    async def _write(
        self,
        tx: Transaction,
        call: _Call,
        people: dict[UserId, Entry],
        request: IdempotentRequest,
        attempt: KeptAttempt | None,
    ) -> tuple[bool, queue_pb2.RecordOutcomeResponse]:
        """Record the report and what follows; the flag is False if only an objection was recorded.

        Raises InvalidArgument for a report that the rules refuse, and Conflict for a late one.
        """
        held, now, placement = call.held, call.now, call.placement
        lines = set(held.lines)
        if call.is_objection:
            # The user may have other numbers by now; the guard keeps them unchanged.
            lines |= set(await entries.lines_of(tx, held.user_id))
            people = await entries.lock_sharers(tx, [held.user_id], sorted(lines))
        before = people.get(held.user_id)
        opening = placement.opening(before)
        is_late = before is None or not call.is_in_time or not is_still_with(before, held)
        if is_late and not call.is_objection:
            raise not_live()
        outcomes.check(call.report, placement, opening, now)
        if call.report.callback_at is not None:
            await require_room(tx, held.agent_id, held.user_id, placement.rules)
        if before is None or is_late:
            await _write_objection(tx, call, lines)
            response = await self._recorded(tx, held)
            await idempotency_records.finish(tx, request, response.SerializeToString())
            return False, response
        suppression_id = None
        if call.is_objection:
            made = call.objection(lines)
            if await suppressions.insert(tx, made) is None:
                suppression_id = made.suppression_id
        found = await statements.read(tx, held, [*people.values()], now - placement.calls_kept)
        async with together(tx):
            response = await self._write_call(
                tx, call, people, found, suppression_id, is_counted=attempt is not None
            )
            await idempotency_records.finish(tx, request, response.SerializeToString())
        return True, response

    async def _write_call(
        self,
        tx: Transaction,
        call: _Call,
        people: dict[UserId, Entry],
        found: CallReading,
        suppression_id: UUID | None,
        *,
        is_counted: bool,
    ) -> queue_pb2.RecordOutcomeResponse:
        """Write what a call changes, and return the answer; nothing of it is read back."""
        held, report, now, placement = call.held, call.report, call.now, call.placement
        before = people[held.user_id]
        await assignments.keep_attempt(tx, held, report, now)
        if placement.rules.outcomes[report.outcome].is_conversation:
            await entries.credit_conversions(tx, held.user_id, held.agent_id, held.started_at, now)
        after, effects = await _after_call(tx, call, before, found.callback, is_counted=is_counted)
        effects = replace(effects, suppression_id=suppression_id)
        # The call counts for users who share a line as well.
        statuses = {
            user_id: status.with_call(
                held.user_id, held.lines, report.outcome, now, is_own=user_id == held.user_id
            )
            for user_id, status in found.statuses.items()
        }
        after = placement.with_status(after, statuses[held.user_id], now)
        moved = Moved(before, placement.settled(after, now))
        await write_end(
            tx,
            held,
            Ending.OUTCOME,
            moved,
            now,
            report.outcome,
            state_version=found.state_version,
            report_effects=effects_json(effects),
        )
        sharers = [
            Moved(it, placement.placed(placement.with_status(it, statuses[it.user_id], now), now))
            for it in people.values()
            if it.user_id != held.user_id
        ]
        await write_moved(tx, sharers, now)
        await notify_holders(tx, sharers, now)
        await agents.seen(tx, [held.agent_id], now)
        details = {
            "assignment_id": str(held.assignment_id),
            "outcome": report.outcome.name.lower(),
            **_details(report),
        }
        action, user_ids = Action.OUTCOME_RECORDED, [held.user_id]
        await audit.note(tx, held.agent_id, action, user_ids, now, **details)
        attempts = [RecentAttempt.of(held.agent_id, report, now)]
        attempts = sorted([*attempts, *found.attempts], key=lambda it: it.ended_at, reverse=True)
        person = KnownPerson(moved.after, found.state_version)
        open_callback = effects.open_callback
        return queue_pb2.RecordOutcomeResponse(
            call_state=self._figures.state(person, attempts[:RECENT_ATTEMPTS], open_callback),
            conversion=messages.conversion_number(found.conversion),
        )

    async def _checked(
        self,
        held: Assignment,
        request: IdempotentRequest,
        response: queue_pb2.RecordOutcomeResponse,
    ) -> queue_pb2.RecordOutcomeResponse:
        """Apply the main app's facts of now and answer again; the outcome is durable already."""
        try:
            deadline.require(_ANSWER_SECONDS)
            facts = await self._user_context.refresh([held.user_id])
            await self._facts.apply([FactsUpdate(it) for it in facts])
            async with self._database.transaction() as tx:
                checked = await self._recorded(tx, held)
                await idempotency_records.finish(tx, request, checked.SerializeToString())
        except ServiceError:
            # A change event or the next live check applies the facts.
            return response
        return checked

    async def _recorded(self, tx: Transaction, held: Assignment) -> queue_pb2.RecordOutcomeResponse:
        conversion = await entries.conversion_since(tx, held.user_id, held.started_at)
        return queue_pb2.RecordOutcomeResponse(
            call_state=await self._figures.state_within(tx, held.user_id),
            conversion=messages.conversion_number(conversion),
        )


def _forgotten(assignment_id: UUID, attempt: KeptAttempt, lines: Sequence[str]) -> Assignment:
    """Return what is known of an assignment that was purged, from the attempt that is kept."""
    return Assignment(
        assignment_id=assignment_id,
        agent_id=attempt.agent_id,
        user_id=attempt.user_id,
        queue=Queue.UNSIGNED_USERS,
        reason=Reason.NO_SIGNATURE,
        score=0.0,
        fence=0,
        started_at=LONG_AGO,
        lease_expires_at=LONG_AGO,
        lines=tuple(lines),
        ended_at=LONG_AGO,
        ending=Ending.OUTCOME,
    )


async def _call(
    tx: Transaction,
    assignment_id: UUID,
    locked: LockedCall,
    request: IdempotentRequest,
    report: CallReport,
    placement: Placement,
    now: datetime,
) -> tuple[_Call, KeptAttempt | None]:
    """Return the call that is reported and the attempt that is kept of it, if any.

    An attempt is written together with the end of its assignment, so a live one has none; only an
    objection may have been kept before. It is read once the assignment is locked. Raises NotFound
    and Conflict as `require_of_agent` does.
    """
    held, attempt = locked.assignment, None
    is_objection = _objection_of(report, placement) is not None
    if held is None or held.ended_at is not None or is_objection:
        attempt = await assignments.attempt_of(tx, assignment_id)
    if held is None and attempt is not None and is_objection:
        # The call is kept for longer than its assignment.
        lines = await assignments.attempt_lines(tx, assignment_id)
        held = _forgotten(assignment_id, attempt, lines)
    call = _Call(require_of_agent(held, request.agent_id), report, placement, now)
    return call, attempt


def _objection_of(report: CallReport, placement: Placement) -> ContactBlock | None:
    """Return the kind of the objection that is reported; None when there is none."""
    block = placement.rules.outcomes[report.outcome].block
    return block if block is not None and block & OBJECTIONS else None


def _details(report: CallReport) -> dict[str, str]:
    """Return what the audit has of a report beside its outcome."""
    details = {}
    if report.callback_at is not None:
        details["callback_at"] = report.callback_at.isoformat()
    if report.disposition is not None:
        details["disposition"] = report.disposition
    return details


async def _write_objection(tx: Transaction, call: _Call, lines: set[str]) -> None:
    """Record an objection heard in a call that can no longer be reported."""
    held = call.held
    if held.ending in _WITHOUT_THE_AGENT or held.ending is None:
        # The call was made, and the agent spoke with the user.
        ended_at = held.call_ended_at
        await assignments.keep_attempt(tx, held, call.report, ended_at)
        await entries.credit_conversions(tx, held.user_id, held.agent_id, held.started_at, ended_at)
    made = call.objection(lines)
    await object_to_calls(tx, made, call.placement, call.now)
    details = {"assignment_id": str(held.assignment_id), **kind_details(made)}
    await audit.note(tx, held.agent_id, Action.SUPPRESSED, [held.user_id], call.now, **details)


async def _after_call(
    tx: Transaction, call: _Call, before: Entry, callback: Callback | None, *, is_counted: bool
) -> tuple[Entry, ReportEffects]:
    """Return the user's entry after the call, and the effects of its report.

    Writes the callback that the outcome changes, and the one that it makes.
    """
    held, placement, now = call.held, call.placement, call.now
    if before.callback_id is None:
        callback = None
    result = outcomes.applied(
        call.report, before, held.agent_id, callback, placement, now, is_counted=is_counted
    )
    if result.callback is not None and result.callback is not callback:
        await callbacks.update(tx, result.callback)
        metrics.CALLBACKS.labels(result.callback.state.name.lower()).inc()
    entry, made = result.entry, None
    if result.new_callback is not None:
        made = result.new_callback.made(uuid4(), held.user_id, held.agent_id, now)
        await callbacks.insert(tx, made)
        metrics.CALLBACKS.labels("scheduled").inc()
        entry = entry.with_callback(made)
    effects = ReportEffects(
        before=CallEffects.of(before),
        after=CallEffects.of(entry),
        is_counted=is_counted,
        callback_before=callback,
        callback_after=result.callback,
        made=made,
    )
    return entry, effects
