"""Readings of the main app: for misses, for refreshes and for live checks."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeVar

from dialler.model.v1.facts_pb2 import UserFacts

from servicekit.clock import Clock
from servicekit.errors import DeadlineExceeded, Unavailable
from services.user_context import metrics
from services.user_context.breaker import Breaker
from services.user_context.cache import BothForms, ContextCache, Filling, Grant
from services.user_context.domain import Part, Person, UserId
from services.user_context.redis_link import RedisAway
from services.user_context.rendering import RenderedPart, facts_message, render_main
from services.user_context.snapshots import main_app_unavailable
from services.user_context.store import MainAppStore, OwnStore

# Rendering a person takes about a fifth of a millisecond; hits must not wait for hundreds.
PEOPLE_PER_TURN = 20

_NO_GRANT = Grant(b"", b"\0" * 8)

T = TypeVar("T")


class Refreshed(NamedTuple):
    """What a refresh found of one person."""

    facts: UserFacts
    read_at: datetime


class _Rendered(NamedTuple):
    forms: dict[UserId, BothForms]
    parts: dict[UserId, RenderedPart]


class MainAppReadings:
    """Reads batches of people; which requests make up a batch is decided by the caller."""

    def __init__(
        self,
        *,
        live: MainAppStore,
        bulk: MainAppStore,
        own: OwnStore,
        cache: ContextCache,
        clock: Clock,
        live_seconds: float,
        bulk_seconds: float,
    ) -> None:
        self._live = live
        self._bulk = bulk
        self._own = own
        self._cache = cache
        self._clock = clock
        self._live_seconds = live_seconds
        self._bulk_seconds = bulk_seconds
        # Apart, so that slow bulk readings do not stop live checks.
        self._live_breaker = Breaker(clock)
        self._bulk_breaker = Breaker(clock)
        self._versions = Breaker(clock)

    async def read_facts(self, user_ids: Sequence[UserId]) -> Mapping[UserId, UserFacts]:
        """Return everybody's facts as of now, from MySQL alone."""
        metrics.observe_batch("facts", len(user_ids))
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
        """Read the main app's part of contexts and cache it; without versions only read it."""
        metrics.observe_batch("contexts", len(user_ids))
        version = await self._version_if_any()
        grants: Mapping[UserId, Grant] = {}
        if version is not None:
            grants = await self._cache.begin(Part.MAIN, user_ids, version)
        read_at = self._clock.now()
        people = await self._read_people(user_ids)
        rendered = await self._render(user_ids, people, version or 0, grants, read_at)
        await self._cache.fill(Part.MAIN, rendered.forms, grants)
        return rendered.forms

    async def refresh(self, user_ids: Sequence[UserId]) -> Mapping[UserId, Refreshed]:
        """Distrust what was read before, read anew, cache it, return the facts with a version.

        Raises Unavailable when MySQL (MAIN_APP_UNAVAILABLE) or PostgreSQL
        (VERSIONS_UNAVAILABLE) is away; Redis is not needed.
        """
        started = self._clock.monotonic()
        metrics.observe_batch("refresh", len(user_ids))
        with versions_needed():
            version = await self._own.draw_version()
            grants = await self._invalidated(user_ids, version)
        read_at = self._clock.now()
        people = await self._read_people(user_ids, fingerprinted=True)
        rendered = await self._render(user_ids, people, version, grants, read_at)
        await self._cache.fill(Part.MAIN, rendered.forms, grants)
        metrics.observe_refresh(self._clock.monotonic() - started)
        return {
            user_id: Refreshed(_facts(user_id, people, version, rendered.parts), read_at)
            for user_id in user_ids
        }

    async def _invalidated(
        self, user_ids: Sequence[UserId], version: int
    ) -> Mapping[UserId, Grant]:
        try:
            return await self._cache.invalidate(Part.MAIN, user_ids, version)
        except RedisAway:
            # It may be away for us alone, or come back with what it held: others would go on
            # serving that as fresh.
            await self._own.remember_unraised(Part.MAIN, dict.fromkeys(user_ids, version))
            metrics.count_unraised(len(user_ids))
            return {}

    async def _version_if_any(self) -> int | None:
        if not self._versions.allows():
            return None
        try:
            version = await self._own.draw_version()
        except (Unavailable, DeadlineExceeded):
            self._versions.failed()
            return None
        self._versions.succeeded()
        return version

    async def _read_people(
        self, user_ids: Sequence[UserId], *, fingerprinted: bool = False
    ) -> dict[UserId, Person]:
        read = partial(self._bulk.read_people, fingerprinted=fingerprinted)
        return await _asked(self._bulk_breaker, read, user_ids, self._bulk_seconds)

    async def _render(
        self,
        user_ids: Sequence[UserId],
        people: Mapping[UserId, Person],
        version: int,
        grants: Mapping[UserId, Grant],
        read_at: datetime,
    ) -> _Rendered:
        rendered = _Rendered({}, {})
        read_at_us = int(read_at.timestamp() * 1_000_000)
        for place, user_id in enumerate(user_ids, start=1):
            person = people.get(user_id)
            part = None
            if person is not None:
                part = rendered.parts[user_id] = render_main(person)
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


@contextmanager
def versions_needed() -> Iterator[None]:
    """Raise Unavailable (VERSIONS_UNAVAILABLE) when PostgreSQL is away."""
    try:
        yield
    except (Unavailable, DeadlineExceeded) as error:
        raise Unavailable(
            "VERSIONS_UNAVAILABLE",
            "the dialler's own database cannot be reached now",
            retry_after_seconds=1.0,
        ) from error


def _facts(
    user_id: UserId,
    people: Mapping[UserId, Person],
    version: int,
    parts: Mapping[UserId, RenderedPart],
) -> UserFacts:
    person = people.get(user_id)
    if person is None:
        return UserFacts(user_id=user_id, version=version)
    return facts_message(person, version, parts[user_id].fingerprint)
