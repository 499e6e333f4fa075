"""Keeps the words of people's names: of those who changed within a moment, of all in sweeps."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.clock import Clock
from services.user_context.domain import UserId
from services.user_context.store_search import LARGEST_ID, MainAppPeople, NameStore

PEOPLE_PER_STEP = 1_000
# Beyond so many changed people the next sweep does the rest.
MOST_NOTICED = 100_000
# Share of the time in which a sweep is at work.
LOAD_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Followed:
    """What one run has taken up."""

    people: int
    has_more: bool


class NameIndex:
    """Follows names in the main app, so that search never has to read every row there.

    What a search shows is read from MySQL all the same: a name that is missing here for a moment
    is found late, and one that is here for too long is found out.
    """

    def __init__(
        self, people: MainAppPeople, names: NameStore, clock: Clock, *, sweep_seconds: float
    ) -> None:
        self._people = people
        self._names = names
        self._clock = clock
        self._sweep_every = timedelta(seconds=sweep_seconds)
        self._noticed: dict[UserId, None] = {}

    def notice(self, user_ids: Iterable[UserId]) -> None:
        """Have the names of these people read again soon."""
        if len(self._noticed) < MOST_NOTICED:
            self._noticed.update(dict.fromkeys(it for it in user_ids if it <= LARGEST_ID))

    async def run_once(self, now: datetime) -> Followed:
        """Take up the names of one batch of noticed people. Raises ServiceError."""
        del now
        batch = list(self._noticed)[:PEOPLE_PER_STEP]
        if not batch:
            return Followed(0, has_more=False)
        # Noticed anew while they are being read, they are read once more.
        for user_id in batch:
            del self._noticed[user_id]
        try:
            await self._names.replace(batch, await self._people.names_of(batch))
        except BaseException:
            self.notice(batch)
            raise
        return Followed(len(batch), has_more=bool(self._noticed))

    async def sweep_once(self, now: datetime) -> Followed:
        """Take up the names of the next people by id, when a sweep is due or under way."""
        began = self._clock.monotonic()
        async with self._names.sweeping() as step:
            if step is None:
                return Followed(0, has_more=False)
            sweep = step.sweep
            is_first = sweep.through_user_id == 0
            if is_first and self._is_early(sweep.completed_at, now):
                return Followed(0, has_more=False)
            after = sweep.through_user_id
            names = await self._people.names_after(after, PEOPLE_PER_STEP)
            is_last = len(names) < PEOPLE_PER_STEP
            through = LARGEST_ID if is_last else max(names)
            await step.take_up(after, through, names)
            reached = 0 if is_last else through
            await step.move(reached, now, is_first=is_first, is_last=is_last)
        if not is_last:
            spent = self._clock.monotonic() - began
            await asyncio.sleep(spent * (1 / LOAD_SHARE - 1))
        return Followed(len(names), has_more=not is_last)

    def _is_early(self, completed_at: datetime | None, now: datetime) -> bool:
        return completed_at is not None and now < completed_at + self._sweep_every
