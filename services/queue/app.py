"""Wiring of the queue."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import grpc.aio
from dialler.queue.v1 import queue_pb2_grpc
from dialler.user_context.v1 import user_context_pb2_grpc

from servicekit.advisory_lock import AdvisoryLock
from servicekit.client import connect
from servicekit.clock import Clock, SystemClock
from servicekit.database import postgres_engine, session_name
from servicekit.event_stream import EventStream
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.migrations import SchemaCheck
from servicekit.redis_client import redis_client
from servicekit.server import GrpcServer
from services.queue.calls.agents import Agents
from services.queue.calls.amendments import Amendments
from services.queue.calls.call_events import CallEvents
from services.queue.calls.callbacks import Callbacks
from services.queue.calls.complaints import Complaints
from services.queue.calls.handout import Handout
from services.queue.calls.handout_batch import HandoutBatch
from services.queue.calls.leases import Leases
from services.queue.calls.named_handout import NamedHandout
from services.queue.calls.notes import PersonNotes
from services.queue.calls.outcomes import Outcomes
from services.queue.calls.pauses import Pauses
from services.queue.calls.suppressions import Suppressions
from services.queue.domain.longest_waiting import LongestWaitingShare
from services.queue.maintenance.applied_facts import AppliedFacts
from services.queue.maintenance.entry_check import EntryCheck
from services.queue.maintenance.facts_stream import FactsStream
from services.queue.maintenance.housekeeping import Housekeeping, PurgeExpired
from services.queue.maintenance.rebuild import Rebuild
from services.queue.maintenance.recovery import Recovery
from services.queue.maintenance.report_counts import ReportCounts
from services.queue.outbox.dispatch import EventDispatch, InvalidationDispatch
from services.queue.people.age_boundaries import AgeBoundaries
from services.queue.people.apply_facts import FactsApplication
from services.queue.people.phone_lists import ListLimits, PhoneLists
from services.queue.people.phone_placing import PhonePlacing
from services.queue.people.promotion import Promotion
from services.queue.people.refreshing import Refreshing
from services.queue.people.rulebook import Rulebook
from services.queue.people.time_zones import TimeZones
from services.queue.people.user_context_client import UserContextClient
from services.queue.reads.audit_trail import AuditTrail
from services.queue.reads.explain import Explanations
from services.queue.reads.figures import QueueFigures
from services.queue.reads.gauges import QueueGauges
from services.queue.reads.lookups import Lookups
from services.queue.reads.reports import Reports
from services.queue.servicer import SERVICE_NAME, QueueServicer, UseCases
from services.queue.settings import QueueSettings
from services.queue.store.database import Database
from services.queue.store.rebuilding import GUARD
from services.queue.store.tables import SCHEMA

GAUGE_INTERVAL_SECONDS = 15.0


def build(settings: QueueSettings, clock: Clock | None = None) -> Parts:
    """Return the service; raises ValueError or OSError when the rules cannot be read."""
    clock = clock or SystemClock()
    engine = postgres_engine(
        settings.postgres_url.get_secret_value(),
        pool_size=settings.postgres_pool_size,
        application_name=session_name("queue"),
        statement_timeout_seconds=settings.statement_timeout_seconds,
        is_behind_pgbouncer=settings.is_behind_pgbouncer,
    )
    database = Database(engine)
    rulebook = Rulebook(settings.rules_path, database, clock)
    redis = redis_client(
        settings.redis_url.get_secret_value(),
        timeout_seconds=settings.redis_timeout_seconds,
        tls_ca_file=settings.redis_tls_ca_file,
    )
    channel = connect(
        settings.user_context_target,
        name="user_context",
        default_timeout_seconds=settings.live_check_seconds,
    )
    user_context = user_context_pb2_grpc.UserContextServiceStub(channel)

    events = EventDispatch(database, EventStream(redis))
    invalidations = InvalidationDispatch(database, user_context, settings.default_deadline_seconds)
    event_loop = Loop("events", events.run_once, settings.dispatch_interval_seconds, clock)
    invalidation_loop = Loop(
        "notices", invalidations.run_once, settings.dispatch_interval_seconds, clock
    )

    def wake_dispatch() -> None:
        event_loop.nudge()
        invalidation_loop.nudge()

    database.after_outbox_commit(wake_dispatch)

    user_context_client = UserContextClient(user_context, settings.live_check_seconds)
    facts = FactsApplication(database, rulebook, clock)
    refreshing = Refreshing(user_context_client, facts)
    figures = QueueFigures(database, rulebook, clock)
    leases = Leases(database, rulebook, figures, clock)
    callbacks = Callbacks(database, rulebook, clock)
    time_zones = TimeZones(database, clock)
    stream = FactsStream(user_context, settings.rebuild_seconds)
    rebuild = Rebuild(
        database,
        rulebook,
        facts,
        stream,
        clock,
        guard=lambda: AdvisoryLock(
            settings.postgres_url.get_secret_value(),
            GUARD,
            name=session_name("queue-rebuild-lock"),
            is_behind_pgbouncer=settings.is_behind_pgbouncer,
        ),
        batch=settings.rebuild_batch,
        gone_share_at_most=settings.rebuild_gone_share_at_most,
    )
    share = LongestWaitingShare()
    handout = Handout(
        database,
        lambda: HandoutBatch(
            database, rulebook.placement, refreshing, user_context_client, time_zones, clock, share
        ),
        leases,
        figures,
        clock,
        workers=settings.claim_workers,
        batch=settings.claim_batch,
    )
    phone_placing = PhonePlacing(database, rulebook)
    housekeeping = Housekeeping(database, rulebook, phone_placing)
    list_limits = ListLimits(
        batch=settings.phone_list_batch,
        idle_seconds=settings.phone_list_idle_seconds,
        shrinks_at_most=settings.phone_list_shrinks_at_most,
    )
    phone_lists = PhoneLists(database, rulebook, clock, list_limits)
    use_cases = UseCases(
        facts=facts,
        handout=handout,
        named_handout=NamedHandout(database, rulebook, facts, user_context_client, leases, clock),
        leases=leases,
        outcomes=Outcomes(database, rulebook, facts, user_context_client, figures, clock),
        call_events=CallEvents(database, rulebook, clock),
        amendments=Amendments(database, rulebook, figures, clock),
        callbacks=callbacks,
        agents=Agents(database, rulebook, figures, clock),
        suppressions=Suppressions(database, rulebook, user_context_client, figures, clock),
        complaints=Complaints(database, clock),
        notes=PersonNotes(database, clock),
        pauses=Pauses(database, rulebook, clock),
        phone_lists=phone_lists,
        figures=figures,
        explanations=Explanations(database, rulebook, user_context_client, clock),
        rebuild=rebuild,
        audit=AuditTrail(database, clock),
        applied_facts=AppliedFacts(database),
        entry_check=EntryCheck(database, rulebook, clock),
        purge_expired=PurgeExpired(housekeeping, leases, clock),
        lookups=Lookups(database, rulebook),
        reports=Reports(database, rulebook),
    )
    servicer = QueueServicer(use_cases, rulebook, clock)

    def register(server: grpc.aio.Server) -> None:
        queue_pb2_grpc.add_QueueServiceServicer_to_server(servicer, server)

    def every(name: str, run_once: Callable[[datetime], Awaitable[object]], seconds: float) -> Loop:
        return Loop(name, run_once, seconds, clock)

    promotion = Promotion(database, rulebook)
    age_boundaries = AgeBoundaries(database, refreshing)
    housekeeping_seconds = settings.housekeeping_interval_seconds
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
        invalidation_loop,
        event_loop,
        every("rules", rulebook.run_once, settings.rules_interval_seconds),
        rules_rebuild,
        every("promotion", promotion.run_once, promotion_seconds),
        every("phones", phone_placing.run_once, promotion_seconds),
        every("callbacks", callbacks.close_once, promotion_seconds),
        every("leases", leases.sweep_once, sweep_seconds),
        every("phone-lists", phone_lists.run_once, settings.phone_list_interval_seconds),
        every("age-boundaries", age_boundaries.run_once, housekeeping_seconds),
        every("housekeeping", housekeeping.run_once, housekeeping_seconds),
        every(
            "reports",
            ReportCounts(database, rulebook).run_once,
            settings.report_interval_seconds,
        ),
        every(
            "gauges",
            QueueGauges(database, rulebook, TimeZones(database, clock)).run_once,
            GAUGE_INTERVAL_SECONDS,
        ),
        Closing(handout.stop),
        GrpcServer(
            settings,
            "queue",
            register,
            [SERVICE_NAME],
            {"postgres": database.ping, "schema": SchemaCheck(engine, "services.queue", SCHEMA)},
        ),
    )


_RECOVERY_SECONDS = 30.0


@asynccontextmanager
async def recovering(
    settings: QueueSettings, clock: Clock | None = None
) -> AsyncIterator[Recovery]:
    """Yield what enters deeds again after a restore; no queue need run."""
    clock = clock or SystemClock()
    engine = postgres_engine(
        settings.postgres_url.get_secret_value(),
        pool_size=settings.postgres_pool_size,
        application_name="dialler-queue-recover",
        statement_timeout_seconds=settings.statement_timeout_seconds,
        is_behind_pgbouncer=settings.is_behind_pgbouncer,
    )
    database = Database(engine)
    rulebook = Rulebook(settings.rules_path, database, clock)
    # People are read many at a time, and no agent waits.
    seconds = _RECOVERY_SECONDS
    try:
        async with connect(
            settings.user_context_target, name="user_context", default_timeout_seconds=seconds
        ) as channel:
            await rulebook.start()
            user_context = UserContextClient(
                user_context_pb2_grpc.UserContextServiceStub(channel), seconds
            )
            facts = FactsApplication(database, rulebook, clock)
            figures = QueueFigures(database, rulebook, clock)
            yield Recovery(
                database,
                Leases(database, rulebook, figures, clock),
                Outcomes(database, rulebook, facts, user_context, figures, clock),
                Suppressions(database, rulebook, user_context, figures, clock),
                Refreshing(user_context, facts),
                clock,
            )
    finally:
        await engine.dispose()
