"""Wiring of the queue."""

import grpc.aio
from dialler.queue.v1 import queue_pb2_grpc
from dialler.user_context.v1 import user_context_pb2_grpc
from redis.asyncio import Redis

from servicekit.client import connect
from servicekit.clock import Clock, SystemClock
from servicekit.database import postgres_engine
from servicekit.event_stream import EventStream
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.server import GrpcServer
from services.queue.assignment_desk import AssignmentDesk
from services.queue.claim_desk import ClaimDesk
from services.queue.claim_round import ClaimRound
from services.queue.dispatch import EventDispatch, NoticeDispatch, OutboxGauge
from services.queue.domain.entries import Placement
from services.queue.facts_application import FactsApplication
from services.queue.figures import Figures
from services.queue.housekeeping import Housekeeping
from services.queue.main_app import MainApp
from services.queue.promotion import Promotion
from services.queue.release_desk import ReleaseDesk
from services.queue.rules import load_rules
from services.queue.servicer import SERVICE_NAME, QueueServicer
from services.queue.settings import QueueSettings
from services.queue.store.database import Database

GAUGE_INTERVAL_SECONDS = 15.0


def build(settings: QueueSettings, clock: Clock | None = None) -> Parts:
    """Return the service; raises ValueError or OSError when the rules cannot be read."""
    clock = clock or SystemClock()
    placement = Placement(load_rules(settings.rules_path))
    engine = postgres_engine(
        settings.postgres_url.get_secret_value(),
        pool_size=settings.postgres_pool_size,
        application_name="dialler-queue",
        statement_timeout_seconds=settings.statement_timeout_seconds,
        is_behind_pgbouncer=settings.is_behind_pgbouncer,
    )
    database = Database(engine)
    redis = _redis(settings)
    channel = connect(
        settings.user_context_target,
        name="user_context",
        default_timeout_seconds=settings.live_check_seconds,
    )
    user_context = user_context_pb2_grpc.UserContextServiceStub(channel)

    events = EventDispatch(database, EventStream(redis))
    notices = NoticeDispatch(database, user_context, settings.default_deadline_seconds)
    event_loop = Loop("events", events.run_once, settings.dispatch_interval_seconds, clock)
    notice_loop = Loop("notices", notices.run_once, settings.dispatch_interval_seconds, clock)

    def posted() -> None:
        event_loop.nudge()
        notice_loop.nudge()

    main_app = MainApp(user_context, settings.live_check_seconds)
    facts = FactsApplication(database, placement, clock, posted)
    figures = Figures(database, placement, clock)
    assignment_desk = AssignmentDesk(database, placement, facts, main_app, figures, clock, posted)
    claim_desk = ClaimDesk(
        database,
        lambda: ClaimRound(database, placement, facts, main_app, clock, posted),
        assignment_desk,
        figures,
        clock,
        workers=settings.claim_workers,
        batch=settings.claim_batch,
    )
    release_desk = ReleaseDesk(
        database,
        placement,
        assignment_desk,
        clock,
        posted,
        workers=settings.claim_workers,
        batch=settings.claim_batch,
    )
    servicer = QueueServicer(
        facts, claim_desk, assignment_desk, release_desk, figures, placement.rules.assignment
    )

    def register(server: grpc.aio.Server) -> None:
        queue_pb2_grpc.add_QueueServiceServicer_to_server(servicer, server)

    promotion = Promotion(database, placement, posted)
    housekeeping = Housekeeping(database, placement.rules.retention)
    return Parts(
        Closing(engine.dispose),
        Closing(lambda: redis.aclose()),
        Closing(lambda: channel.close(None)),
        notice_loop,
        event_loop,
        Loop("promotion", promotion.run_once, settings.promotion_interval_seconds, clock),
        Loop("leases", assignment_desk.sweep_once, settings.lease_sweep_interval_seconds, clock),
        Loop(
            "housekeeping",
            housekeeping.run_once,
            settings.housekeeping_interval_seconds,
            clock,
        ),
        Loop("outbox-gauge", OutboxGauge(database).run_once, GAUGE_INTERVAL_SECONDS, clock),
        Closing(claim_desk.stop),
        Closing(release_desk.stop),
        GrpcServer(settings, "queue", register, [SERVICE_NAME], {"postgres": database.ping}),
    )


def _redis(settings: QueueSettings) -> Redis:
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
    )
