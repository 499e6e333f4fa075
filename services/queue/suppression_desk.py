"""Whom nobody calls: people by anybody's word, phone numbers by lists such as the TPS's."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.queue import messages, metrics
from services.queue.domain import pages
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.terms import Action, Block, CallbackState, Reason, UserId
from services.queue.figures import Figures
from services.queue.phone_list import PhoneListReader
from services.queue.rulebook import Rulebook
from services.queue.store import answers, audit, callbacks, entries, suppressions
from services.queue.store.answers import Request
from services.queue.store.database import Database, Transaction
from services.queue.store.suppressions import Suppression
from services.queue.writing import Moved, place_by_number, require_same, write_moved

_BATCH = 1_000
_LIST_NAME_LONGEST = 100


@dataclass(frozen=True, slots=True)
class ListHeader:
    """What a list of phone numbers is, and who brings it."""

    list_name: str
    actor_id: str
    is_complete: bool


class SuppressionDesk:
    """Suppresses and lifts. Every change is durable before it is answered."""

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

    async def suppress(
        self, request: Request, user_id: UserId, notes: str
    ) -> queue_pb2.SuppressUserResponse:
        """Stop calls to a person and to their number; again changes nothing. Raises NotFound."""
        now, placement = self._clock.now(), self._rulebook.placement
        async with self._database.transaction() as tx:
            await suppressions.guard(tx)
            answered = await answers.begin_request(tx, request, now)
            if answered is not None:
                first = require_same(answered, request)
                return queue_pb2.SuppressUserResponse.FromString(first)
            before = await _lock_known(tx, user_id)
            made = Suppression(uuid4(), user_id, before.phone_e164, request.agent_id, now, notes)
            if await suppressions.insert(tx, made):
                after = before._replace(block=Block.DO_NOT_CONTACT)
                after = await _without_callback(tx, after, now)
                await write_moved(tx, [Moved(before, placement.placed(after, now))], now)
                await _place_sharers(tx, before, before.phone_e164, placement, now)
            await audit.note(tx, request.agent_id, Action.SUPPRESSED, [user_id], now)
            state = await self._state(tx, user_id)
            response = queue_pb2.SuppressUserResponse(call_state=state)
            await answers.finish_request(tx, request, response.SerializeToString())
        self._posted()
        return response

    async def lift(
        self, request: Request, user_id: UserId, notes: str
    ) -> queue_pb2.LiftSuppressionResponse:
        """Lift a person's suppression, or a "no claim": a fresh start, but no end of other waits.

        Raises NotFound, and FailedPrecondition when nothing stands that a person can lift.
        """
        now, placement = self._clock.now(), self._rulebook.placement
        async with self._database.transaction() as tx:
            await suppressions.guard(tx)
            answered = await answers.begin_request(tx, request, now)
            if answered is not None:
                first = require_same(answered, request)
                return queue_pb2.LiftSuppressionResponse.FromString(first)
            before = await _lock_known(tx, user_id)
            _require_liftable(before)
            number = await suppressions.lift(tx, user_id, request.agent_id, notes, now)
            after = before._replace(
                block=None,
                outcome_points=placement.rules.score.fresh,
                attempt_points=0.0,
                aged_from=now,
            )
            await write_moved(tx, [Moved(before, placement.placed(after, now))], now)
            # The number may have changed since.
            await _place_sharers(tx, before, number or before.phone_e164, placement, now)
            await audit.note(tx, request.agent_id, Action.SUPPRESSION_LIFTED, [user_id], now)
            state = await self._state(tx, user_id)
            response = queue_pb2.LiftSuppressionResponse(call_state=state)
            await answers.finish_request(tx, request, response.SerializeToString())
        self._posted()
        return response

    async def page(
        self, user_id: UserId | None, include_lifted: bool, size: int, token: str
    ) -> queue_pb2.ListSuppressionsResponse:
        """Return a page, the latest first; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        listed = ["suppressions", user_id, include_lifted]
        before = pages.read_moment(token, listed)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await suppressions.page(tx, user_id, include_lifted, before, limit + 1)
        shown = found[:limit]
        next_token = ""
        if len(found) > limit:
            last = shown[-1]
            next_token = pages.written_moment(last.created_at, last.suppression_id, listed)
        return queue_pb2.ListSuppressionsResponse(
            suppressions=[messages.suppression_message(it) for it in shown],
            next_page_token=next_token,
        )

    async def import_phones(
        self, header: ListHeader, parts: AsyncIterator[bytes]
    ) -> queue_pb2.ImportSuppressedPhonesResponse:
        """Take over a list of numbers, all at once or not at all; raises InvalidArgument."""
        if not header.list_name.strip() or len(header.list_name) > _LIST_NAME_LONGEST:
            raise InvalidArgument("LIST_NAME_INVALID", "the list's name is missing or too long")
        placement = self._rulebook.placement
        reader = PhoneListReader()
        async with self._database.transaction() as tx:
            await suppressions.begin_list(tx)
            async for part in parts:
                await _take_in(tx, reader.feed(part))
            await _take_in(tx, reader.feed(b"", is_last=True))
            if header.is_complete and reader.lines == reader.invalid:
                # Else a wrong file would take everybody off the list.
                raise InvalidArgument("LIST_EMPTY", "a complete list holds no number at all")
            now = self._clock.now()
            await suppressions.guard(tx)
            added, removed = await suppressions.take_over_list(
                tx, header.list_name, is_complete=header.is_complete
            )
            suppressed, released = await _place_listed(tx, placement, now)
            details = {"list_name": header.list_name, "added": str(added), "removed": str(removed)}
            await audit.note(tx, header.actor_id, Action.PHONES_IMPORTED, [None], now, **details)
        self._posted()
        return queue_pb2.ImportSuppressedPhonesResponse(
            lines=reader.lines,
            added=added,
            removed=removed,
            invalid=reader.invalid,
            invalid_lines=reader.invalid_lines,
            people_suppressed=suppressed,
            people_released=released,
        )

    async def _state(self, tx: Transaction, user_id: UserId) -> call_state_pb2.CallState:
        return await self._figures.state_within(tx, user_id)


