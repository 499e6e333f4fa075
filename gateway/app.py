"""The gateway, put together."""

from dialler.binlog_relay.v1.binlog_relay_pb2_grpc import BinlogRelayServiceStub
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub
from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceStub
from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceStub
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway import sse
from gateway.access import Access, FoundPeople
from gateway.access_trail import AccessTrail
from gateway.agents import AgentRoutes
from gateway.api import Endpoints, Express, application
from gateway.audit_entries import AuditRoutes
from gateway.auth import Guard, verifier_of
from gateway.callbacks import CallbackRoutes
from gateway.channels import Channels
from gateway.compression import Compression
from gateway.context_reads import ContextReads
from gateway.dead_letters import DeadLetterRoutes
from gateway.edge import Edge, Uploads
from gateway.events import BLOCK_SECONDS, EventHub
from gateway.health import HealthRoutes, redis_check, service_check
from gateway.people import PersonRoutes
from gateway.pipeline import PipelineReader
from gateway.rate_limit import RateLimiter
from gateway.rebuilds import RebuildRoutes
from gateway.reconciliations import ReconciliationRoutes
from gateway.reference import ReferenceRoutes
from gateway.resources import DeskRoutes
from gateway.routes import AssignmentRoutes, PeopleRoutes, PipelineRoutes, QueueRoutes
from gateway.server import HttpServer
from gateway.settings import GatewaySettings
from gateway.suppressions import PHONE_LISTS, SuppressionRoutes
from gateway.wallboard import Boards
from servicekit.clock import SystemClock
from servicekit.event_stream import EventStream
from servicekit.lifecycle import Closing, Loop, Parts

# How soon a view is in the audit trail.
TRAIL_SECONDS = 0.5


def build(settings: GatewaySettings) -> Parts:
    """Return the gateway that `settings` describe, ready to be started."""
    clock = SystemClock()
    redis = _redis(settings, settings.redis_timeout_seconds)
    stream_redis = _redis(settings, BLOCK_SECONDS + 2.0)
    verifier = verifier_of(settings, clock)
    limiter = _limiter(settings, clock)
    guard = Guard(verifier, limiter, trusted_proxies=settings.trusted_proxies)
    channels = Channels(settings)
    user_context = UserContextServiceStub(channels.user_context)
    contexts = ContextReads(user_context)
    queue = QueueServiceStub(channels.queue)
    hub = EventHub(
        EventStream(stream_redis),
        clients=settings.events_clients,
        clients_per_caller=settings.events_clients_per_caller,
        buffer=settings.events_buffer,
        replay=settings.events_replay,
    )
    health = HealthRoutes(
        {
            "user_context": service_check(channels.user_context),
            "queue": service_check(channels.queue),
            "redis": redis_check(redis),
        }
    )
    ingest = CdcIngestServiceStub(channels.cdc_ingest) if channels.cdc_ingest else None
    reconciler = ReconcilerServiceStub(channels.reconciler) if channels.reconciler else None
    pipeline = PipelineReader(
        user_context,
        ingest,
        BinlogRelayServiceStub(channels.binlog_relay) if channels.binlog_relay else None,
        reconciler,
    )
    boards = Boards(
        queue,
        pipeline,
        redis,
        clock,
        figures_seconds=settings.events_figures_seconds,
        history_seconds=settings.events_history_seconds,
    )
    found = FoundPeople(redis, settings.search_access_seconds)
    access = Access(queue, found, clock)
    trail = AccessTrail(queue, clock)
    desk = DeskRoutes(
        people=PersonRoutes(user_context, queue, access, found, trail),
        agents=AgentRoutes(queue),
        callbacks=CallbackRoutes(queue, access, trail),
        suppressions=SuppressionRoutes(queue, trail, settings.upload_deadline_seconds),
        rebuilds=RebuildRoutes(queue, redis, clock),
        audit=AuditRoutes(queue),
        reference=ReferenceRoutes(queue, clock),
    )
    endpoints = Endpoints(
        people=PeopleRoutes(guard, contexts, access, trail),
        queues=QueueRoutes(queue),
        assignments=AssignmentRoutes(queue, access),
        pipeline=PipelineRoutes(pipeline),
        reconciliations=ReconciliationRoutes(reconciler),
        dead_letters=DeadLetterRoutes(ingest),
        desk=desk,
        events=sse.EventRoutes(
            guard,
            hub,
            sse.Tickets(redis, clock, settings.event_ticket_seconds),
            queue,
            boards,
            _pace(settings),
            clock,
        ),
        health=health,
    )
    described = application(guard, endpoints)
    # Contexts pass by on the express as they are; what else is worth it is compressed.
    app = Express(described, Compression(described, frozenset({sse.PATH})), endpoints.people)
    server = HttpServer(
        _surrounded(app, settings),
        settings.http_host,
        settings.http_port,
        settings.drain_seconds,
        head_seconds=settings.head_seconds,
        max_head_bytes=settings.max_head_bytes,
    )
    return Parts(
        Closing(redis.aclose),
        Closing(stream_redis.aclose),
        Closing(limiter.close),
        Closing(verifier.close),
        Closing(channels.close),
        Closing(trail.close),
        Closing(contexts.stop),
        Loop("access_trail", trail.run_once, TRAIL_SECONDS, clock),
        Closing(desk.rebuilds.close),
        Closing(boards.stop),
        Loop("last_hour", boards.keep_hour, settings.events_history_seconds, clock),
        hub,
        server,
        # Before the server, which waits for open streams to end.
        Closing(hub.stop),
        Closing(health.drain),
    )


def _surrounded(app: ASGIApp, settings: GatewaySettings) -> ASGIApp:
    edge = Edge(
        app,
        deadline_seconds=settings.request_deadline_seconds,
        max_body_bytes=settings.max_body_bytes,
        streaming=frozenset({sse.PATH}),
        logs_access=settings.access_log,
        uploads=Uploads(PHONE_LISTS, settings.max_upload_bytes, settings.upload_deadline_seconds),
    )
    if not settings.cors_origins:
        return edge
    return CORSMiddleware(
        edge,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "PUT"],
        allow_headers=[
            "Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID",
            "traceparent",
        ],
        expose_headers=[
            "ETag", "Retry-After", "Trace-Id", "WWW-Authenticate", "Dialler-Stale",
            "Dialler-Cached", "Dialler-Read-At",
        ],
        max_age=600,
    )  # fmt: skip


def _redis(settings: GatewaySettings, timeout_seconds: float) -> Redis:
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(timeout_seconds, 1.0),
        # Who reads decides when to try again.
        retry=Retry(NoBackoff(), 0),
    )


def _limiter(settings: GatewaySettings, clock: SystemClock) -> RateLimiter:
    return RateLimiter(
        settings.redis_url.get_secret_value(),
        clock,
        per_second=settings.rate_limit_per_second,
        service_per_second=settings.service_rate_limit_per_second,
        address_per_second=settings.address_rate_limit_per_second,
        timeout_seconds=settings.redis_timeout_seconds,
    )


def _pace(settings: GatewaySettings) -> sse.Pace:
    return sse.Pace(
        setup_seconds=settings.request_deadline_seconds,
        heartbeat_seconds=settings.events_heartbeat_seconds,
        send_seconds=settings.events_send_seconds,
    )
