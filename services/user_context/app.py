"""Builds the service from its settings."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from dialler.queue.v1 import queue_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncEngine

from mainapp import description
from servicekit import client
from servicekit.clock import SystemClock
from servicekit.coalescing import Coalescer
from servicekit.database import mysql_engine, postgres_engine, session_name
from servicekit.errors import Unavailable
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.migrations import SchemaCheck
from servicekit.redis_client import is_cluster
from servicekit.server import GrpcServer
from services.user_context.batch.facts_stream import FactsStreams
from services.user_context.cache.breaker import Breaker
from services.user_context.cache.cluster import ClusterLink
from services.user_context.cache.context_cache import ContextCache, Lifetimes
from services.user_context.cache.links import RedisLink
from services.user_context.cache.redis import PipelinedLink
from services.user_context.cache.rendering import check_description
from services.user_context.contexts.call_states import CallStates
from services.user_context.contexts.contexts import Contexts
from services.user_context.contexts.invalidations import Invalidations
from services.user_context.contexts.readings import MainAppReadings, RefreshedUser, Refreshes
from services.user_context.domain import REFRESH_LIMIT, UserId
from services.user_context.metrics import CacheStats
from services.user_context.mysql.changed_users import ChangedUsers
from services.user_context.mysql.chunk_reader import ChunkReader
from services.user_context.mysql.fingerprint_readings import FingerprintReadings
from services.user_context.mysql.reader import MainAppStore
from services.user_context.mysql.replica_lag import ReplicaLag
from services.user_context.mysql.scan import TableScans
from services.user_context.search.name_index import NameIndex
from services.user_context.search.people_search import PeopleSearch
from services.user_context.search.store import MainAppPeople, NameStore
from services.user_context.servicer import SERVICE_NAME, UserContextServicer, registering
from services.user_context.settings import UserContextSettings
from services.user_context.store import FenceStore
from services.user_context.tables import SCHEMA

# How soon a changed name is indexed, and how often a sweep is checked for being due.
NAMES_SECONDS = 1.0
NAME_SWEEP_LOOK_SECONDS = 30.0
REPLICA_LOOK_SECONDS = 10.0

Ping = Callable[[], Awaitable[None]]


def build(settings: UserContextSettings) -> Parts:
    """Return the service; nothing is connected yet.

    Raises ValueError when the main app's description cannot be rendered or an address is not one.
    """
    described = description.load(settings.description_path)
    check_description(described)
    clock = SystemClock()
    stats = CacheStats()
    live_engine = _main_app(
        settings, "mysql_live", settings.mysql_live_connections, settings.mysql_live_seconds
    )
    bulk_engine = _main_app(
        settings, "mysql_bulk", settings.mysql_bulk_connections, settings.mysql_bulk_seconds
    )
    # One connection: a second stream of all facts is refused until the first has been read.
    stream_engine = _main_app(settings, "mysql_stream", 1, settings.mysql_bulk_seconds)
    postgres = postgres_engine(
        settings.postgres_url.get_secret_value(),
        pool_size=settings.postgres_connections,
        application_name=session_name("user_context"),
        statement_timeout_seconds=settings.postgres_seconds,
    )
    queue_channel = client.connect(
        settings.queue_target,
        name="queue",
        default_timeout_seconds=settings.queue_seconds,
        attempts=2,
    )
    live, bulk = MainAppStore(live_engine, described), MainAppStore(bulk_engine, described)
    fences = FenceStore(postgres)
    link = redis_link(settings)
    lifetimes = Lifetimes(
        main_fresh=settings.context_fresh_seconds,
        call_fresh=settings.call_state_fresh_seconds,
        absent_fresh=settings.absent_fresh_seconds,
        kept=settings.context_kept_seconds,
    )
    cache = ContextCache(
        link, breaker=Breaker(clock), clock=clock, lifetimes=lifetimes, stats=stats
    )
    # Until the first run of the loop below: invalidations of an earlier process may be due.
    cache.distrust("STARTING")
    invalidations = Invalidations(
        cache, fences, clock, look_seconds=settings.unraised_interval_seconds
    )
    readings = MainAppReadings(
        live=live,
        bulk=bulk,
        fences=fences,
        cache=cache,
        invalidations=invalidations,
        clock=clock,
        live_seconds=settings.mysql_live_seconds,
        bulk_seconds=settings.mysql_bulk_seconds,
    )
    queue = queue_pb2_grpc.QueueServiceStub(queue_channel)
    call_states = CallStates(queue.BatchGetCallStates, cache, clock)
    # A batch holds a connection: misses and bulk refreshes share those that few changes leave.
    for_few = max(1, settings.mysql_bulk_connections // 5)
    half = max(1, (settings.mysql_bulk_connections - for_few) // 2)
    facts = Coalescer(
        readings.read_facts, max_keys=REFRESH_LIMIT, max_batches=settings.mysql_live_connections
    )
    people, names = MainAppPeople(bulk_engine, described), NameStore(postgres)
    name_index = NameIndex(people, names, clock, sweep_seconds=settings.name_sweep_seconds)

    async def refreshed(user_ids: Sequence[UserId]) -> Mapping[UserId, RefreshedUser]:
        name_index.mark_changed(user_ids)
        return await readings.refresh(user_ids)

    refreshes = Refreshes(
        few=Coalescer(refreshed, max_keys=REFRESH_LIMIT, max_batches=for_few),
        many=Coalescer(refreshed, max_keys=REFRESH_LIMIT, max_batches=half),
    )
    main = Coalescer(readings.load, max_keys=REFRESH_LIMIT, max_batches=half, is_exclusive=True)
    call = Coalescer(call_states.load, max_keys=REFRESH_LIMIT, max_batches=4, is_exclusive=True)
    lag = ReplicaLag(bulk_engine, clock, settings.mysql_replica_lag_seconds)
    chunk_reader = ChunkReader(bulk_engine, described, clock, lag)
    servicer = UserContextServicer(
        contexts=Contexts(cache, main, call, stats),
        search=PeopleSearch(people, names, queue),
        facts=facts,
        refreshes=refreshes,
        invalidations=invalidations,
        main_app=bulk,
        streams=FactsStreams(
            TableScans(stream_engine, described),
            fences,
            most_seconds=settings.mysql_stream_seconds,
        ),
        fingerprints=FingerprintReadings(bulk_engine, described, chunk_reader, clock),
        changed=ChangedUsers(chunk_reader, bulk, described, clock),
        cache=cache,
        stats=stats,
    )
    return Parts(
        Closing(live_engine.dispose),
        Closing(bulk_engine.dispose),
        Closing(stream_engine.dispose),
        Closing(postgres.dispose),
        link,
        Closing(lambda: queue_channel.close(None)),
        *(Closing(batches.stop) for batches in (facts, *refreshes, main, call)),
        Loop("unraised_fences", invalidations.run_once, settings.unraised_interval_seconds, clock),
        Loop("names", name_index.run_once, NAMES_SECONDS, clock),
        Loop("name_sweep", name_index.sweep_once, NAME_SWEEP_LOOK_SECONDS, clock),
        Loop("replica", lag.run_once, REPLICA_LOOK_SECONDS, clock),
        GrpcServer(
            settings,
            "user_context",
            registering(servicer),
            (SERVICE_NAME,),
            {
                "mysql or redis": _either(live.ping, cache.confirm),
                "schema": SchemaCheck(postgres, "services.user_context", SCHEMA),
            },
        ),
    )


def _main_app(
    settings: UserContextSettings, pool: str, connections: int, seconds: float
) -> AsyncEngine:
    return mysql_engine(
        settings.mysql_url.get_secret_value(),
        pool_size=connections,
        statement_timeout_seconds=seconds,
        tls_ca_file=settings.mysql_tls_ca_file,
        pool_name=pool,
    )


def _either(first: Ping, second: Ping) -> Ping:
    """Return a check that passes while one of two does.

    Without MySQL the service answers with the last known contexts, without Redis with those read
    anew, so it is ready while it has either.
    """

    async def answers() -> None:
        try:
            await first()
        except Unavailable:
            await second()

    return answers


def redis_link(settings: UserContextSettings) -> RedisLink:
    """Return the link to the Redis server or cluster that the settings name."""
    url = settings.redis_url.get_secret_value()
    link = ClusterLink if is_cluster(url) else PipelinedLink
    return link(url, timeout_seconds=settings.redis_seconds, tls_ca_file=settings.redis_tls_ca_file)
