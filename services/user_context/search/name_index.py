"""Keeps the words of people's names: soon after a change, and of all people in sweeps."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.clock import Clock
from services.user_context.domain import UserId
from services.user_context.search.store import LARGEST_ID, MainAppPeople, NameStore

PEOPLE_PER_STEP = 1_000
# Beyond so many changed people, the next sweep does the rest.
MOST_CHANGED = 100_000
# Share of the time in which a sweep works.
LOAD_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class IndexedNames:
    """How many people's names one run has indexed."""

    people: int
    has_more: bool


class NameIndex:
    """Indexes names of the main app, so that no search has to read every row there.

    A search reads the people it shows from MySQL: a name that the index lacks is found late, and a
    name that is no longer valid is not shown.
    """

    def __init__(
        self, people: MainAppPeople, names: NameStore, clock: Clock, *, sweep_seconds: float
    ) -> None:
        self._people = people
        self._names = names
        self._clock = clock
        self._sweep_every = timedelta(seconds=sweep_seconds)
        self._changed: dict[UserId, None] = {}

    def mark_changed(self, user_ids: Iterable[UserId]) -> None:
        """Index the names of these people again soon."""
        if len(self._changed) < MOST_CHANGED:
            self._changed.update(dict.fromkeys(it for it in user_ids if it <= LARGEST_ID))

    async def run_once(self, now: datetime) -> IndexedNames:
        """Index the names of one batch of changed people. Raises ServiceError."""
        del now
        batch = list(self._changed)[:PEOPLE_PER_STEP]
        if not batch:
            return IndexedNames(0, has_more=False)
        # A person who is marked again during the reading is read once more.
        for user_id in batch:
            del self._changed[user_id]
        try:
            await self._names.replace(batch, await self._people.names_of(batch))
        except BaseException:
            self.mark_changed(batch)
            raise
        return IndexedNames(len(batch), has_more=bool(self._changed))

    async def sweep_once(self, now: datetime) -> IndexedNames:
        """Index the names of the next people by id, when a sweep is due or has begun."""
        began = self._clock.monotonic()
        async with self._names.sweeping() as step:
            if step is None:
                return IndexedNames(0, has_more=False)
            sweep = step.sweep
            is_first = sweep.through_user_id == 0
            completed_at = sweep.completed_at
            if is_first and completed_at and now < completed_at + self._sweep_every:
                return IndexedNames(0, has_more=False)
            after = sweep.through_user_id
            names = await self._people.names_after(after, PEOPLE_PER_STEP)
            is_last = len(names) < PEOPLE_PER_STEP
            through = LARGEST_ID if is_last else max(names)
            await step.replace(after, through, names)
            reached = 0 if is_last else through
            await step.move(reached, now, is_first=is_first, is_last=is_last)
        if not is_last:
            spent = self._clock.monotonic() - began
            await asyncio.sleep(spent * (1 / LOAD_SHARE - 1))
        return IndexedNames(len(names), has_more=not is_last)
