"""Callbacks that are agreed, moved, called off, and closed when nobody may be called any more."""

from collections.abc import Callable
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
from services.queue import messages, metrics
from services.queue.domain import pages
from services.queue.domain.callbacks import Callback, require_schedulable, rescheduled
from services.queue.domain.terms import Action, AgentId, CallbackState, State, UserId
from services.queue.rulebook import Rulebook
from services.queue.store import answers, assignments, audit, callbacks, entries
from services.queue.store.answers import Request
from services.queue.store.database import Database, Transaction
from services.queue.writing import Moved, require_same, write_moved

_BATCH = 200
_MOVABLE = (CallbackState.OPEN, CallbackState.MISSED)


@dataclass(frozen=True, slots=True)
class ClosedResult:
    """How many callbacks were closed because their person may not be called."""

    closed: int

    @property
    def has_more(self) -> bool:
        """True when the batch was full."""
        return self.closed == _BATCH


class CallbackDesk:
    """Callbacks by hand, and their end by time. Every change is durable before it is answered."""

    def __init__(
        self, database: Database, rulebook: Rulebook, clock: Clock, posted: Callable[[], None]
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._rulebook = rulebook
        self._clock = clock
        self._posted = posted

    async def schedule(
        self,
        request: Request,
        user_id: UserId,
        scheduled_for: datetime,
        preferred_agent_id: AgentId | None,
        notes: str,
    ) -> queue_pb2.ScheduleCallbackResponse:
        """Agree a callback.

        Raises AlreadyExists (CALLBACK_OPEN), NotFound, and FailedPrecondition for somebody whom
        nobody may call.
        """
        now = self._clock.now()
        async with self._database.transaction() as tx:
            answered = await answers.begin_request(tx, request, now)
            if answered is not None:
                first = require_same(answered, request)
                return queue_pb2.ScheduleCallbackResponse.FromString(first)
            self._require_times(scheduled_for, notes, now)
            await self._require_callable(tx, user_id)
            open_ = (await callbacks.open_of(tx, [user_id])).get(user_id)
            if open_ is not None:
                raise AlreadyExists(
                    "CALLBACK_OPEN",
                    "the person has an open callback",
                    callback_id=str(open_.callback_id),
                )
            made = Callback(
                callback_id=uuid4(),
                user_id=user_id,
                scheduled_for=scheduled_for,
                preferred_agent_id=preferred_agent_id,
                state=CallbackState.OPEN,
                misses=0,
                created_by=request.agent_id,
                created_at=now,
                notes=notes,
            )
            await callbacks.insert(tx, made)
            await self._place(tx, made, now)
            await self._note(tx, request, Action.CALLBACK_SCHEDULED, made, now)
            response = queue_pb2.ScheduleCallbackResponse(callback=messages.callback_message(made))
            await answers.finish_request(tx, request, response.SerializeToString())
        metrics.CALLBACKS.labels("scheduled").inc()
        self._posted()
        return response

    async def reschedule(
        self,
        request: Request,
        callback_id: UUID,
        scheduled_for: datetime,
        preferred: tuple[AgentId | None] | None,
        *,
        own_only: bool,
    ) -> queue_pb2.RescheduleCallbackResponse:
        """Move a callback; `preferred` names its agent anew, None leaves that as it is.

        Raises NotFound, FailedPrecondition (CALLBACK_ENDED), PermissionDenied (NOT_YOURS) if only
        the agent's own will do, or as `schedule` does.
        """
        now = self._clock.now()
        async with self._database.transaction() as tx:
            answered = await answers.begin_request(tx, request, now)
            if answered is not None:
                first = require_same(answered, request)
                return queue_pb2.RescheduleCallbackResponse.FromString(first)
            self._require_times(scheduled_for, "", now)
            before = await self._lock(tx, callback_id, request.agent_id if own_only else None, now)
            await self._require_callable(tx, before.user_id)
            if before.state is CallbackState.MISSED:
                await self._require_none_open(tx, before.user_id)
            after = rescheduled(before, scheduled_for)
            if preferred is not None:
                after = replace(after, preferred_agent_id=preferred[0])
            await callbacks.update(tx, after)
            await self._place(tx, after, now)
            await self._note(tx, request, Action.CALLBACK_RESCHEDULED, after, now)
            response = queue_pb2.RescheduleCallbackResponse(
                callback=messages.callback_message(after)
            )
            await answers.finish_request(tx, request, response.SerializeToString())
        metrics.CALLBACKS.labels("rescheduled").inc()
        self._posted()
        return response

    async def cancel(
        self, request: Request, callback_id: UUID, *, own_only: bool
    ) -> queue_pb2.CancelCallbackResponse:
        """Call a callback off.

        Raises NotFound, FailedPrecondition (CALLBACK_ENDED), or PermissionDenied (NOT_YOURS) if
        only the agent's own will do.
        """
        now = self._clock.now()
        async with self._database.transaction() as tx:
            answered = await answers.begin_request(tx, request, now)
            if answered is not None:
                first = require_same(answered, request)
                return queue_pb2.CancelCallbackResponse.FromString(first)
            before = await self._lock(tx, callback_id, request.agent_id if own_only else None, now)
            after = before.ended(CallbackState.CANCELLED, "CANCELLED", now)
            await callbacks.update(tx, after)
            if before.state is CallbackState.OPEN:
                await self._place(tx, after, now)
            await self._note(tx, request, Action.CALLBACK_CANCELLED, after, now)
            response = queue_pb2.CancelCallbackResponse(callback=messages.callback_message(after))
            await answers.finish_request(tx, request, response.SerializeToString())
        metrics.CALLBACKS.labels("cancelled").inc()
        self._posted()
        return response

    async def page(
        self,
        state: CallbackState,
        preferred_agent_id: AgentId | None,
        user_id: UserId | None,
        size: int,
        token: str,
    ) -> queue_pb2.ListCallbacksResponse:
        """Return a page, the earliest first; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        listed = ["callbacks", int(state), preferred_agent_id, user_id]
        after = pages.read_moment(token, listed)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await callbacks.page(tx, state, preferred_agent_id, user_id, after, limit + 1)
        shown = found[:limit]
        is_last = len(found) <= limit
        last = shown[-1] if shown else None
        return queue_pb2.ListCallbacksResponse(
            callbacks=[messages.callback_message(it) for it in shown],
            next_page_token=""
            if is_last or last is None
            else pages.written_moment(last.scheduled_for, last.callback_id, listed),
        )

    async def close_once(self, now: datetime) -> ClosedResult:
        """Close callbacks that are due while their person may not be called."""
        placement = self._rulebook.placement
        async with self._database.transaction() as tx:
            user_ids = await callbacks.due_and_invalid(tx, now, _BATCH)
            known = await entries.lock(tx, user_ids)
            open_ = await callbacks.open_of(tx, user_ids)
            moved: list[Moved] = []
            for user_id, before in known.items():
                callback = open_.get(user_id)
                barred = before.state in (State.SUPPRESSED, State.OUT)
                if callback is None or not barred or not callback.is_due(now):
                    continue
                closed = callback.ended(CallbackState.CLOSED, before.reason, now)
                await callbacks.update(tx, closed)
                after = placement.placed(before.with_callback(closed), now)
                moved.append(Moved(before, after))
            await write_moved(tx, moved, now)
        metrics.CALLBACKS.labels("closed").inc(len(moved))
        if moved:
            self._posted()
        return ClosedResult(len(moved))

    def _require_times(self, scheduled_for: datetime, notes: str, now: datetime) -> None:
        rules = self._rulebook.rules
        require_schedulable(scheduled_for, rules, now)
        if len(notes) > rules.calls.notes_longest_characters or "\0" in notes:
            raise InvalidArgument("NOTES_INVALID", "notes are too long or hold what is no text")

    async def _lock(
        self, tx: Transaction, callback_id: UUID, owner: AgentId | None, now: datetime
    ) -> Callback:
        """Lock the callback's person and return the callback, open or missed.

        With an owner it must be kept for them, or of the person they hold.
        """
        found = await callbacks.find(tx, callback_id)
        if found is None:
            raise NotFound("CALLBACK_NOT_FOUND", "there is no such callback")
        await entries.lock(tx, [found.user_id])
        locked = await callbacks.find(tx, callback_id) or found
        if owner is not None and not await _is_own(tx, locked, owner, now):
            raise PermissionDenied(
                "NOT_YOURS", "the callback is neither kept for you nor of whom you hold"
            )
        if locked.state not in _MOVABLE:
            raise FailedPrecondition("CALLBACK_ENDED", "the callback has come to its end")
        return locked

    async def _require_callable(self, tx: Transaction, user_id: UserId) -> None:
        """Lock the person; raises NotFound or FailedPrecondition when nobody may call them."""
        entry = (await entries.lock(tx, [user_id])).get(user_id)
        if entry is None:
            raise NotFound("USER_UNKNOWN", "the dialler knows no such person")
        barrier = self._rulebook.placement.barrier(entry)
        if barrier is not None:
            raise FailedPrecondition(
                "USER_NOT_CALLABLE", "the person may not be called", cause=barrier
            )

    async def _require_none_open(self, tx: Transaction, user_id: UserId) -> None:
        if await callbacks.open_of(tx, [user_id]):
            raise AlreadyExists("CALLBACK_OPEN", "the person has another open callback")

    async def _place(self, tx: Transaction, callback: Callback, now: datetime) -> None:
        before = (await entries.lock(tx, [callback.user_id]))[callback.user_id]
        after = self._rulebook.placement.placed(before.with_callback(callback), now)
        await write_moved(tx, [Moved(before, after)], now)

    async def _note(
        self, tx: Transaction, request: Request, action: Action, callback: Callback, now: datetime
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


async def _is_own(tx: Transaction, callback: Callback, agent_id: AgentId, now: datetime) -> bool:
    if callback.preferred_agent_id == agent_id:
        return True
    held = await assignments.live_of_agent(tx, agent_id)
    return held is not None and held.is_live(now) and held.user_id == callback.user_id
