"""The gateway's wiring."""

from dialler.binlog_relay.v1.binlog_relay_pb2_grpc import BinlogRelayServiceStub
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub
from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceStub
from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceStub
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway.access.audit import AccessTrail
from gateway.access.auth import Guard, verifier_of
from gateway.access.person_access import FoundPeople, PersonAccess
from gateway.access.rate_limit import RateLimiter
from gateway.api import Express, application
from gateway.channels import Channels
from gateway.http.compression import Compression
from gateway.http.edge import Edge, Uploads
from gateway.http.server import HttpServer
from gateway.live import sse
from gateway.live.hub import BLOCK_SECONDS, EventHub
from gateway.live.wallboard import Boards
from gateway.registry import Endpoints
from gateway.resources.agents import AgentRoutes
from gateway.resources.assignments import AssignmentRoutes
from gateway.resources.audit_entries import AuditRoutes
from gateway.resources.call_events import CallEventRoutes
from gateway.resources.callbacks import CallbackRoutes
from gateway.resources.contexts import ContextReads, ContextRoutes
from gateway.resources.dead_letters import DeadLetterRoutes
from gateway.resources.health import HealthRoutes, redis_check, service_check
from gateway.resources.pauses import PauseRoutes
from gateway.resources.people import PeopleRoutes
from gateway.resources.pipeline import PipelineReader, PipelineRoutes
from gateway.resources.queues import QueueRoutes
from gateway.resources.rebuilds import RebuildRoutes
from gateway.resources.reconciliations import ReconciliationRoutes
from gateway.resources.reference import ReferenceRoutes
from gateway.resources.reports import ReportRoutes
from gateway.resources.suppressions import PHONE_LISTS, SuppressionRoutes
from gateway.settings import GatewaySettings
from servicekit.clock import SystemClock
from servicekit.event_stream import EventStream
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.redis_client import RedisClient, redis_client

# How often views are written to the audit trail.
TRAIL_SECONDS = 0.5


def build(settings: GatewaySettings) -> Parts:
    """Return the gateway that `settings` describe, ready to be started."""
    clock = SystemClock()
    redis = _redis(settings, settings.redis_timeout_seconds)
    stream_redis = _redis(settings, BLOCK_SECONDS + 2.0)
    verifier = verifier_of(settings, clock)
    # Of its own: every request asks it.
    limits_redis = _redis(settings, settings.redis_timeout_seconds)
    limiter = RateLimiter(
        limits_redis,
        clock,
        per_second=settings.rate_limit_per_second,
        service_per_second=settings.service_rate_limit_per_second,
        address_per_second=settings.address_rate_limit_per_second,
    )
    channels = Channels(settings)
    user_context = UserContextServiceStub(channels.user_context)
    contexts = ContextReads(user_context)
    queue = QueueServiceStub(channels.queue)
    trail = AccessTrail(queue, clock)
    guard = Guard(verifier, limiter, trail, trusted_proxies=settings.trusted_proxies)
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
        queue,
        ingest,
        BinlogRelayServiceStub(channels.binlog_relay) if channels.binlog_relay else None,
        reconciler,
        events_lost=lambda: hub.lost,
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
    access = PersonAccess(queue, found, clock)
    endpoints = Endpoints(
        contexts=ContextRoutes(guard, contexts, access, trail),
        people=PeopleRoutes(user_context, queue, access, found, trail),
        queues=QueueRoutes(queue),
        assignments=AssignmentRoutes(queue, contexts, access, trail),
        call_events=CallEventRoutes(queue),
        agents=AgentRoutes(queue),
        callbacks=CallbackRoutes(queue, user_context, access, trail),
        suppressions=SuppressionRoutes(queue, access, trail, settings.upload_deadline_seconds),
        rebuilds=RebuildRoutes(queue, redis, clock),
        pipeline=PipelineRoutes(pipeline),
        reconciliations=ReconciliationRoutes(reconciler),
        dead_letters=DeadLetterRoutes(ingest),
        pauses=PauseRoutes(queue),
        audit=AuditRoutes(queue),
        reports=ReportRoutes(queue),
        reference=ReferenceRoutes(queue, clock),
        events=sse.EventRoutes(
            guard,
            hub,
            sse.Tickets(redis, clock, settings.event_ticket_seconds),
            queue,
            boards,
            sse.StreamTimeouts(
                setup_seconds=settings.request_deadline_seconds,
                heartbeat_seconds=settings.events_heartbeat_seconds,
                send_seconds=settings.events_send_seconds,
            ),
            clock,
        ),
        health=health,
    )
    described = application(guard, endpoints)
    # Contexts take the fast path uncompressed; larger answers of all others are compressed.
    app = Express(described, Compression(described, frozenset({sse.PATH})), endpoints.contexts)
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
        Closing(limits_redis.aclose),
        Closing(verifier.close),
        Closing(channels.close),
        Closing(trail.close),
        Closing(contexts.stop),
        Loop("access_trail", trail.run_once, TRAIL_SECONDS, clock),
        Closing(endpoints.rebuilds.close),
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


def _redis(settings: GatewaySettings, timeout_seconds: float) -> RedisClient:
    return redis_client(
        settings.redis_url.get_secret_value(),
        timeout_seconds=timeout_seconds,
        connect_timeout_seconds=min(timeout_seconds, 1.0),
        tls_ca_file=settings.redis_tls_ca_file,
    )
