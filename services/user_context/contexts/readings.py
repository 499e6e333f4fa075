"""Readings of the main app: for misses, for refreshes and for live checks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeVar

from dialler.model.v1.facts_pb2 import UserFacts

from servicekit.backoff import UNAVAILABLE
from servicekit.clock import Clock
from servicekit.coalescing import Coalescer
from servicekit.errors import Unavailable
from services.user_context import metrics
from services.user_context.cache.breaker import Breaker
from services.user_context.cache.context_cache import BothForms, ContextCache, Filling, Grant
from services.user_context.cache.rendering import facts_message, render_main
from services.user_context.contexts.invalidations import Invalidations
from services.user_context.domain import Part, Person, UserId
from services.user_context.mysql.reader import MainAppStore, PeopleReading
from services.user_context.mysql.snapshots import main_app_unavailable
from services.user_context.store import FenceStore, versions_needed

# Rendering a person takes about 0.2 ms, for which cache hits have to wait.
PEOPLE_PER_TURN = 20
# Fewer than any bulk batch of cdc_ingest has, but for the last one of a burst.
FEW_PEOPLE = 50

_NO_GRANT = Grant(b"", b"\0" * 8)

T = TypeVar("T")


class RefreshedUser(NamedTuple):
    """The facts that a refresh has read of one person, and what MySQL had executed before."""

    facts: UserFacts
    read_at: datetime
    executed_gtids: str


class Refreshes(NamedTuple):
    """Refreshes of few people have batches of their own, so that none waits for bulk changes."""

    few: Coalescer[UserId, RefreshedUser]
    many: Coalescer[UserId, RefreshedUser]

    async def get(self, user_ids: Sequence[UserId]) -> Mapping[UserId, RefreshedUser]:
        """Return what a refresh that begins later has read of these people, and perhaps others."""
        batches = self.few if len(user_ids) <= FEW_PEOPLE else self.many
        return await batches.get(user_ids)


class _Rendered(NamedTuple):
    forms: dict[UserId, BothForms]
    # Only when they are asked for.
    facts: dict[UserId, UserFacts]


class MainAppReadings:
    """Reads batches of people; the caller decides which requests make up a batch."""

    def __init__(
        self,
        *,
        live: MainAppStore,
        bulk: MainAppStore,
        fences: FenceStore,
        cache: ContextCache,
        invalidations: Invalidations,
        clock: Clock,
        live_seconds: float,
        bulk_seconds: float,
    ) -> None:
        self._live = live
        self._bulk = bulk
        self._fences = fences
        self._cache = cache
        self._invalidations = invalidations
        self._clock = clock
        self._live_seconds = live_seconds
        self._bulk_seconds = bulk_seconds
        # Separate, so that slow bulk readings do not stop live checks.
        self._live_breaker = Breaker(clock)
        self._bulk_breaker = Breaker(clock)
        self._versions = Breaker(clock)

    async def read_facts(self, user_ids: Sequence[UserId]) -> Mapping[UserId, UserFacts]:
        """Return the facts of these people as of now, from MySQL alone."""
        metrics.MYSQL_BATCH_PEOPLE.labels("facts").observe(len(user_ids))
        people = await _asked(
            self._live_breaker, self._live.read_facts, user_ids, self._live_seconds
        )
        return {
            user_id: facts_message(people[user_id], 0, 0)
            if user_id in people
            else UserFacts(user_id=user_id)
            for user_id in user_ids
        }

    async def load(self, user_ids: Sequence[UserId]) -> Mapping[UserId, BothForms]:
        """Read the main app's part of contexts and cache it.

        Without PostgreSQL there are no versions, and the part is only read.
        """
        metrics.MYSQL_BATCH_PEOPLE.labels("contexts").observe(len(user_ids))
        version = 0
        grants: Mapping[UserId, Grant] = {}
        if self._versions.allows():
            try:
                version = await self._fences.draw_version()
            except UNAVAILABLE:
                self._versions.failed()
            else:
                self._versions.succeeded()
                grants = await self._cache.begin(Part.MAIN, user_ids, version)
        read_at = self._clock.now()
        people, _ = await self._read_people(user_ids)
        rendered = await self._render(user_ids, people, version, grants, read_at)
        await self._cache.fill(Part.MAIN, rendered.forms, grants)
        return rendered.forms

    async def refresh(self, user_ids: Sequence[UserId]) -> Mapping[UserId, RefreshedUser]:
        """Invalidate, read and cache the main app's part; return the facts with their version.

        Raises Unavailable when MySQL (MAIN_APP_UNAVAILABLE) or PostgreSQL (VERSIONS_UNAVAILABLE)
        does not answer; Redis is not needed.
        """
        started = self._clock.monotonic()
        metrics.MYSQL_BATCH_PEOPLE.labels("refresh").observe(len(user_ids))
        with versions_needed():
            version = await self._fences.draw_version()
            grants = await self._invalidations.invalidate_contexts(user_ids, version)
        read_at = self._clock.now()
        people, executed_gtids = await self._read_people(user_ids, fingerprinted=True)
        rendered = await self._render(user_ids, people, version, grants, read_at, with_facts=True)
        await self._cache.fill(Part.MAIN, rendered.forms, grants)
        metrics.REFRESH_SECONDS.observe(self._clock.monotonic() - started)
        return {
            user_id: RefreshedUser(facts, read_at, executed_gtids)
            for user_id, facts in rendered.facts.items()
        }

    async def _read_people(
        self, user_ids: Sequence[UserId], *, fingerprinted: bool = False
    ) -> PeopleReading:
        read = partial(self._bulk.read_people, fingerprinted=fingerprinted)
        return await _asked(self._bulk_breaker, read, user_ids, self._bulk_seconds)

    async def _render(
        self,
        user_ids: Sequence[UserId],
        people: Mapping[UserId, Person],
        version: int,
        grants: Mapping[UserId, Grant],
        read_at: datetime,
        *,
        with_facts: bool = False,
    ) -> _Rendered:
        rendered = _Rendered({}, {})
        read_at_us = int(read_at.timestamp() * 1_000_000)
        for place, user_id in enumerate(user_ids, start=1):
            person = people.get(user_id)
            part = None
            if person is not None:
                part = render_main(person)
            if with_facts:
                rendered.facts[user_id] = (
                    UserFacts(user_id=user_id, version=version)
                    if person is None or part is None
                    else facts_message(person, version, part.fingerprint)
                )
            run = grants.get(user_id, _NO_GRANT).run
            filling = Filling(user_id, version, part)
            rendered.forms[user_id] = self._cache.form(Part.MAIN, filling, run, read_at_us)
            if place % PEOPLE_PER_TURN == 0:
                await asyncio.sleep(0)
        return rendered


async def _asked(
    breaker: Breaker,
    read: Callable[[Sequence[UserId]], Awaitable[T]],
    user_ids: Sequence[UserId],
    seconds: float,
) -> T:
    if not breaker.allows():
        raise main_app_unavailable()
    try:
        async with asyncio.timeout(seconds):
            found = await read(user_ids)
    except TimeoutError:
        breaker.failed()
        raise main_app_unavailable() from None
    except Unavailable:
        breaker.failed()
        raise
    breaker.succeeded()
    return found
