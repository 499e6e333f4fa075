"""Amendments: a report of a call is changed or withdrawn, as if it had been so from the first."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import Conflict, FailedPrecondition, InvalidArgument, PermissionDenied
from services.queue.calls.held_assignment import no_such_assignment, require_of_agent
from services.queue.calls.once import once
from services.queue.domain import amending, outcomes
from services.queue.domain.amending import CallEffects, ReportEffects
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.outcomes import AfterCall, CallReport
from services.queue.people.placing import (
    Moved,
    contact_statuses,
    notify_holders,
    write_moved,
)
from services.queue.people.rulebook import Rulebook
from services.queue.reads.figures import QueueFigures
from services.queue.store import (
    amendments,
    assignments,
    audit,
    callbacks,
    entries,
    suppressions,
)
from services.queue.store.amendments import ReportVersion
from services.queue.store.assignments import Assignment
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.store.suppressions import Suppression
from services.queue.types import (
    OBJECTIONS,
    Action,
    AgentId,
    CallbackState,
    ContactBlock,
    UserId,
)
from services.queue.wire import messages

# Reports that one request withdraws at most.
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Amendment:
    """What is changed in a report and by whom; `report` is None when it is withdrawn.

    Without `notes` those of before stay. `is_agents_own` limits it to what an agent may do.
    """

    actor_id: AgentId
    reason: str
    report: CallReport | None
    keeps_notes: bool = False
    is_agents_own: bool = False


class Amendments:
    """Changes and withdraws reports. Effects are replaced, never applied twice."""

    def __init__(
        self, database: Database, rulebook: Rulebook, figures: QueueFigures, clock: Clock
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._figures = figures
        self._clock = clock

    async def amend(
        self, assignment_id: UUID, request: IdempotentRequest, wanted: Amendment
    ) -> queue_pb2.AmendOutcomeResponse:
        """Change the report of a call.

        Raises NotFound (ASSIGNMENT_NOT_FOUND), Conflict (ASSIGNMENT_NOT_YOURS, AMEND_TOO_LATE),
        PermissionDenied (OBJECTION_STANDS) when an agent would take an objection back, and
        FailedPrecondition (NOT_AMENDABLE) for a call without a report whose effects are kept.
        """
        now = self._clock.now()

        async def amend(tx: Transaction) -> queue_pb2.AmendOutcomeResponse:
            user_id = await self._amend(tx, assignment_id, wanted, now)
            return queue_pb2.AmendOutcomeResponse(
                call_state=await self._figures.state_within(tx, user_id)
            )

        answer, guard = queue_pb2.AmendOutcomeResponse, suppressions.guard
        return await once(self._database, request, now, answer, amend, guard=guard)

    async def undo(
        self,
        request: IdempotentRequest,
        agent_id: AgentId,
        since: datetime,
        until: datetime,
        reason: str,
        *,
        is_dry_run: bool,
    ) -> queue_pb2.UndoOutcomesResponse:
        """Withdraw what an agent has reported in a time, the latest first; objections stand.

        A call whose report is withdrawn counts as one without a report. Each is withdrawn by
        itself: a repeat after a failure goes on with what is left.
        """
        if until <= since:
            raise InvalidArgument("TIME_RANGE_EMPTY", "the time ends before it begins")
        placement = self._rulebook.placement
        async with self._database.statements() as tx:
            found = await amendments.reported(tx, agent_id, since, until, _AT_ONCE + 1)
        response = queue_pb2.UndoOutcomesResponse(has_more=len(found) > _AT_ONCE)
        for assignment_id, user_id, outcome, ended_at in found[:_AT_ONCE]:
            is_objection = bool(
                (placement.rules.outcomes[outcome].block or ContactBlock(0)) & OBJECTIONS
            )
            if not is_dry_run and not is_objection:
                async with self._database.transaction() as tx:
                    await suppressions.guard(tx)
                    wanted = Amendment(request.agent_id, reason, None)
                    await self._amend(tx, assignment_id, wanted, self._clock.now())
            response.calls.add(
                assignment_id=str(assignment_id),
                user_id=user_id,
                outcome=messages.outcome_number(outcome),
                ended_at=messages.timestamp(ended_at),
                is_kept=is_objection,
            )
        return response

    async def _amend(
        self, tx: Transaction, assignment_id: UUID, wanted: Amendment, now: datetime
    ) -> UserId:
        """Replace a report and its effects; the caller holds the guard of phone numbers."""
        placement = self._rulebook.placement
        held = await assignments.lock(tx, assignment_id)
        if held is None:
            raise no_such_assignment()
        attempt = await assignments.attempt_of(tx, assignment_id)
        effects = await amendments.kept_effects(tx, assignment_id)
        called_at = None if effects is None else effects.after.last_contact_at
        if attempt is None or effects is None or called_at is None:
            raise FailedPrecondition("NOT_AMENDABLE", "no report of this call can be amended")
        before, report = attempt.report, wanted.report
        if report is not None and wanted.keeps_notes and before is not None:
            report = replace(report, notes=before.notes)
        if wanted.is_agents_own:
            _require_own(held, wanted.actor_id, before, report, placement, called_at, now)
        lines = set(held.lines) | set(await entries.lines_of(tx, held.user_id))
        people = await entries.lock_sharers(tx, [held.user_id], sorted(lines))
        entry = people.get(held.user_id)
        if entry is None or before == report:
            return held.user_id
        if report is not None:
            same_time = before is not None and before.callback_at == report.callback_at
            checked = replace(report, callback_at=None) if same_time else report
            outcomes.check(checked, placement, placement.opening(entry), now)
        result = amending.recomputed(report, entry, held.agent_id, effects, placement, called_at)
        after = CallEffects.of(result.entry)
        suppression_id = await _objection(tx, wanted, report, held, effects, lines, placement, now)
        entry, effects = await _with_callbacks(tx, held, entry, effects, result, now)
        later = await amendments.later_outcomes(tx, held.user_id, called_at)
        blocked_since = ContactBlock(0)
        for outcome in later:
            blocked_since |= placement.rules.outcomes[outcome].block or ContactBlock(0)
        amended = amending.amended(entry, effects, after, blocked_since)
        await self._credit(tx, held, effects, after, called_at)
        effects = replace(effects, after=after, suppression_id=suppression_id)
        version = ReportVersion(
            uuid4(), assignment_id, held.user_id, wanted.actor_id, now, wanted.reason, before
        )
        await amendments.amend(tx, version, report, effects)
        people_after = people | {held.user_id: amended}
        statuses = await contact_statuses(tx, list(people_after.values()), placement, now)
        moved = []
        for user_id, it in people_after.items():
            placed = placement.placed(placement.with_status(it, statuses[user_id], now), now)
            moved.append(Moved(people[user_id], placed))
        await write_moved(tx, moved, now)
        await notify_holders(tx, moved, now)
        details = {
            "assignment_id": str(assignment_id),
            "amendment_id": str(version.amendment_id),
            "from": _name(before),
            "to": _name(report),
        }
        await audit.note(
            tx, wanted.actor_id, Action.OUTCOME_AMENDED, [held.user_id], now, **details
        )
        return held.user_id

    async def _credit(
        self,
        tx: Transaction,
        held: Assignment,
        effects: ReportEffects,
        after: CallEffects,
        called_at: datetime,
    ) -> None:
        """Credit conversions anew if the agent spoke with the person only by one of the reports."""
        if after.last_spoken_at == effects.after.last_spoken_at:
            return
        rules = self._rulebook.rules
        await amendments.credit_again(
            tx,
            held.user_id,
            held.started_at,
            called_at,
            (after.last_agent_id, after.last_spoken_at),
            timedelta(days=rules.calls.conversion_credit_days),
            [it for it, rule in rules.outcomes.items() if rule.is_conversation],
        )


def _name(report: CallReport | None) -> str:
    if report is None:
        return "none"
    name = report.outcome.name.lower()
    return name if report.disposition is None else f"{name}:{report.disposition}"


def _objection_of(report: CallReport | None, placement: Placement) -> ContactBlock:
    block = None if report is None else placement.rules.outcomes[report.outcome].block
    return (block or ContactBlock(0)) & OBJECTIONS


def _require_own(
    held: Assignment,
    agent_id: AgentId,
    before: CallReport | None,
    report: CallReport | None,
    placement: Placement,
    called_at: datetime,
    now: datetime,
) -> None:
    """Raise Conflict or PermissionDenied unless the agent may make this amendment."""
    require_of_agent(held, agent_id)
    minutes = placement.rules.assignment.amend_minutes
    if now > called_at + timedelta(minutes=minutes):
        raise Conflict("AMEND_TOO_LATE", f"agents amend a report within {minutes:g} minutes")
    made = _objection_of(before, placement)
    if made and made != _objection_of(report, placement):
        raise PermissionDenied("OBJECTION_STANDS", "only a supervisor takes an objection back")


async def _objection(
    tx: Transaction,
    wanted: Amendment,
    report: CallReport | None,
    held: Assignment,
    effects: ReportEffects,
    lines: set[str],
    placement: Placement,
    now: datetime,
) -> UUID | None:
    """Lift the objection that the report made, record the one it makes now; returns its id.

    An objection that was made once more since stands: only the report is taken back.
    """
    kind = _objection_of(report, placement)
    was = effects.after.block & ~effects.before.block & OBJECTIONS
    if kind and kind == was:
        return effects.suppression_id
    if effects.suppression_id is not None:
        made_then = await suppressions.find(tx, effects.suppression_id)
        if made_then is not None and made_then.restated_at is None:
            reason = wanted.reason or "amended"
            await suppressions.lift(tx, made_then.suppression_id, wanted.actor_id, reason, now)
    if not kind or report is None:
        return None
    made = Suppression(uuid4(), held.user_id, sorted(lines), held.agent_id, now, report.notes, kind)
    active = await suppressions.insert(tx, made)
    return None if active is not None else made.suppression_id


async def _with_callbacks(
    tx: Transaction,
    held: Assignment,
    entry: Entry,
    effects: ReportEffects,
    result: AfterCall,
    now: datetime,
) -> tuple[Entry, ReportEffects]:
    """Replace the callbacks of the report, unless they have been changed since."""
    open_ = (await callbacks.open_of(tx, [held.user_id])).get(held.user_id)
    if not effects.has_callbacks_of(entry, open_):
        added = result.entry.block & ~effects.after.block
        if added and open_ is not None:
            closed = open_.ended(CallbackState.CLOSED, str(added.name), now)
            await callbacks.update(tx, closed)
            return entry.with_callback(None), effects
        return entry, effects
    made, new = effects.made, result.new_callback
    is_same = made is not None and (made.scheduled_for, made.preferred_agent_id) == new
    if made is not None and not is_same:
        await callbacks.update(tx, made.ended(CallbackState.CANCELLED, "AMENDED", now))
        made = None
    if result.callback is not None and result.callback != effects.callback_after:
        await callbacks.update(tx, result.callback)
    if new is not None and made is None:
        called_at = result.entry.last_contact_at or now
        made = new.made(uuid4(), held.user_id, held.agent_id, called_at)
        await callbacks.insert(tx, made)
    effects = replace(effects, callback_after=result.callback, made=made)
    return entry.with_callback(effects.open_callback), effects