def _require_liftable(entry: Entry) -> None:
    if entry.block is not None:
        return
    if entry.phone_block is not None:
        raise FailedPrecondition(
            "PHONE_SUPPRESSED", "the person's number is suppressed, not the person"
        )
    raise FailedPrecondition("NOT_SUPPRESSED", "nothing stops calls to the person")


async def _lock_known(tx: Transaction, user_id: UserId) -> Entry:
    """Lock everybody with the person's number, in the order of ids, and return the person."""
    # The guard keeps the number as it is between the two statements.
    phone = await entries.phone_of(tx, user_id)
    found = (await entries.lock_sharers(tx, user_id, phone)).get(user_id)
    if found is None:
        raise NotFound("USER_UNKNOWN", "the dialler knows no such person")
    return found


async def _without_callback(tx: Transaction, entry: Entry, now: datetime) -> Entry:
    callback = (await callbacks.open_of(tx, [entry.user_id])).get(entry.user_id)
    if callback is None:
        return entry
    closed = callback.ended(CallbackState.CLOSED, Reason.DO_NOT_CONTACT, now)
    await callbacks.update(tx, closed)
    metrics.CALLBACKS.labels("closed").inc()
    return entry.with_callback(closed)


async def _place_sharers(
    tx: Transaction, entry: Entry, phone_e164: str | None, placement: Placement, now: datetime
) -> None:
    """Place everybody else with that number by what now stands for it."""
    people = await entries.lock_sharers(tx, entry.user_id, phone_e164)
    others = [it for it in people.values() if it.user_id != entry.user_id]
    await place_by_number(tx, others, placement, now)


async def _take_in(tx: Transaction, phones: Sequence[str]) -> None:
    for start in range(0, len(phones), _BATCH):
        await suppressions.add_to_list(tx, phones[start : start + _BATCH])


async def _place_listed(tx: Transaction, placement: Placement, now: datetime) -> tuple[int, int]:
    """Place the people of a list that has changed; returns how many were stopped and freed."""
    user_ids = await suppressions.people_of_list(tx)
    suppressed = released = 0
    for start in range(0, len(user_ids), _BATCH):
        people = await entries.lock(tx, user_ids[start : start + _BATCH])
        for moved in await place_by_number(tx, list(people.values()), placement, now):
            was, is_ = moved.before.phone_block, moved.after.phone_block
            suppressed += was is None and is_ is not None
            released += was is not None and is_ is None
    return suppressed, released
