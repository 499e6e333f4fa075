"""Applies the main app and the present rules to all people, batch by batch.

Everything is read and assessed in staging tables first. Then new people are added in batches from
the head of each queue on, and the facts of people who differ are applied in batches as change
events are. The head of a queue is right at every moment, and a person who is with an agent stays
there. What a rebuild that is cut off has written stays right, and the next one continues from it.

Two things keep a rebuild from doing harm. Its guard, an advisory lock on a connection of its own,
makes it the only one; and its row in `rebuild_runs` exists only while all staged rows do. Each
transaction checks both first. A person is taken for gone only after the whole stream was read,
when all people of the page are staged, and when a plausible number of people are gone.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import uuid4

from dialler.queue.v1 import queue_pb2

from servicekit.advisory_lock import AdvisoryLock
from servicekit.clock import Clock
from servicekit.database_failures import Contention
from servicekit.errors import Conflict, FailedPrecondition
from services.queue import metrics
from services.queue.domain.assessment import Assessment
from services.queue.domain.entries import Placement
from services.queue.domain.facts import UserFacts
from services.queue.maintenance.entry_check import placed_anew
from services.queue.maintenance.facts_stream import FactsBlock, FactsStream
from services.queue.people.apply_facts import FactsApplication
from services.queue.people.placing import place_by_status, write_moved
from services.queue.people.rulebook import Rulebook
from services.queue.rules import hash_of
from services.queue.store import (
    audit,
    entries,
    person_phones,
    rebuilding,
    rule_editions,
    suppressions,
)
from services.queue.store.database import Database, Transaction
from services.queue.store.rebuilding import Page, RankPosition, RebuildProgress, RebuildRun
from services.queue.types import Action, Queue, UserId

_log = logging.getLogger(__name__)

# People looked at in one statement for whether the main app still has them.
_STRETCH = 10_000
# So many people may always turn out to be gone: shares of few people say little.
_GONE_ALWAYS = 100

_READING = queue_pb2.REBUILD_PHASE_READING
_WRITING = queue_pb2.REBUILD_PHASE_WRITING
_DONE = queue_pb2.REBUILD_PHASE_DONE


@dataclass(frozen=True, slots=True)
class _PageRead:
    """A page that was read: how many people it has, and the version of the reading."""

    page: Page
    version: int
    people: int


@dataclass(slots=True)
class _Work:
    """One rebuild: its rules and moment, and the pages that it has read."""

    run: RebuildRun
    placement: Placement
    now: datetime
    allow_gone: bool
    progress: RebuildProgress = field(default_factory=lambda: RebuildProgress(_READING))
    pages: list[_PageRead] = field(default_factory=list)

    def count(self, **figures: int) -> RebuildProgress:
        """Add to the figures and return them."""
        sums = {name: getattr(self.progress, name) + number for name, number in figures.items()}
        self.progress = replace(self.progress, **sums)
        return self.progress


class Rebuild:
    """Rebuilds on request, and by itself when other rules are in force."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        facts: FactsApplication,
        stream: FactsStream,
        clock: Clock,
        guard: Callable[[], AdvisoryLock],
        batch: int,
        gone_share_at_most: float,
    ) -> None:
        """`guard` makes a lock on a connection of its own, with the key `rebuilding.GUARD`; `batch`
        is how many people are written in one transaction. A rebuild by which a greater share of
        the people would be gone takes none of them for gone.
        """
        self._database = database
        self._rulebook = rulebook
        self._facts = facts
        self._stream = stream
        self._clock = clock
        self._guard = guard
        self._batch = batch
        self._gone_share_at_most = gone_share_at_most

    async def run(
        self, actor_id: str, *, allow_gone: bool = False
    ) -> AsyncGenerator[RebuildProgress, None]:
        """Yield the progress until the rebuild is done; what has been written by then is right.

        Raises:
            Conflict: REBUILD_UNDER_WAY while there is another; REBUILD_GUARD_LOST when the guard
                is no longer held, or another rebuild has begun; REBUILD_STAGING_INCOMPLETE.
            FailedPrecondition: REBUILD_TOO_MANY_GONE, unless `allow_gone`; the rest is done.
            Unavailable: the main app cannot be read to its end.
        """
        progress = RebuildProgress(_READING)
        async with (
            self._guarded() as guard_pid,
            aclosing(self._rebuild(guard_pid, actor_id, allow_gone)) as steps,
        ):
            async for progress in steps:
                yield progress
        # The next may begin by now.
        yield replace(progress, phase=_DONE)

    async def run_if_rules_changed(self, now: datetime) -> RebuildProgress | None:
        """Rebuild if people have not been placed by the rules in force yet.

        Does nothing while another rebuild runs, also on another replica.
        """
        if not await self._has_new_rules(self._rulebook.placement):
            return None
        progress = None
        try:
            async with self._guarded() as guard_pid:
                # Another replica may have finished its rebuild meanwhile.
                if await self._has_new_rules(self._rulebook.placement):
                    async for it in self._rebuild(guard_pid, "queue", allow_gone=False):
                        progress = it
        except Conflict as error:
            if error.reason != "REBUILD_UNDER_WAY":
                raise
        return progress

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[int]:
        """Hold the guard until the end of the block; yields its PostgreSQL process id."""
        guard = self._guard()
        try:
            if not await guard.acquire():
                raise Conflict("REBUILD_UNDER_WAY", "another rebuild is under way")
            yield guard.pid
        finally:
            await guard.release()

    async def _rebuild(
        self, guard_pid: int, actor_id: str, allow_gone: bool
    ) -> AsyncGenerator[RebuildProgress, None]:
        now = self._clock.now()
        run = RebuildRun(uuid4(), guard_pid)
        work = _Work(run, self._rulebook.placement, now, allow_gone)
        await self._clear_staging()
        async with self._database.transaction() as tx:
            if not await rebuilding.begin(tx, run, actor_id, work.progress, now):
                raise _guard_lost()
        async with aclosing(self._stream.blocks(work.placement, work.now)) as blocks:
            async for block in blocks:
                yield await self._read(work, block)
        work.progress = replace(work.progress, phase=_WRITING)
        async with self._database.transaction() as tx:
            await self._hold(tx, work)
            await rebuilding.analyse(tx)
        for part in (self._add_new, self._write_different, self._apply_rules, self._write_gone):
            async for progress in part(work):
                yield progress
        async with self._database.transaction() as tx:
            await self._hold(tx, work)
            details = {"allow_gone": "true"} if allow_gone else {}
            await audit.note(tx, actor_id, Action.REBUILT, [None], self._clock.now(), **details)
        await self._clear_staging()

    async def _clear_staging(self) -> None:
        """Empty the staging tables; if another session reads them, housekeeping does so later.

        Rows of another run do no harm to this one.
        """
        try:
            async with self._database.transaction() as tx:
                await rebuilding.clear(tx)
        except Contention as error:
            _log.info("rebuild_staging_kept", extra={"error": error.reason})

    async def _hold(self, tx: Transaction, work: _Work) -> None:
        """Keep everything that was staged in place until the transaction ends."""
        if not await rebuilding.hold(tx, work.run, work.progress):
            raise _guard_lost()

    async def _read(self, work: _Work, block: FactsBlock) -> RebuildProgress:
        """Stage a block that was read; new people with their whole entry."""
        page = Page(block.after, block.through)
        new: list[Assessment] = []
        async with self._database.transaction() as tx:
            await self._hold(tx, work)
            if block.people:
                first, last = block.people[0].user_id, block.people[-1].user_id
                known = await rebuilding.known_among(tx, first, last)
                old = [it for it in block.people if it.user_id in known]
                new = [it for it in block.people if it.user_id not in known]
                if old:
                    await rebuilding.copy_people(tx, work.run, old)
                if new:
                    apply = work.placement.apply_facts
                    found = (apply(None, it, work.now).after for it in new)
                    await rebuilding.copy_entries(tx, work.run, found)
        work.pages.append(_PageRead(page, block.version, len(block.people)))
        through = min(block.through, block.last_user_id)
        work.progress = replace(
            work.progress, through_user_id=through, last_user_id=block.last_user_id
        )
        return work.count(people_read=len(block.people), people_new=len(new))

    async def _add_new(self, work: _Work) -> AsyncIterator[RebuildProgress]:
        """Add all new people: from the head of each queue on, then those not to be called."""
        if not work.progress.people_new:
            return
        heads: dict[Queue, RankPosition] = dict.fromkeys(Queue, RankPosition())
        while heads:
            for queue, after in list(heads.items()):
                async with self._database.statements() as tx:
                    found = await rebuilding.ready_after(tx, work.run, queue, after, self._batch)
                if not found:
                    del heads[queue]
                    continue
                heads[queue] = found[-1]
                yield await self._add(work, [it.user_id for it in found])
        for it in work.pages:
            async with self._database.statements() as tx:
                user_ids = await rebuilding.not_ready(tx, work.run, it.page)
            for start in range(0, len(user_ids), self._batch):
                yield await self._add(work, user_ids[start : start + self._batch])

    async def _add(self, work: _Work, user_ids: Sequence[UserId]) -> RebuildProgress:
        """Add new people in one transaction, with what is known of their numbers."""
        placement, now = work.placement, work.now
        called_since = now - placement.calls_kept
        async with self._database.transaction() as tx:
            await self._hold(tx, work)
            await suppressions.guard(tx)
            added = await rebuilding.insert_new(tx, work.run, user_ids, now)
            phones = await rebuilding.numbers_of(tx, work.run, user_ids)
            await person_phones.settle(tx, phones, placement.rules.calls.placeholder_people)
            concerned = await rebuilding.with_status(tx, work.run, user_ids, called_since)
            people = await entries.lock(tx, concerned)
            await place_by_status(tx, list(people.values()), placement, now)
            await suppressions.cover_numbers(tx, concerned)
        metrics.FACTS.labels("applied").inc(added)
        return work.count(people_written=added)

    async def _write_different(self, work: _Work) -> AsyncIterator[RebuildProgress]:
        async def first(tx: Transaction) -> None:
            await self._hold(tx, work)

        for it in work.pages:
            after: UserId | None = UserId(0)
            while after is not None:
                async with self._database.statements() as tx:
                    found = await rebuilding.different(tx, work.run, it.page, after, self._batch)
                after = found[-1].user_id if len(found) == self._batch else None
                if not found:
                    break
                applied = await self._facts.apply_assessed(
                    found, {}, work.placement, work.now, first
                )
                yield work.count(
                    people_different=len(found),
                    people_written=applied.applied,
                    conversions=applied.conversions,
                )

    async def _write_gone(self, work: _Work) -> AsyncIterator[RebuildProgress]:
        """Take people out of the queue whom the main app no longer has.

        Raises FailedPrecondition when they are an implausible share of all people.
        """
        found: list[tuple[_PageRead, list[UserId]]] = []
        gone = present = 0
        for it in work.pages:
            after: UserId | None = UserId(0)
            while after is not None:
                async with self._database.statements() as tx:
                    absence = await rebuilding.absence(
                        tx, work.run, it.page, it.version, after, _STRETCH
                    )
                after, present = absence.through, present + absence.present
                if absence.gone:
                    gone += len(absence.gone)
                    found.append((it, absence.gone))
        async with self._database.transaction() as tx:
            # All was staged while it was looked at.
            await self._hold(tx, work)
        is_blind = gone > 0 and not work.progress.people_read
        is_many = gone > max(_GONE_ALWAYS, present * self._gone_share_at_most)
        if (is_blind or is_many) and not work.allow_gone:
            raise _too_many_gone(gone, present)
        assess = work.placement.assessor.assess
        for it, user_ids in found:

            async def first(tx: Transaction, it: _PageRead = it) -> None:
                await self._hold(tx, work)
                if await rebuilding.staged(tx, work.run, it.page) != it.people:
                    raise Conflict("REBUILD_STAGING_INCOMPLETE", "people read are no longer staged")

            for start in range(0, len(user_ids), self._batch):
                batch = [
                    assess(UserFacts(user_id=user_id, exists=False, version=it.version), work.now)
                    for user_id in user_ids[start : start + self._batch]
                ]
                applied = await self._facts.apply_assessed(
                    batch, {}, work.placement, work.now, first
                )
                yield work.count(people_different=len(batch), people_written=applied.applied)

    async def _apply_rules(self, work: _Work) -> AsyncIterator[RebuildProgress]:
        """Place all people anew if that has not been done by the rules in force."""
        placement = work.placement
        if not await self._has_new_rules(placement):
            return
        after: UserId | None = UserId(0)
        while after is not None:
            now = self._clock.now()
            async with self._database.transaction() as tx:
                await self._hold(tx, work)
                page = await rebuilding.lock_page(tx, after, self._batch)
                moved = await placed_anew(tx, page, placement, now)
                await write_moved(tx, moved, now)
            after = page[-1].user_id if len(page) == self._batch else None
            written = sum(it.before != it.after for it in moved)
            yield work.count(people_different=written, people_written=written)
        async with self._database.transaction() as tx:
            await self._hold(tx, work)
            await rule_editions.mark_applied(tx, hash_of(placement.rules), self._clock.now())

    async def _has_new_rules(self, placement: Placement) -> bool:
        async with self._database.statements() as tx:
            edition = await rule_editions.latest(tx)
        ours = hash_of(placement.rules)
        return edition is not None and not edition.is_applied and edition.rules_hash == ours


def _too_many_gone(gone: int, present: int) -> FailedPrecondition:
    _log.error("rebuild_too_many_gone", extra={"people_gone": gone, "people_known": present})
    return FailedPrecondition(
        "REBUILD_TOO_MANY_GONE",
        f"{gone} of {present} people would be gone from the main app, so none was taken for"
        " gone; the rest is written. See whether the main app's tables are whole, then rebuild"
        " again, with allow_gone if these people are gone indeed",
        people_gone=str(gone),
        people_known=str(present),
    )


def _guard_lost() -> Conflict:
    return Conflict(
        "REBUILD_GUARD_LOST",
        "the rebuild lost its place and changes nothing more; what it has written is right",
    )
