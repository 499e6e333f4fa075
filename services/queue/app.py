"""Wiring of the queue."""

from collections.abc import Awaitable, Callable
from datetime import datetime

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
from services.queue.agent_desk import AgentDesk
from services.queue.assignment_desk import AssignmentDesk
from services.queue.audit_trail import AuditTrail
from services.queue.birthdays import Birthdays
from services.queue.callback_desk import CallbackDesk
from services.queue.claim_desk import ClaimDesk
from services.queue.claim_round import ClaimRound
from services.queue.dispatch import EventDispatch, NoticeDispatch
from services.queue.entry_check import EntryCheck
from services.queue.explaining import Explaining
from services.queue.facts_application import FactsApplication
from services.queue.facts_stream import FactsStream
from services.queue.figures import Figures
from services.queue.gauges import Gauges
from services.queue.housekeeping import Housekeeping
from services.queue.lookup_desk import LookupDesk
from services.queue.main_app import MainApp
from services.queue.outcome_desk import OutcomeDesk
from services.queue.promotion import Promotion
from services.queue.rebuild import Rebuild
from services.queue.rulebook import Rulebook
from services.queue.servicer import SERVICE_NAME, Desks, QueueServicer
from services.queue.settings import QueueSettings
from services.queue.store.database import Database
from services.queue.suppression_desk import SuppressionDesk
from services.queue.time_zones import TimeZones
from services.queue.upkeep import AppliedFacts, Upkeep

GAUGE_INTERVAL_SECONDS = 15.0


def build(settings: QueueSettings, clock: Clock | None = None) -> Parts:
    """Return the service; raises ValueError or OSError when the rules cannot be read."""
    clock = clock or SystemClock()
    engine = postgres_engine(
        settings.postgres_url.get_secret_value(),
        pool_size=settings.postgres_pool_size,
        application_name="dialler-queue",
        statement_timeout_seconds=settings.statement_timeout_seconds,
        is_behind_pgbouncer=settings.is_behind_pgbouncer,
    )
    database = Database(engine)
    rulebook = Rulebook(settings.rules_path, database, clock)
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
    facts = FactsApplication(database, rulebook, clock, posted)
    figures = Figures(database, rulebook, clock)
    assignment_desk = AssignmentDesk(database, rulebook, figures, clock, posted)
    callback_desk = CallbackDesk(database, rulebook, clock, posted)
    time_zones = TimeZones(database, clock)
    stream = FactsStream(user_context, settings.rebuild_seconds)
    rebuild = Rebuild(database, rulebook, facts, stream, clock, posted)
    claim_desk = ClaimDesk(
        database,
        lambda: ClaimRound(
            database, rulebook.placement, facts, main_app, time_zones, clock, posted
        ),
        assignment_desk,
        figures,
        clock,
        workers=settings.claim_workers,
        batch=settings.claim_batch,
    )
    housekeeping = Housekeeping(database, rulebook)
    desks = Desks(
        facts=facts,
        claims=claim_desk,
        assignments=assignment_desk,
        outcomes=OutcomeDesk(database, rulebook, facts, main_app, figures, clock, posted),
        callbacks=callback_desk,
        agents=AgentDesk(database, rulebook, figures, clock),
        suppressions=SuppressionDesk(database, rulebook, figures, clock, posted),
        figures=figures,
        explaining=Explaining(database, rulebook, main_app, clock),
        rebuild=rebuild,
        audit=AuditTrail(database, clock),
        applied_facts=AppliedFacts(database),
        entry_check=EntryCheck(database, rulebook, clock, posted),
        upkeep=Upkeep(housekeeping, assignment_desk, clock),
        lookup=LookupDesk(database, rulebook),
    )
    servicer = QueueServicer(desks, rulebook, clock)

    def register(server: grpc.aio.Server) -> None:
        queue_pb2_grpc.add_QueueServiceServicer_to_server(servicer, server)

    def every(name: str, run_once: Callable[[datetime], Awaitable[object]], seconds: float) -> Loop:
        return Loop(name, run_once, seconds, clock)

    promotion = Promotion(database, rulebook, posted)
    sweep_seconds = settings.lease_sweep_interval_seconds
    promotion_seconds = settings.promotion_interval_seconds
    rules_rebuild = every(
        "rules-rebuild", rebuild.run_if_rules_changed, settings.rules_interval_seconds
    )
    rulebook.on_change(rules_rebuild.nudge)
    return Parts(
        Closing(engine.dispose),
        Closing(lambda: redis.aclose()),
        Closing(lambda: channel.close(None)),
        rulebook,
        notice_loop,
        event_loop,
        every("rules", rulebook.run_once, settings.rules_interval_seconds),
        rules_rebuild,
        every("promotion", promotion.run_once, promotion_seconds),
        every("callbacks", callback_desk.close_once, promotion_seconds),
        every("leases", assignment_desk.sweep_once, sweep_seconds),
        every(
            "birthdays",
            Birthdays(database, facts, main_app).run_once,
            settings.housekeeping_interval_seconds,
        ),
        every(
            "housekeeping",
            housekeeping.run_once,
            settings.housekeeping_interval_seconds,
        ),
        every("gauges", Gauges(database).run_once, GAUGE_INTERVAL_SECONDS),
        Closing(claim_desk.stop),
        GrpcServer(settings, "queue", register, [SERVICE_NAME], {"postgres": database.ping}),
    )


def _redis(settings: QueueSettings) -> Redis:
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
    )
