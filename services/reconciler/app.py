"""Wiring."""

from functools import partial

from dialler.reconciler.v1 import reconciler_pb2_grpc

from servicekit.client import connect
from servicekit.clock import SystemClock
from servicekit.database import postgres_engine
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.server import GrpcServer
from services.reconciler.servicer import ReconcilerServicer
from services.reconciler.settings import ReconcilerSettings
from services.reconciler.store import Leadership, RunStore
from services.reconciler.sweep import Pace
from services.reconciler.upstreams import Upstreams
from services.reconciler.worker import Worker

SERVICE_NAME = "dialler.reconciler.v1.ReconcilerService"
_POOL_SIZE = 5
_STATEMENT_SECONDS = 5.0


def build(settings: ReconcilerSettings) -> Parts:
    """Return the whole service, not started."""
    clock = SystemClock()
    postgres_url = settings.postgres_url.get_secret_value()
    engine = postgres_engine(
        postgres_url,
        pool_size=_POOL_SIZE,
        application_name="reconciler",
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
    store = RunStore(engine)
    worker = Worker(
        store, Leadership(postgres_url), Upstreams(user_context, queue), _pace(settings), clock
    )
    loop = Loop("runs", worker.run_once, settings.poll_seconds, clock, stop_seconds=0.5)
    servicer = ReconcilerServicer(store, clock, loop.nudge)
    server = GrpcServer(
        settings,
        "reconciler",
        partial(reconciler_pb2_grpc.add_ReconcilerServiceServicer_to_server, servicer),
        [SERVICE_NAME],
        {"postgres": store.ping},
    )
    return Parts(
        Closing(engine.dispose),
        Closing(partial(user_context.close, None)),
        Closing(partial(queue.close, None)),
        Closing(worker.stop),
        loop,
        server,
    )


def _pace(settings: ReconcilerSettings) -> Pace:
    return Pace(
        page_users=settings.page_users,
        pages_in_flight=settings.pages_in_flight,
        retry_first_seconds=settings.retry_first_seconds,
        retry_longest_seconds=settings.retry_longest_seconds,
        give_up_seconds=settings.give_up_seconds,
    )
