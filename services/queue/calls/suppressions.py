"""Suppressions: objections of users and to bare numbers; `phone_lists` has lists of numbers."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from uuid import UUID, uuid4

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import FailedPrecondition, NotFound, ServiceError
from servicekit.paging import cut_page
from services.queue.calls.once import once
from services.queue.domain import pages
from services.queue.people.placing import (
    Moved,
    contact_statuses,
    kind_details,
    object_to_calls,
    write_moved,
)
from services.queue.people.rulebook import Rulebook
from services.queue.people.user_context_client import UserContextClient
from services.queue.reads.figures import QueueFigures
from services.queue.store import audit, entries, suppressions
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.store.suppressions import Suppression
from services.queue.types import Action, AgentId, ContactBlock, UserId
from services.queue.wire import messages

# Objections in one message of an export: below 4 MiB even with the longest notes of 10,000
# characters in four bytes each.
_EXPORTED_AT_ONCE = 100


class Suppressions:
    """Records and lifts objections. Every change is durable before it is answered."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        user_context: UserContextClient,
        figures: QueueFigures,
        clock: Clock,
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._user_context = user_context
        self._figures = figures
        self._clock = clock

    async def suppress(
        self,
        request: IdempotentRequest,
        user_id: UserId,
        notes: str,
        lines: Sequence[str] = (),
        kind: ContactBlock = ContactBlock.DO_NOT_CONTACT,
    ) -> queue_pb2.SuppressUserResponse:
        """Record a user's objection, which stops calls to all the user's numbers and to `lines`.

        A second objection of one kind changes nothing. An objection is also recorded of a user that
        the queue does not know yet; raises NotFound only if the main app does not have the user
        either.
        """
        now, placement = self._clock.now(), self._rulebook.placement
        phones = await self._phones_of_unknown(user_id)

        async def suppress(tx: Transaction) -> queue_pb2.SuppressUserResponse:
            # The guard keeps the numbers as they are until the end.
            present = await entries.lines_of(tx, user_id) or phones
            covered = sorted({*present, *lines})
            made = Suppression(uuid4(), user_id, covered, request.agent_id, now, notes, kind)
            suppression_id = await object_to_calls(tx, made, placement, now)
            details = kind_details(made)
            await audit.note(tx, request.agent_id, Action.SUPPRESSED, [user_id], now, **details)
            return queue_pb2.SuppressUserResponse(
                call_state=await self._figures.state_within(tx, user_id),
                suppression_id=str(suppression_id),
            )

        answer, guard = queue_pb2.SuppressUserResponse, suppressions.guard
        return await once(self._database, request, now, answer, suppress, guard=guard)

    async def suppress_number(
        self, request: IdempotentRequest, phone: str, notes: str
    ) -> queue_pb2.SuppressUserResponse:
        """Record an objection to calls of a number, whichever users have it now or later."""
        now, placement = self._clock.now(), self._rulebook.placement

        async def suppress(tx: Transaction) -> queue_pb2.SuppressUserResponse:
            made = Suppression(uuid4(), None, [phone], request.agent_id, now, notes)
            suppression_id = str(await object_to_calls(tx, made, placement, now))
            details = {"suppression_id": suppression_id}
            await audit.note(tx, request.agent_id, Action.SUPPRESSED, [None], now, **details)
            return queue_pb2.SuppressUserResponse(suppression_id=suppression_id)

        kind, guard = queue_pb2.SuppressUserResponse, suppressions.guard
        return await once(self._database, request, now, kind, suppress, guard=guard)

    async def _phones_of_unknown(self, user_id: UserId) -> Sequence[str]:
        """Return the numbers of a user unknown to the queue; raises NotFound (USER_UNKNOWN)."""
        async with self._database.statements() as tx:
            if await entries.read(tx, [user_id]):
                return ()
        try:
            facts = (await self._user_context.read([user_id])).get(user_id)
        except ServiceError:
            # The objection is recorded without numbers until the queue knows the user.
            return ()
        if facts is not None and not facts.exists:
            raise NotFound("USER_UNKNOWN", "there is no such person")
        return () if facts is None else facts.phones

    async def lift(
        self,
        request: IdempotentRequest,
        target: UserId | UUID,
        what: ContactBlock | None,
        notes: str,
    ) -> queue_pb2.LiftSuppressionResponse:
        """Lift one contact block of a user, or the objection with an id; others stay.

        The user's score starts afresh; other waits of the user go on. Raises NotFound, and
        FailedPrecondition (NOT_SUPPRESSED, PHONE_SUPPRESSED, SEVERAL_STAND).
        """
        now, placement = self._clock.now(), self._rulebook.placement

        async def lift(tx: Transaction) -> queue_pb2.LiftSuppressionResponse:
            lifted, user_id = await self._chosen(tx, target, what)
            if lifted is not None:
                await suppressions.lift(tx, lifted.suppression_id, request.agent_id, notes, now)
            # Placed: the user, and the users who share a number that is no longer suppressed.
            user_ids = [] if user_id is None else [user_id]
            lines = () if lifted is None else lifted.lines
            people = await entries.lock_sharers(tx, user_ids, lines)
            statuses = await contact_statuses(tx, list(people.values()), placement, now)
            moved = []
            for before in people.values():
                after = before
                if before.user_id == user_id:
                    ended = ContactBlock.NO_CLAIM if lifted is None else lifted.kind
                    after = before._replace(
                        block=before.block & ~ended,
                        outcome_points=placement.rules.score.fresh,
                        attempt_points=0.0,
                        aged_from=now,
                    )
                after = placement.with_status(after, statuses[before.user_id], now)
                moved.append(Moved(before, placement.placed(after, now)))
            await write_moved(tx, moved, now)
            details = {}
            if lifted is not None:
                details = {"suppression_id": str(lifted.suppression_id), **kind_details(lifted)}
            action = Action.NO_CLAIM_LIFTED if lifted is None else Action.SUPPRESSION_LIFTED
            await audit.note(tx, request.agent_id, action, [user_id], now, **details)
            response = queue_pb2.LiftSuppressionResponse()
            if user_id is not None:
                response.call_state.CopyFrom(await self._figures.state_within(tx, user_id))
            return response

        kind, guard = queue_pb2.LiftSuppressionResponse, suppressions.guard
        return await once(self._database, request, now, kind, lift, guard=guard)

    async def _chosen(
        self, tx: Transaction, target: UserId | UUID, what: ContactBlock | None
    ) -> tuple[Suppression | None, UserId | None]:
        """Return the objection to lift, None for a "no claim", and its user."""
        if isinstance(target, UUID):
            found = await suppressions.find(tx, target)
            if found is None:
                raise NotFound("SUPPRESSION_NOT_FOUND", "there is no such objection")
            if found.lifted_at is not None:
                raise _not_suppressed()
            return found, found.user_id
        entry = (await entries.read(tx, [target])).get(target)
        objections = await suppressions.active_of(tx, target)
        if entry is None and not objections:
            raise NotFound("USER_UNKNOWN", "the dialler knows no such person")
        of_entry = ContactBlock(0) if entry is None else entry.block
        active = [it for it in ContactBlock if it in of_entry or it in objections]
        if what is None and len(active) > 1:
            raise FailedPrecondition(
                "SEVERAL_STAND", "several of these stop calls to the person: say which is lifted"
            )
        if what is None and active:
            what = active[0]
        if what not in active and entry is not None and entry.phone_block:
            raise FailedPrecondition(
                "PHONE_SUPPRESSED", "one of the person's numbers is suppressed, not the person"
            )
        if what is None or what not in active:
            raise _not_suppressed()
        if what is ContactBlock.NO_CLAIM:
            return None, target
        # An objection without a record is lifted from the entry alone.
        unrecorded = Suppression(uuid4(), target, (), "", self._clock.now(), "", what)
        return objections.get(what, unrecorded), target

    async def page(
        self,
        user_id: UserId | None,
        phone: str | None,
        include_lifted: bool,
        size: int,
        token: str,
    ) -> queue_pb2.ListSuppressionsResponse:
        """Return a page, the latest first; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        filters = ["suppressions", user_id, phone, include_lifted]
        before = pages.moment_from(token, filters)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await suppressions.page(tx, user_id, phone, include_lifted, before, limit + 1)
        shown, next_token = cut_page(
            found,
            limit,
            lambda last: pages.moment_token(last.created_at, last.suppression_id, filters),
        )
        return queue_pb2.ListSuppressionsResponse(
            suppressions=[messages.suppression_message(it) for it in shown],
            next_page_token=next_token,
        )

    async def export(
        self, actor_id: AgentId
    ) -> AsyncGenerator[queue_pb2.ExportObjectionsResponse, None]:
        """Yield all objections in force with their numbers, after the audit has the export."""
        async with self._database.transaction() as tx:
            await audit.note(tx, actor_id, Action.OBJECTIONS_EXPORTED, [None], self._clock.now())
        before: tuple[datetime, UUID] | None = None
        while True:
            async with self._database.statements() as tx:
                found = await suppressions.page(tx, None, None, False, before, _EXPORTED_AT_ONCE)
            if not found:
                return
            yield queue_pb2.ExportObjectionsResponse(
                objections=[
                    queue_pb2.ExportedObjection(
                        suppression=messages.suppression_message(it), phones=it.lines
                    )
                    for it in found
                ]
            )
            before = found[-1].created_at, found[-1].suppression_id


def _not_suppressed() -> FailedPrecondition:
    return FailedPrecondition("NOT_SUPPRESSED", "nothing of this kind stops calls to the person")
