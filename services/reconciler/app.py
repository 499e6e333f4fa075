"""Builds the reconciler from its settings."""

from datetime import timedelta
from functools import partial

import grpc.aio
from dialler.reconciler.v1 import reconciler_pb2_grpc

from servicekit.backoff import Backoff
from servicekit.client import connect
from servicekit.clock import SystemClock
from servicekit.database import postgres_engine, session_name
from servicekit.leadership import Leadership
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.migrations import SchemaCheck
from servicekit.server import GrpcServer
from services.reconciler.domain.runs import RunKind
from services.reconciler.domain.schedule import Schedule
from services.reconciler.runs.jobs import Jobs, RunLimits
from services.reconciler.runs.watch import FreshnessWatch
from services.reconciler.runs.worker import Worker
from services.reconciler.servicer import ReconcilerServicer
from services.reconciler.settings import ReconcilerSettings
from services.reconciler.store import LOCK_KEY, RunStore
from services.reconciler.tables import SCHEMA
from services.reconciler.upstreams import ReconcilerUpstreams

SERVICE_NAME = "dialler.reconciler.v1.ReconcilerService"
POSTGRES_POOL_SIZE = 5
_STATEMENT_SECONDS = 5.0
_INGEST_SECONDS = 2.0


def build(settings: ReconcilerSettings) -> Parts:
    """Return the whole service, not started."""
    clock = SystemClock()
    postgres_url = settings.postgres_url.get_secret_value()
    engine = postgres_engine(
        postgres_url,
        pool_size=POSTGRES_POOL_SIZE,
        application_name=session_name("reconciler"),
        statement_timeout_seconds=_STATEMENT_SECONDS,
    )
    user_context = connect(
        settings.user_context_target,
        name="user_context",
        default_timeout_seconds=settings.refresh_timeout_seconds,
    )
    queue = connect(
        settings.queue_target,
        name="queue",
        default_timeout_seconds=settings.apply_timeout_seconds,
    )
    ingest: grpc.aio.Channel | None = None
    if settings.cdc_ingest_target is not None:
        ingest = connect(
            settings.cdc_ingest_target,
            name="cdc_ingest",
            default_timeout_seconds=_INGEST_SECONDS,
        )
    upstreams = ReconcilerUpstreams(user_context, queue, ingest)
    store = RunStore(engine)
    schema = SchemaCheck(engine, "services.reconciler", SCHEMA)
    leadership = Leadership(postgres_url, LOCK_KEY, name=session_name("reconciler-lock"))
    jobs = Jobs(upstreams, store, _limits(settings), clock)
    worker = Worker(store, leadership, jobs, _schedule(settings), clock)
    loop = Loop("runs", worker.run_once, settings.poll_seconds, clock, stop_seconds=0.5)
    watch = FreshnessWatch(
        upstreams,
        store,
        leadership,
        clock,
        switch=settings.change_capture,
        silence=timedelta(seconds=settings.silence_seconds),
    )
    servicer = ReconcilerServicer(store, clock, loop.nudge)
    server = GrpcServer(
        settings,
        "reconciler",
        partial(reconciler_pb2_grpc.add_ReconcilerServiceServicer_to_server, servicer),
        [SERVICE_NAME],
        {"postgres": store.ping, "schema": schema, "leadership": leadership.check},
    )
    return Parts(
        Closing(engine.dispose),
        *(Closing(partial(it.close, None)) for it in (user_context, queue, ingest) if it),
        Closing(worker.stop),
        loop,
        Loop("capture_watch", watch.run_once, settings.watch_seconds, clock, stop_seconds=0.5),
        server,
    )


def _schedule(settings: ReconcilerSettings) -> Schedule:
    seconds = {
        RunKind.FULL: settings.full_every_seconds,
        RunKind.CHANGED: settings.changed_every_seconds,
        RunKind.WARMING: settings.warming_every_seconds,
        RunKind.HOUSEKEEPING: settings.housekeeping_every_seconds,
    }
    every = {kind: timedelta(seconds=each) for kind, each in seconds.items() if each}
    return Schedule(every, timedelta(seconds=settings.batch_every_seconds))


def _limits(settings: ReconcilerSettings) -> RunLimits:
    return RunLimits(
        page_users=settings.page_users,
        pages_in_flight=settings.pages_in_flight,
        load_share=settings.load_share,
        recheck_seconds=settings.recheck_seconds,
        recheck_longest_seconds=settings.recheck_longest_seconds,
        backoff=Backoff(settings.retry_first_seconds, settings.retry_longest_seconds),
        give_up_seconds=settings.give_up_seconds,
        changed_overlap=timedelta(seconds=settings.changed_overlap_seconds),
        changed_every=timedelta(seconds=settings.changed_every_seconds),
        warming_users=settings.warming_users,
        runs_kept=timedelta(days=settings.runs_kept_days),
        gone_share_at_most=settings.gone_share_at_most,
    )
