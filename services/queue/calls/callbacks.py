"""Callbacks: agents and supervisors schedule, move and cancel them; time closes them."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid4

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from servicekit.paging import cut_page
from services.queue import metrics
from services.queue.calls.once import once
from services.queue.domain import pages
from services.queue.domain.callbacks import (
    Callback,
    NewCallback,
    require_schedulable,
    rescheduled,
)
from services.queue.domain.rules import Rules
from services.queue.people.placing import Moved, write_moved
from services.queue.people.rulebook import Rulebook
from services.queue.store import assignments, audit, callbacks, entries
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import Action, AgentId, CallbackState, Reason, State, UserId
from services.queue.wire import messages

_BATCH = 200
_MOVABLE = (CallbackState.OPEN, CallbackState.MISSED)


@dataclass(frozen=True, slots=True)
class ClosedResult:
    """How many callbacks were closed because their user may not be called."""

    closed: int

    @property
    def has_more(self) -> bool:
        """True when the batch was full."""
        return self.closed == _BATCH


async def require_room(tx: Transaction, agent_id: AgentId, user_id: UserId, rules: Rules) -> None:
    """Raise FailedPrecondition (CALLBACK_LIMIT) when the agent may keep no further callback.

    An open one of the same person does not count: the new one takes its place.
    """
    most = rules.agents.open_callbacks
    if most is None:
        return
    kept = await callbacks.open_by_agent(tx, agent_id, without=user_id)
    if kept.get(agent_id, 0) >= most:
        raise FailedPrecondition(
            "CALLBACK_LIMIT",
            f"no more than {most} open callbacks may be kept for one agent",
            open_callbacks=str(most),
        )


class Callbacks:
    """Schedules, moves, cancels and closes callbacks. A change is durable before its answer."""

    def __init__(self, database: Database, rulebook: Rulebook, clock: Clock) -> None:
        self._database = database
        self._rulebook = rulebook
        self._clock = clock

    async def schedule(
        self,
        request: IdempotentRequest,
        user_id: UserId,
        scheduled_for: datetime,
        preferred_agent_id: AgentId | None,
        notes: str,
    ) -> queue_pb2.ScheduleCallbackResponse:
        """Schedule a callback.

        Raises InvalidArgument, AlreadyExists (CALLBACK_OPEN), NotFound (USER_UNKNOWN), and
        FailedPrecondition (USER_NOT_CALLABLE; CALLBACK_LIMIT for an agent's own).
        """
        now = self._clock.now()

        async def schedule(tx: Transaction) -> queue_pb2.ScheduleCallbackResponse:
            longest = self._rulebook.rules.calls.notes_longest_characters
            if len(notes) > longest or "\0" in notes:
                raise InvalidArgument("NOTES_INVALID", "notes are too long or hold what is no text")
            await self._require_callable(tx, user_id, scheduled_for, now)
            open_ = (await callbacks.open_of(tx, [user_id])).get(user_id)
            if open_ is not None:
                raise AlreadyExists(
                    "CALLBACK_OPEN",
                    "the person has an open callback",
                    callback_id=str(open_.callback_id),
                )
            new = NewCallback(scheduled_for, preferred_agent_id)
            made = new.made(uuid4(), user_id, request.agent_id, now, notes)
            if preferred_agent_id is not None and preferred_agent_id == request.agent_id:
                await require_room(tx, preferred_agent_id, user_id, self._rulebook.rules)
            await callbacks.insert(tx, made)
            await self._place(tx, made, now)
            await self._note(tx, request, Action.CALLBACK_SCHEDULED, made, now)
            return queue_pb2.ScheduleCallbackResponse(callback=messages.callback_message(made))

        response = queue_pb2.ScheduleCallbackResponse
        count = metrics.CALLBACKS.labels("scheduled").inc
        return await once(self._database, request, now, response, schedule, count)

    async def reschedule(
        self,
        request: IdempotentRequest,
        callback_id: UUID,
        scheduled_for: datetime,
        preferred: tuple[AgentId | None] | None,
        *,
        own_only: bool,
    ) -> queue_pb2.RescheduleCallbackResponse:
        """Move a callback; `preferred` holds its new agent or none, None leaves the agent as it is.

        Raises NotFound, FailedPrecondition (CALLBACK_ENDED), with `own_only` PermissionDenied
        (NOT_YOURS), or as `schedule` does.
        """
        now = self._clock.now()

        async def reschedule(tx: Transaction) -> queue_pb2.RescheduleCallbackResponse:
            before = await self._lock(tx, callback_id, request.agent_id if own_only else None, now)
            await self._require_callable(tx, before.user_id, scheduled_for, now)
            is_missed = before.state is CallbackState.MISSED
            if is_missed and await callbacks.open_of(tx, [before.user_id]):
                raise AlreadyExists("CALLBACK_OPEN", "the person has another open callback")
            after = rescheduled(before, scheduled_for)
            if preferred is not None:
                after = replace(after, preferred_agent_id=preferred[0])
            await callbacks.update(tx, after)
            await self._place(tx, after, now)
            await self._note(tx, request, Action.CALLBACK_RESCHEDULED, after, now)
            return queue_pb2.RescheduleCallbackResponse(callback=messages.callback_message(after))

        response = queue_pb2.RescheduleCallbackResponse
        count = metrics.CALLBACKS.labels("rescheduled").inc
        return await once(self._database, request, now, response, reschedule, count)

    async def cancel(
        self, request: IdempotentRequest, callback_id: UUID, *, own_only: bool
    ) -> queue_pb2.CancelCallbackResponse:
        """Cancel a callback.

        Raises NotFound, FailedPrecondition (CALLBACK_ENDED), or with `own_only` PermissionDenied
        (NOT_YOURS).
        """
        now = self._clock.now()

        async def cancel(tx: Transaction) -> queue_pb2.CancelCallbackResponse:
            before = await self._lock(tx, callback_id, request.agent_id if own_only else None, now)
            after = before.ended(CallbackState.CANCELLED, "CANCELLED", now)
            await callbacks.update(tx, after)
            if before.state is CallbackState.OPEN:
                await self._place(tx, after, now)
            await self._note(tx, request, Action.CALLBACK_CANCELLED, after, now)
            return queue_pb2.CancelCallbackResponse(callback=messages.callback_message(after))

        response = queue_pb2.CancelCallbackResponse
        count = metrics.CALLBACKS.labels("cancelled").inc
        return await once(self._database, request, now, response, cancel, count)

    async def page(
        self,
        state: CallbackState,
        preferred_agent_id: AgentId | None,
        user_id: UserId | None,
        size: int,
        token: str,
    ) -> queue_pb2.ListCallbacksResponse:
        """Return a page, the earliest first; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        filters = ["callbacks", int(state), preferred_agent_id, user_id]
        after = pages.moment_from(token, filters)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await callbacks.page(tx, state, preferred_agent_id, user_id, after, limit + 1)
        shown, next_token = cut_page(
            found,
            limit,
            lambda last: pages.moment_token(last.scheduled_for, last.callback_id, filters),
        )
        return queue_pb2.ListCallbacksResponse(
            callbacks=[messages.callback_message(it) for it in shown],
            next_page_token=next_token,
        )

    async def close_once(self, now: datetime) -> ClosedResult:
        """Close callbacks that are due while their user may not be called."""
        placement = self._rulebook.placement
        async with self._database.transaction() as tx:
            user_ids = await callbacks.due_and_invalid(tx, now, _BATCH)
            known = await entries.lock(tx, user_ids)
            open_ = await callbacks.open_of(tx, user_ids)
            moved: list[Moved] = []
            for user_id, before in known.items():
                callback = open_.get(user_id)
                barred = before.state in (State.SUPPRESSED, State.OUT)
                barred &= before.reason is not Reason.NO_CALLABLE_NUMBER
                if callback is None or not barred or not callback.is_due(now):
                    continue
                closed = callback.ended(CallbackState.CLOSED, before.reason, now)
                await callbacks.update(tx, closed)
                after = placement.placed(before.with_callback(closed), now)
                moved.append(Moved(before, after))
            await write_moved(tx, moved, now)
        metrics.CALLBACKS.labels("closed").inc(len(moved))
        return ClosedResult(len(moved))

    async def _lock(
        self, tx: Transaction, callback_id: UUID, owner: AgentId | None, now: datetime
    ) -> Callback:
        """Lock the callback's user and return the callback, open or missed.

        With an owner the callback must prefer that agent, or be of the user whom the agent holds.
        """
        found = await callbacks.find(tx, callback_id)
        if found is None:
            raise NotFound("CALLBACK_NOT_FOUND", "there is no such callback")
        await entries.lock(tx, [found.user_id])
        locked = await callbacks.find(tx, callback_id) or found
        if owner is not None and locked.preferred_agent_id != owner:
            held = await assignments.live_of_agent(tx, owner)
            if held is None or not held.is_live(now) or held.user_id != locked.user_id:
                raise PermissionDenied(
                    "NOT_YOURS", "the callback is neither kept for you nor of whom you hold"
                )
        if locked.state not in _MOVABLE:
            raise FailedPrecondition("CALLBACK_ENDED", "the callback has ended")
        return locked

    async def _require_callable(
        self, tx: Transaction, user_id: UserId, scheduled_for: datetime, now: datetime
    ) -> None:
        """Lock the user and require that the user may be called, and at that moment.

        Raises NotFound, FailedPrecondition, or InvalidArgument as `require_schedulable` does.
        """
        placement = self._rulebook.placement
        entry = (await entries.lock(tx, [user_id])).get(user_id)
        if entry is None:
            raise NotFound("USER_UNKNOWN", "the dialler knows no such person")
        require_schedulable(scheduled_for, placement.rules, placement.opening(entry), now)
        block = placement.contact_block(entry)
        if block is not None:
            raise FailedPrecondition(
                "USER_NOT_CALLABLE", "the person may not be called", cause=block
            )

    async def _place(self, tx: Transaction, callback: Callback, now: datetime) -> None:
        before = (await entries.lock(tx, [callback.user_id]))[callback.user_id]
        after = self._rulebook.placement.placed(before.with_callback(callback), now)
        await write_moved(tx, [Moved(before, after)], now)

    async def _note(
        self,
        tx: Transaction,
        request: IdempotentRequest,
        action: Action,
        callback: Callback,
        now: datetime,
    ) -> None:
        await audit.note(
            tx,
            request.agent_id,
            action,
            [callback.user_id],
            now,
            callback_id=str(callback.callback_id),
            scheduled_for=callback.scheduled_for.isoformat(),
        )
