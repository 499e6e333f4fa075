"""Imports lists of phone numbers that must not be called, such as the TPS's.

A list is loaded as an edition, in batches that stay far below the statement timeout, without any
effect until one short transaction puts it in force. From then on no hand-out gives an agent a
person whose number is on it. The people concerned are placed after that, page by page, by the
import, or by any replica of the service if the import does not finish.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import Conflict, FailedPrecondition, InvalidArgument, ServiceError
from services.queue.domain.phone_lists import lists_of
from services.queue.people.placing import place_by_status
from services.queue.people.rulebook import Rulebook
from services.queue.store import audit, entries, phone_lists, suppressions
from services.queue.store.database import Database, Transaction
from services.queue.types import Action, UserId
from services.queue.wire import messages
from services.queue.wire.phone_list import PhoneListReader

# People looked at in one transaction.
_PAGE = 1_000
# Bytes that are parsed at a time: some ten milliseconds in which the event loop is blocked.
_PIECE = 32_768
_NAME_LONGEST = 100
_SOURCE_LONGEST = 200
# Shorter lists may lose any number of their numbers.
_SHRINKS_FROM = 100
_NUMBERS_BETWEEN_LOGS = 200_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ListHeader:
    """What an import says of its list: its name, the day it is of, its origin, and its actor.

    A dry run counts whom the list would concern, and puts nothing in force.
    """

    list_name: str
    actor_id: str
    is_complete: bool
    may_shrink: bool
    dated_on: date | None
    source: str
    is_dry_run: bool


@dataclass(frozen=True, slots=True)
class ListLimits:
    """How many numbers are loaded at a time, and what an import may do.

    An import that has been silent for `idle_seconds` counts as cut off. A complete list takes at
    most the share `shrinks_at_most` of a list's numbers off, unless its request allows more.
    """

    batch: int
    idle_seconds: float
    shrinks_at_most: float


@dataclass(slots=True)
class _Import:
    """One import under way: `known` of its numbers are on the list in force."""

    header: ListHeader
    edition_id: int
    reader: PhoneListReader = field(default_factory=PhoneListReader)
    numbers: int = 0
    known: int = 0
    removed: int = 0

    def log(self, event: str) -> None:
        """Log how far the import is."""
        details = {
            "list_name": self.header.list_name,
            "edition_id": self.edition_id,
            "numbers": self.numbers,
        }
        _log.info(event, extra=details)


@dataclass(frozen=True, slots=True)
class PlacedByList:
    """How many people may no longer be called, and how many may be called again."""

    suppressed: int = 0
    released: int = 0


@dataclass(frozen=True, slots=True)
class ListMaintenance:
    """What one run has done; `deleted` counts numbers of editions no longer in force."""

    placed: PlacedByList
    deleted: int
    has_more: bool


@dataclass(slots=True)
class _Sweep:
    """A pass over all numbers that deletes those of these editions."""

    edition_ids: Sequence[int]
    after: str = ""


class PhoneLists:
    """Imports lists and places people by them; any number of replicas may run."""

    def __init__(
        self, database: Database, rulebook: Rulebook, clock: Clock, limits: ListLimits
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._clock = clock
        self._limits = limits
        self._idle = timedelta(seconds=limits.idle_seconds)
        self._sweep: _Sweep | None = None
        self._abandonings: set[asyncio.Task[None]] = set()

    async def take_over(
        self, header: ListHeader, parts: AsyncIterator[bytes]
    ) -> queue_pb2.ImportSuppressedPhonesResponse:
        """Put a list in force, all of it at once or not at all, and place the people concerned.

        Raises InvalidArgument (LIST_NAME_INVALID, LIST_EMPTY, and what the reader raises), Conflict
        (LIST_IMPORT_UNDER_WAY, LIST_IMPORT_OVERTAKEN), and FailedPrecondition (LIST_SHRINKS). A
        failure while people are placed leaves the list in force; `run_once` finishes the placing.
        """
        if not header.list_name.strip() or len(header.list_name) > _NAME_LONGEST:
            raise InvalidArgument("LIST_NAME_INVALID", "the list's name is missing or too long")
        if len(header.source) > _SOURCE_LONGEST:
            raise InvalidArgument("LIST_SOURCE_INVALID", "the list's source is too long")
        now = self._clock.now()
        if header.dated_on is not None and header.dated_on > now.date() + timedelta(days=1):
            raise InvalidArgument("LIST_DATE_INVALID", "the list's date lies in the future")
        async with self._database.transaction() as tx:
            edition_id = await phone_lists.begin(
                tx,
                header.list_name,
                header.actor_id,
                is_complete=header.is_complete,
                dated_on=header.dated_on,
                source=header.source,
                now=now,
                idle_since=now - self._idle,
            )
        if edition_id is None:
            raise Conflict("LIST_IMPORT_UNDER_WAY", "this list is being imported already")
        taken = _Import(header, edition_id)
        try:
            await self._load(taken, parts)
            if header.is_dry_run:
                placed = await self._looked_ahead(taken)
                await self._abandon(taken)
                return _answer(taken, placed)
            await self._put_in_force(taken)
        except BaseException:
            # A caller who leaves, and so cancels this request, does not stop the abandoning.
            task = asyncio.create_task(self._abandon(taken))
            self._abandonings.add(task)
            task.add_done_callback(self._abandonings.discard)
            await asyncio.shield(task)
            raise
        return _answer(taken, await self._place([taken.edition_id]))

    async def lists(self) -> queue_pb2.ListPhoneListsResponse:
        """Return every list in force with its editions and its age."""
        oldest_days = self._rulebook.placement.rules.phone_lists.oldest_days
        async with self._database.statements() as tx:
            found = lists_of(await phone_lists.in_force(tx), oldest_days, self._clock.now())
        return queue_pb2.ListPhoneListsResponse(lists=map(messages.phone_list_message, found))

    async def run_once(self, now: datetime) -> ListMaintenance:
        """Finish what imports have left: place people, retire what is cut off, delete a batch."""
        async with self._database.statements() as tx:
            await phone_lists.retire_idle(tx, now - self._idle)
            edition_ids = await phone_lists.unplaced(tx, now - self._idle)
        placed = await self._place(edition_ids) if edition_ids else PlacedByList()
        async with self._database.statements() as tx:
            if self._sweep is None:
                retired = await phone_lists.retired(tx)
                if not retired:
                    return ListMaintenance(placed, 0, has_more=False)
                self._sweep = _Sweep(retired)
            sweep = self._sweep
            swept = await phone_lists.delete_retired_numbers(tx, sweep.after, self._limits.batch)
            if swept.through is None:
                await phone_lists.delete_editions(tx, sweep.edition_ids)
                self._sweep = None
            else:
                sweep.after = swept.through
        return ListMaintenance(placed, swept.deleted, has_more=self._sweep is not None)

    async def _load(self, taken: _Import, parts: AsyncIterator[bytes]) -> None:
        logged = 0
        async for phones in self._batches(taken.reader, parts):
            async with self._database.statements() as tx:
                loaded = await phone_lists.load(
                    tx, taken.edition_id, taken.header.list_name, phones, self._clock.now()
                )
            if loaded is None:
                raise _overtaken()
            taken.numbers += loaded.numbers
            taken.known += loaded.known
            if taken.numbers - logged >= _NUMBERS_BETWEEN_LOGS:
                logged = taken.numbers
                taken.log("phone_list_loading")

    async def _batches(
        self, reader: PhoneListReader, parts: AsyncIterator[bytes]
    ) -> AsyncIterator[list[str]]:
        """Yield batches of numbers, sorted for the sake of their index.

        Where numbers arrive slowly a batch may be small or empty: it shows that the import goes on.
        """
        size = self._limits.batch
        waiting: list[str] = []
        yielded_at = self._clock.now()
        async for part in parts:
            for start in range(0, len(part), _PIECE):
                waiting += reader.feed(part[start : start + _PIECE])
                while len(waiting) >= size or self._clock.now() - yielded_at > self._idle / 4:
                    yield sorted(waiting[:size])
                    del waiting[:size]
                    yielded_at = self._clock.now()
                await asyncio.sleep(0)
        waiting += reader.feed(b"", is_last=True)
        for start in range(0, len(waiting), size):
            yield sorted(waiting[start : start + size])

    async def _put_in_force(self, taken: _Import) -> None:
        header, now = taken.header, self._clock.now()
        async with self._database.transaction() as tx:
            await self._check_complete(tx, taken)
            is_current = await phone_lists.put_in_force(
                tx, taken.edition_id, header.list_name, is_complete=header.is_complete, now=now
            )
            if not is_current:
                raise _overtaken()
            details = {
                "list_name": header.list_name,
                "added": str(taken.numbers - taken.known),
                "removed": str(taken.removed),
            }
            await audit.note(tx, header.actor_id, Action.PHONES_IMPORTED, [None], now, **details)
        taken.log("phone_list_in_force")

    async def _check_complete(self, tx: Transaction, taken: _Import) -> None:
        """Count what a complete list takes off; raises where it is likely to be a wrong file."""
        header, reader = taken.header, taken.reader
        if not header.is_complete:
            return
        if reader.lines == reader.invalid:
            # Else a wrong file would take every number off the list.
            raise InvalidArgument("LIST_EMPTY", "a complete list holds no number at all")
        listed = await phone_lists.count(tx, header.list_name)
        taken.removed = listed - taken.known
        at_most = self._limits.shrinks_at_most * listed
        if listed > _SHRINKS_FROM and taken.removed > at_most and not header.may_shrink:
            # So many numbers are missing that the file may be torn.
            raise FailedPrecondition(
                "LIST_SHRINKS",
                f"the list would lose {taken.removed} of its {listed} numbers;"
                " say that it is meant to",
                numbers=str(listed),
                removed=str(taken.removed),
            )

    async def _looked_ahead(self, taken: _Import) -> PlacedByList:
        """Count whom the loaded list would concern; page by page, while people may move."""
        header, suppressed, released = taken.header, 0, 0
        async with self._database.statements() as tx:
            await self._check_complete(tx, taken)
        after: UserId | None = UserId(0)
        while after is not None:
            async with self._database.statements() as tx:
                page = await phone_lists.would_move(
                    tx,
                    taken.edition_id,
                    header.list_name,
                    is_complete=header.is_complete,
                    after=after,
                    limit=_PAGE,
                )
            suppressed += page.suppressed
            released += page.released
            after = page.through
        return PlacedByList(suppressed, released)

    async def _abandon(self, taken: _Import) -> None:
        # If it fails, `run_once` retires the edition, or the next import does.
        with suppress(ServiceError):
            async with self._database.statements() as tx:
                await phone_lists.abandon(tx, taken.edition_id)

    async def _place(self, edition_ids: Sequence[int]) -> PlacedByList:
        """Place all people whose entries differ from the lists in force, and mark these placed."""
        suppressed = released = 0
        # Transactions that read the lists before these were in force have ended after this.
        async with self._database.transaction() as tx:
            await suppressions.guard(tx)
        after: UserId | None = UserId(0)
        while after is not None:
            placement, now = self._rulebook.placement, self._clock.now()
            async with self._database.transaction() as tx:
                await suppressions.guard_shared(tx)
                page = await phone_lists.misplaced(tx, after, _PAGE)
                people = await entries.lock(tx, page.user_ids) if page.user_ids else {}
                for moved in await place_by_status(tx, list(people.values()), placement, now):
                    was, is_ = bool(moved.before.phone_block), bool(moved.after.phone_block)
                    suppressed += is_ and not was
                    released += was and not is_
            after = page.through
        async with self._database.statements() as tx:
            await phone_lists.mark_placed(tx, edition_ids)
        _log.info(
            "phone_list_placed",
            extra={"editions": edition_ids, "suppressed": suppressed, "released": released},
        )
        return PlacedByList(suppressed, released)


def _answer(taken: _Import, placed: PlacedByList) -> queue_pb2.ImportSuppressedPhonesResponse:
    reader = taken.reader
    return queue_pb2.ImportSuppressedPhonesResponse(
        lines=reader.lines,
        added=taken.numbers - taken.known,
        removed=taken.removed,
        invalid=reader.invalid,
        invalid_lines=reader.invalid_lines,
        people_suppressed=placed.suppressed,
        people_released=placed.released,
    )


def _overtaken() -> Conflict:
    return Conflict("LIST_IMPORT_OVERTAKEN", "the import stood still for too long and was given up")
