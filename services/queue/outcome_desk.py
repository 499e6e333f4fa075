"""What agents report of their calls: kept once, with all that follows from it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from dialler.queue.v1 import queue_pb2

from servicekit import deadline
from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.queue import messages, metrics
from services.queue.domain import outcomes
from services.queue.domain.callbacks import Callback
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.outcomes import CallReport
from services.queue.domain.terms import Action, Block, CallbackState, Ending, PhoneBlock
from services.queue.facts_application import FactsApplication
from services.queue.figures import Figures
from services.queue.main_app import MainApp
from services.queue.requests import FactsUpdate
from services.queue.rulebook import Rulebook
from services.queue.store import (
    agents,
    answers,
    assignments,
    audit,
    callbacks,
    entries,
    suppressions,
)
from services.queue.store.answers import Request
from services.queue.store.assignments import Assignment
from services.queue.store.database import Database, Transaction
from services.queue.store.suppressions import Suppression
from services.queue.writing import (
    Moved,
    is_still_with,
    not_live,
    require_of_agent,
    require_same,
    write_end,
    write_moved,
)

# Left of the request's time when the facts have been asked for after the outcome is safe.
_ANSWER_SECONDS = 0.2

# How an assignment may have ended without the agent, who may have been on the phone all the same.
_WITHOUT_THE_AGENT = (Ending.EXPIRED, Ending.FORCED)


@dataclass(frozen=True, slots=True)
class _Call:
    """One report of a call, with the rules and the moment it is judged by."""

    held: Assignment
    report: CallReport
    placement: Placement
    now: datetime

    @property
    def block(self) -> Block | None:
        return self.placement.rules.outcomes[self.report.outcome].block


class OutcomeDesk:
    """Records outcomes. What an agent has reported is durable before it is answered."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        facts: FactsApplication,
        main_app: MainApp,
        figures: Figures,
        clock: Clock,
        posted: Callable[[], None],
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._rulebook = rulebook
        self._facts = facts
        self._main_app = main_app
        self._figures = figures
        self._clock = clock
        self._posted = posted

    async def record(
        self, assignment_id: UUID, request: Request, report: CallReport
    ) -> queue_pb2.RecordOutcomeResponse:
        """Record how the call ended and end the assignment, both or neither.

        The same report of the same assignment again, whatever its request id, changes nothing. An
        assignment that ended without its agent still takes a report for a while, if nobody else
        has been handed the person.
        """
        now, placement = self._clock.now(), self._rulebook.placement
        rule = placement.rules.outcomes[report.outcome]
        async with self._database.transaction() as tx:
            if rule.block is Block.DO_NOT_CONTACT:
                await suppressions.guard(tx)
            answered = await answers.begin_request(tx, request, now)
            if answered is not None:
                answer = require_same(answered, request)
                return queue_pb2.RecordOutcomeResponse.FromString(answer)
            locked = await assignments.lock(tx, assignment_id)
            held = require_of_agent(locked, request.agent_id)
            is_new = not await _is_repeated(tx, held, report)
            if is_new:
                # Not for a repeat: a time that lay ahead at first may have passed by then.
                outcomes.check(report, placement, now)
                await _write(tx, _Call(held, report, placement, now))
            response = await self._recorded(tx, held)
            await answers.finish_request(tx, request, response.SerializeToString())
        if is_new:
            metrics.OUTCOMES.labels(report.outcome.name.lower()).inc()
        self._posted()
        if rule.live_check_decides:
            return await self._checked(held, request, response)
        return response

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
                await answers.finish_request(tx, request, checked.SerializeToString())
        except ServiceError:
            # A change event or the next live check will tell.
            return response
        return checked

    async def _recorded(self, tx: Transaction, held: Assignment) -> queue_pb2.RecordOutcomeResponse:
        conversion = await entries.conversion_since(tx, held.user_id, held.started_at)
        return queue_pb2.RecordOutcomeResponse(
            call_state=await self._figures.state_within(tx, held.user_id),
            conversion=messages.conversion_number(conversion),
        )


