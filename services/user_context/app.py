"""Puts the service together."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from dialler.queue.v1 import queue_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncEngine

from mainapp import description
from servicekit import client
from servicekit.clock import SystemClock
from servicekit.coalescing import Coalescer
from servicekit.database import mysql_engine, postgres_engine
from servicekit.errors import Unavailable
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.server import GrpcServer
from services.user_context.breaker import Breaker
from services.user_context.cache import ContextCache, Lifetimes
from services.user_context.call_states import CallStates
from services.user_context.changed_users import ChangedUsers
from services.user_context.chunk_walk import ChunkWalks
from services.user_context.cluster_redis import ClusterLink, is_cluster
from services.user_context.contexts import Contexts
from services.user_context.domain import REFRESH_LIMIT, UserId
from services.user_context.facts_stream import FactsStreams
from services.user_context.fingerprint_readings import FingerprintReadings
from services.user_context.invalidations import Invalidations
from services.user_context.metrics import CacheStats
from services.user_context.name_index import NameIndex
from services.user_context.pipelined_redis import PipelinedLink
from services.user_context.readings import MainAppReadings, Refreshed
from services.user_context.redis_link import RedisLink
from services.user_context.rendering import check_description
from services.user_context.replica_lag import ReplicaLag
from services.user_context.scan import TableScans
from services.user_context.search import PeopleSearch
from services.user_context.servicer import SERVICE_NAME, UserContextServicer, registering
from services.user_context.settings import UserContextSettings
from services.user_context.store import MainAppStore, OwnStore
from services.user_context.store_search import MainAppPeople, NameStore

# How soon a changed name can be searched for, and how often it is asked whether a sweep is due.
NAMES_SECONDS = 1.0
NAME_SWEEP_LOOK_SECONDS = 30.0

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
    # One at a time: a second stream of everybody is refused until the first has been read.
    stream_engine = _main_app(settings, "mysql_stream", 1, settings.mysql_bulk_seconds)
    own_engine = postgres_engine(
        settings.postgres_url.get_secret_value(),
        pool_size=settings.postgres_connections,
        application_name="user_context",
        statement_timeout_seconds=settings.postgres_seconds,
    )
    queue_channel = client.connect(
        settings.queue_target,
        name="queue",
        default_timeout_seconds=settings.queue_seconds,
        attempts=2,
    )
    live, bulk = MainAppStore(live_engine, described), MainAppStore(bulk_engine, described)
    own = OwnStore(own_engine)
    link = redis_link(settings)
    cache = ContextCache(
        link, breaker=Breaker(clock), clock=clock, lifetimes=_lifetimes(settings), stats=stats
    )
    readings = MainAppReadings(
        live=live,
        bulk=bulk,
        own=own,
        cache=cache,
        clock=clock,
        live_seconds=settings.mysql_live_seconds,
        bulk_seconds=settings.mysql_bulk_seconds,
    )
    queue = queue_pb2_grpc.QueueServiceStub(queue_channel)
    call_states = CallStates(queue.BatchGetCallStates, cache, clock)
    # A batch holds a connection: misses and refreshes may each use half of the bulk ones.
    half = max(1, settings.mysql_bulk_connections // 2)
    facts = Coalescer(
        readings.read_facts, max_keys=REFRESH_LIMIT, max_batches=settings.mysql_live_connections
    )
    people, names = MainAppPeople(bulk_engine, described), NameStore(own_engine)
    name_index = NameIndex(people, names, clock, sweep_seconds=settings.name_sweep_seconds)

    async def refreshed(user_ids: Sequence[UserId]) -> Mapping[UserId, Refreshed]:
        name_index.notice(user_ids)
        return await readings.refresh(user_ids)

    refreshes = Coalescer(refreshed, max_keys=REFRESH_LIMIT, max_batches=half)
    main = Coalescer(readings.load, max_keys=REFRESH_LIMIT, max_batches=half, is_exclusive=True)
    call = Coalescer(call_states.load, max_keys=REFRESH_LIMIT, max_batches=4, is_exclusive=True)
    invalidations = Invalidations(cache, own)
    lag = ReplicaLag(bulk_engine, clock, settings.mysql_replica_lag_seconds)
    walks = ChunkWalks(bulk_engine, described, clock, lag)
    servicer = UserContextServicer(
        contexts=Contexts(cache, main, call, stats),
        search=PeopleSearch(people, names, queue),
        facts=facts,
        refreshes=refreshes,
        invalidations=invalidations,
        main_app=bulk,
        streams=FactsStreams(
            TableScans(stream_engine, described),
            own,
            most_seconds=settings.mysql_stream_seconds,
        ),
        fingerprints=FingerprintReadings(bulk_engine, described, walks, clock),
        changed=ChangedUsers(walks, bulk, described, clock),
        cache=cache,
        stats=stats,
    )
    return Parts(
        Closing(live_engine.dispose),
        Closing(bulk_engine.dispose),
        Closing(stream_engine.dispose),
        Closing(own_engine.dispose),
        link,
        Closing(lambda: queue_channel.close(None)),
        *(Closing(batches.stop) for batches in (facts, refreshes, main, call)),
        Loop("unraised_fences", invalidations.run_once, settings.unraised_interval_seconds, clock),
        Loop("names", name_index.run_once, NAMES_SECONDS, clock),
        Loop("name_sweep", name_index.sweep_once, NAME_SWEEP_LOOK_SECONDS, clock),
        GrpcServer(
            settings,
            "user_context",
            registering(servicer),
            (SERVICE_NAME,),
            {"mysql or redis": _either(live.ping, cache.ping)},
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


def _lifetimes(settings: UserContextSettings) -> Lifetimes:
    return Lifetimes(
        main_fresh=settings.context_fresh_seconds,
        call_fresh=settings.call_state_fresh_seconds,
        absent_fresh=settings.absent_fresh_seconds,
        kept=settings.context_kept_seconds,
    )


def _either(first: Ping, second: Ping) -> Ping:
    """Without MySQL the last known contexts are served, without Redis present ones.

    So the process takes calls while it has either; the rest is the method's to say.
    """

    async def answers() -> None:
        try:
            await first()
        except Unavailable:
            await second()

    return answers


def redis_link(settings: UserContextSettings) -> RedisLink:
    """Return a way to the Redis or the cluster that the settings name."""
    url = settings.redis_url.get_secret_value()
    if is_cluster(url):
        return ClusterLink(url, timeout_seconds=settings.redis_seconds)
    return PipelinedLink(url, timeout_seconds=settings.redis_seconds)
