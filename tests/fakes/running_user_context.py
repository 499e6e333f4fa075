"""user_context in the test's process, beside a double of the queue."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from dialler.model.v1.facts_pb2 import PhoneNumbers, UserFacts
from dialler.user_context.v1 import user_context_pb2 as pb
from dialler.user_context.v1 import user_context_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from mainapp import description
from mainapp.description import Description
from servicekit import client
from servicekit.clock import SystemClock
from servicekit.database import mysql_engine, postgres_engine
from servicekit.migrations import upgrade
from servicekit.redis_client import is_cluster
from services.user_context.app import build
from services.user_context.cache.breaker import Breaker
from services.user_context.cache.cluster import ClusterLink
from services.user_context.cache.context_cache import ContextCache, Lifetimes
from services.user_context.cache.links import RedisLink
from services.user_context.cache.redis import PipelinedLink
from services.user_context.contexts.invalidations import Invalidations
from services.user_context.contexts.readings import MainAppReadings
from services.user_context.domain import UserId
from services.user_context.metrics import CacheStats
from services.user_context.mysql.reader import MainAppStore, PeopleReading
from services.user_context.mysql.rows import NO_MOMENT
from services.user_context.settings import UserContextSettings
from services.user_context.store import FenceStore
from tests.fakes.queue import FakeQueue
from tests.fakes.upstreams import double_server


def insertion(table: str, **values: object) -> tuple[str, list[object]]:
    """Return the statement that puts a row into a table of the main app, and its arguments."""
    columns = ", ".join(f"`{name}`" for name in values)
    places = ", ".join(["%s"] * len(values))
    # Names are the test's own.
    return f"INSERT INTO `{table}` ({columns}) VALUES ({places})", list(values.values())


@dataclass
class RunningUserContext:
    """The service and a stub that raises ServiceError."""

    stub: "user_context_pb2_grpc.UserContextServiceAsyncStub"
    channel: grpc.aio.Channel
    queue: FakeQueue
    settings: UserContextSettings
    address: str


_PATIENT = {
    "drain_seconds": 0.0,
    "default_deadline_seconds": 10.0,
    "redis_seconds": 3.0,
    "postgres_seconds": 5.0,
    "queue_seconds": 3.0,
    "mysql_live_seconds": 5.0,
    "mysql_bulk_seconds": 5.0,
    "unraised_interval_seconds": 1.0,
}


@asynccontextmanager
async def running_user_context(
    *, mysql_url: str, postgres_url: str, redis_url: str, **settings: Any
) -> AsyncIterator[RunningUserContext]:
    """Migrate, start the service beside a queue double, and stop both at the end.

    ``settings`` are fields of UserContextSettings by name. Time limits are longer than a service's
    own, so that a pause of the machine is not taken for an outage.
    """
    await upgrade(postgres_url, package="services.user_context", schema="user_context")
    queue = FakeQueue()  # type: ignore[abstract]
    queue_server = double_server("queue", queue)
    await queue_server.start()
    chosen = UserContextSettings(
        mysql_url=SecretStr(mysql_url),
        postgres_url=SecretStr(postgres_url),
        redis_url=SecretStr(redis_url),
        queue_target=queue_server.address,
        **(_PATIENT | settings),
    )
    service = build(chosen)
    await service.start()
    try:
        async with client.connect(
            service.address, name="user_context", default_timeout_seconds=10.0, attempts=1
        ) as channel:
            stub = user_context_pb2_grpc.UserContextServiceStub(channel)
            yield RunningUserContext(stub, channel, queue, chosen, service.address)
    finally:
        await service.stop()
        await queue_server.stop()


class FactsDecoder:
    """Takes the blocks of one stream, in order, apart into the facts of people.

    What the stream leaves out, ids of claims and of requirements among it, is unset.
    """

    def __init__(self) -> None:
        self._shared_facts: list[pb.SharedFacts] = []
        self._lenders: list[str | None] = [None]

    def people(self, block: pb.StreamUserFactsResponse) -> list[UserFacts]:
        """Return those in the block."""
        self._shared_facts += block.new_shared_facts
        self._lenders += block.new_lenders
        created = iter(zip(block.claim_created_at, block.claim_lenders, strict=True))
        people = [self._person(block, place, created) for place in range(len(block.user_ids))]
        for others in block.other_phones:
            people[others.position].phones.e164.extend(others.e164)
        assert next(created, None) is None, "claims without a person"
        return people

    def _person(
        self, block: pb.StreamUserFactsResponse, place: int, created: Iterator[tuple[int, int]]
    ) -> UserFacts:
        shared = self._shared_facts[block.shared_facts[place]]
        facts = UserFacts(
            user_id=block.user_ids[place],
            exists=True,
            is_enabled=shared.is_enabled,
            status=shared.status if shared.HasField("status") else None,
            has_signature=shared.has_signature,
            claims=shared.claims,
            phone_e164=block.phone_e164[place] or None,
            phones=PhoneNumbers(e164=filter(None, [block.phone_e164[place]])),
            date_of_birth=block.date_of_birth[place] or None,
            created_at=_moment(block.created_at[place]),
        )
        for claim in facts.claims:
            moment, lender = next(created)
            named = self._lenders[lender]
            if named is not None:
                claim.lender = named
            if (at := _moment(moment)) is not None:
                claim.created_at.CopyFrom(at)
        return facts


def _moment(seconds: int) -> Timestamp | None:
    return None if seconds == NO_MOMENT else Timestamp(seconds=seconds)


def link_to(redis_url: str, *, timeout_seconds: float = 5.0) -> RedisLink:
    """Return a link to one server or a cluster, as the service makes it."""
    kind = ClusterLink if is_cluster(redis_url) else PipelinedLink
    return kind(redis_url, timeout_seconds=timeout_seconds)


class PausableStore(MainAppStore):
    """Readings that have read and then, once ``pauses`` is set, wait until they are let go."""

    pauses = False

    def __init__(self, engine: AsyncEngine, described: Description) -> None:
        super().__init__(engine, described)
        self.has_read = asyncio.Event()
        self.let_go = asyncio.Event()

    async def read_people(
        self, user_ids: Sequence[UserId], *, fingerprinted: bool = False
    ) -> PeopleReading:
        """Read, then wait if `pauses` is set."""
        found = await super().read_people(user_ids, fingerprinted=fingerprinted)
        if self.pauses:
            self.has_read.set()
            await self.let_go.wait()
        return found


@dataclass
class TakenApart:
    """The parts of another process of the service that fill the cache."""

    readings: MainAppReadings
    store: PausableStore
    cache: ContextCache
    fences: FenceStore
    invalidations: Invalidations
    stats: CacheStats


@asynccontextmanager
async def taken_apart(
    *, mysql_url: str, postgres_url: str, redis_url: str
) -> AsyncIterator[TakenApart]:
    """Yield parts that work on the same servers as a running service."""
    clock, stats = SystemClock(), CacheStats()
    mysql = mysql_engine(mysql_url, pool_size=2, statement_timeout_seconds=5.0)
    postgres = postgres_engine(
        postgres_url, pool_size=2, application_name="test", statement_timeout_seconds=5.0
    )
    link = link_to(redis_url, timeout_seconds=2.0)
    cache = ContextCache(
        link,
        breaker=Breaker(clock),
        clock=clock,
        lifetimes=Lifetimes(main_fresh=900.0, call_fresh=300.0, absent_fresh=30.0, kept=3_600.0),
        stats=stats,
    )
    store, fences = PausableStore(mysql, description.load()), FenceStore(postgres)
    invalidations = Invalidations(cache, fences, clock, look_seconds=0.5)
    readings = MainAppReadings(
        live=store,
        bulk=store,
        fences=fences,
        cache=cache,
        invalidations=invalidations,
        clock=clock,
        live_seconds=60.0,
        bulk_seconds=60.0,
    )
    await link.start()
    try:
        yield TakenApart(readings, store, cache, fences, invalidations, stats)
    finally:
        await link.stop()
        await mysql.dispose()
        await postgres.dispose()