async def _is_repeated(tx: Transaction, held: Assignment, report: CallReport) -> bool:
    """Return whether this very report was recorded; raises Conflict if another one was."""
    if held.ending is not Ending.OUTCOME:
        return False
    if await assignments.attempt_of(tx, held.assignment_id) != report:
        raise not_live()
    return True


async def _write(tx: Transaction, call: _Call) -> None:
    """Keep the report and do what follows from it; raises Conflict when it comes too late."""
    held, now = call.held, call.now
    _require_in_time(call)
    people = await entries.lock_sharers(tx, held.user_id, held.phone_e164)
    before = people.get(held.user_id)
    if before is None or not is_still_with(before, held):
        raise not_live()
    await assignments.insert_attempt(tx, held, call.report, now)
    after = await _after_call(tx, call, before)
    if call.block is Block.DO_NOT_CONTACT:
        await suppressions.insert(tx, _suppression(call, before))
    await write_end(tx, held, Ending.OUTCOME, Moved(before, after), now, call.report.outcome)
    sharers = [it for it in people.values() if it.user_id != held.user_id]
    await write_moved(tx, [Moved(it, _sharer_after(it, call)) for it in sharers], now)
    await agents.seen(tx, [held.agent_id], now)
    await audit.note(
        tx,
        held.agent_id,
        Action.OUTCOME_RECORDED,
        [held.user_id],
        now,
        assignment_id=str(held.assignment_id),
        outcome=call.report.outcome.name.lower(),
    )


def _require_in_time(call: _Call) -> None:
    held = call.held
    late = timedelta(seconds=call.placement.rules.assignment.late_outcome_seconds)
    # A lease ends when it runs out, however late somebody sweeps it up.
    ended_at = min(held.ended_at or held.lease_expires_at, held.lease_expires_at)
    if held.ending is not None and held.ending not in _WITHOUT_THE_AGENT:
        raise not_live()
    if call.now > ended_at + late:
        raise not_live()


async def _after_call(tx: Transaction, call: _Call, before: Entry) -> Entry:
    held, placement, now = call.held, call.placement, call.now
    period = timedelta(days=placement.rules.calls.period_days)
    # This very call is among them: it has been written.
    calls = await assignments.calls_since(tx, held.user_id, now - period)
    callback = None
    if before.callback_id is not None:
        callback = (await callbacks.open_of(tx, [held.user_id])).get(held.user_id)
    result = outcomes.applied(call.report, before, held.agent_id, callback, calls, placement, now)
    if result.callback is not None and result.callback is not callback:
        await callbacks.update(tx, result.callback)
        metrics.CALLBACKS.labels(result.callback.state.name.lower()).inc()
    after = result.entry
    if result.promise is not None:
        made = Callback(
            callback_id=uuid4(),
            user_id=held.user_id,
            scheduled_for=result.promise.scheduled_for,
            preferred_agent_id=result.promise.preferred_agent_id,
            state=CallbackState.OPEN,
            misses=0,
            created_by=held.agent_id,
            created_at=now,
        )
        await callbacks.insert(tx, made)
        metrics.CALLBACKS.labels("scheduled").inc()
        after = after.with_callback(made)
    return placement.settled(after, now)


def _sharer_after(before: Entry, call: _Call) -> Entry:
    """Return somebody with the same phone number, who has been called as well in a way."""
    free_at = call.placement.phone_free_at(call.now)
    after = before._replace(phone_free_at=free_at)
    if call.block is Block.DO_NOT_CONTACT:
        after = after._replace(phone_block=PhoneBlock.DO_NOT_CONTACT)
    return call.placement.placed(after, call.now)


def _suppression(call: _Call, before: Entry) -> Suppression:
    return Suppression(
        suppression_id=call.held.assignment_id,
        user_id=call.held.user_id,
        phone_e164=call.held.phone_e164 or before.phone_e164,
        created_by=call.held.agent_id,
        created_at=call.now,
        notes=call.report.notes,
    )
