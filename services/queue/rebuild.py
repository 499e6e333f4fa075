"""Everybody in line with the main app and the present rules, set by set.

All of it is read and worked out beside the queue first; then those who are new are added at once,
and those who differ are put right in batches by the very path that change events take. At no
moment is the queue empty or half built, and whoever is with an agent stays there.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import Conflict
from services.queue import metrics
from services.queue.domain.entries import Placement
from services.queue.domain.facts import UserFacts
from services.queue.domain.terms import Action, UserId
from services.queue.entry_check import placed_anew
from services.queue.facts_application import FactsApplication
from services.queue.facts_stream import Block, FactsStream
from services.queue.rulebook import Rulebook, hash_of
from services.queue.store import (
    audit,
    entries,
    rebuilding,
    rule_editions,
    suppressions,
)
from services.queue.store.database import Database
from services.queue.store.rebuilding import Page
from services.queue.writing import place_by_number, write_moved

# People written in one transaction: claims go on meanwhile.
_BATCH = 1_000

_READING = queue_pb2.REBUILD_PHASE_READING
_WRITING = queue_pb2.REBUILD_PHASE_WRITING
_DONE = queue_pb2.REBUILD_PHASE_DONE


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is."""

    phase: queue_pb2.RebuildPhase.ValueType = _READING
    people_read: int = 0
    people_new: int = 0
    people_different: int = 0
    people_written: int = 0
    conversions: int = 0
    through_user_id: int = 0
    last_user_id: int = 0


@dataclass(slots=True)
class _Run:
    """One rebuild: the rules and the moment it works by, and the stretches of ids it has read."""

    placement: Placement
    now: datetime
    progress: Progress = field(default_factory=Progress)
    pages: list[tuple[Page, int]] = field(default_factory=list)

    def tell(self, **figures: int) -> Progress:
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
        posted: Callable[[], None],
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._rulebook = rulebook
        self._facts = facts
        self._stream = stream
        self._clock = clock
        self._posted = posted

    async def run(self, actor_id: str) -> AsyncIterator[Progress]:
        """Yield how far it is until it is done.

        Raises Conflict (REBUILD_UNDER_WAY) while there is another, and Unavailable when the main
        app cannot be read; what has been written by then is right.
        """
        run = _Run(self._rulebook.placement, self._clock.now())
        async with self._database.transaction() as guard:
            if not await rebuilding.begin(guard):
                raise Conflict("REBUILD_UNDER_WAY", "another rebuild is under way")
            async with self._database.statements() as tx:
                await rebuilding.clear(tx)
            async for block in self._stream.blocks(run.placement, run.now):
                yield await self._read(run, block)
            run.progress = replace(run.progress, phase=_WRITING)
            yield await self._add_new(run)
            async for progress in self._write_different(run):
                yield progress
            async for progress in self._write_gone(run):
                yield progress
            async for progress in self._apply_rules(run):
                yield progress
            async with self._database.statements() as tx:
                now = self._clock.now()
                await audit.note(tx, actor_id, Action.REBUILT, [None], now)
                await rebuilding.clear(tx)
        yield replace(run.progress, phase=_DONE)

    async def run_if_rules_changed(self, now: datetime) -> Progress | None:
        """Rebuild if people have not been placed by the rules in force yet."""
        async with self._database.statements() as tx:
            edition = await rule_editions.latest(tx)
        ours = hash_of(self._rulebook.placement.rules)
        if edition is None or edition.is_applied or edition.rules_hash != ours:
            return None
        progress = None
        async for it in self.run("queue"):
            progress = it
        return progress

    async def _read(self, run: _Run, block: Block) -> Progress:
        page = Page(block.after, block.through)
        run.pages.append((page, block.version))
        async with self._database.transaction() as tx:
            known = await rebuilding.known_ids(tx, page)
            old = [it for it in block.people if it.user_id in known]
            new = [it for it in block.people if it.user_id not in known]
            apply = run.placement.apply_facts
            if old:
                await rebuilding.copy_people(tx, old)
            if new:
                found = (apply(None, it, run.now).after for it in new)
                await rebuilding.copy_entries(tx, found)
        through = min(block.through, block.last_user_id)
        run.progress = replace(
            run.progress, through_user_id=through, last_user_id=block.last_user_id
        )
        return run.tell(people_read=len(block.people), people_new=len(new))

    async def _add_new(self, run: _Run) -> Progress:
        """Add everybody who is new in one transaction, with what is known of their numbers."""
        if not run.progress.people_new:
            return run.progress
        placement, now = run.placement, run.now
        called_since = now - placement.shared_phone_rest
        async with self._database.transaction() as tx:
            await suppressions.guard(tx)
            added = await rebuilding.insert_new(tx)
            concerned = await rebuilding.new_with_known_number(tx, called_since)
            for start in range(0, len(concerned), _BATCH):
                people = await entries.lock(tx, concerned[start : start + _BATCH])
                await place_by_number(tx, list(people.values()), placement, now)
        metrics.FACTS.labels("applied").inc(added)
        self._posted()
        return run.tell(people_written=added)

    async def _write_different(self, run: _Run) -> AsyncIterator[Progress]:
        after = UserId(0)
        while True:
            async with self._database.statements() as tx:
                found = await rebuilding.different(tx, after, _BATCH)
            if not found:
                return
            after = found[-1].user_id
            applied = await self._facts.apply_assessed(found, {}, run.placement, run.now)
            yield run.tell(
                people_different=len(found),
                people_written=applied.applied,
                conversions=applied.conversions,
            )

    async def _write_gone(self, run: _Run) -> AsyncIterator[Progress]:
        """Take those out of the queue whom the main app no longer has."""
        for page, version in run.pages:
            after = UserId(0)
            while True:
                async with self._database.statements() as tx:
                    found = await rebuilding.gone(tx, page, after, _BATCH)
                if not found:
                    break
                after = found[-1]
                yield await self._remove(run, found, version)

    async def _remove(self, run: _Run, user_ids: Sequence[UserId], version: int) -> Progress:
        assess = run.placement.assessor.assess
        found = [
            assess(UserFacts(user_id=user_id, exists=False, version=version), run.now)
            for user_id in user_ids
        ]
        applied = await self._facts.apply_assessed(found, {}, run.placement, run.now)
        return run.tell(people_different=len(found), people_written=applied.applied)

    async def _apply_rules(self, run: _Run) -> AsyncIterator[Progress]:
        """Place everybody anew if that has not been done by the rules in force."""
        rules_hash = hash_of(run.placement.rules)
        async with self._database.statements() as tx:
            edition = await rule_editions.latest(tx)
        if edition is None or edition.is_applied or edition.rules_hash != rules_hash:
            return
        after: UserId | None = UserId(0)
        while after is not None:
            after, written = await self._place_page(run, after)
            yield run.tell(people_different=written, people_written=written)
        async with self._database.statements() as tx:
            await rule_editions.mark_applied(tx, rules_hash, self._clock.now())

    async def _place_page(self, run: _Run, after: UserId) -> tuple[UserId | None, int]:
        placement, now = run.placement, self._clock.now()
        async with self._database.transaction() as tx:
            page = await rebuilding.lock_page(tx, after, _BATCH)
            moved = await placed_anew(tx, page, placement, now)
            await write_moved(tx, moved, now)
        self._posted()
        written = sum(it.before != it.after for it in moved)
        return (page[-1].user_id if len(page) == _BATCH else None), written
