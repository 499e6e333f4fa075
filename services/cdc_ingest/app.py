"""Wiring."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import grpc.aio
from dialler.cdc_ingest.v1 import cdc_ingest_pb2_grpc

from mainapp import description
from servicekit import messaging
from servicekit.client import connect
from servicekit.clock import SystemClock
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.server import GrpcServer
from services.cdc_ingest import metrics, object_store
from services.cdc_ingest.change_files import ChangeFiles
from services.cdc_ingest.custody import Custody
from services.cdc_ingest.dead_letter_store import DeadLetterStore
from services.cdc_ingest.dead_letters import DeadLetters
from services.cdc_ingest.domain.people import PersonMap
from services.cdc_ingest.domain.rereading import Guard
from services.cdc_ingest.domain.retries import BackOff
from services.cdc_ingest.domain.staleness import Witness
from services.cdc_ingest.file_reader import FileReader
from services.cdc_ingest.gauges import Gauges
from services.cdc_ingest.ingest import Ingest
from services.cdc_ingest.intake import Intake
from services.cdc_ingest.metrics import Ledger
from services.cdc_ingest.object_store import ObjectStore
from services.cdc_ingest.pause import Pause
from services.cdc_ingest.receivers import Receivers
from services.cdc_ingest.refresher import Refresher
from services.cdc_ingest.servicer import CdcIngestServicer
from services.cdc_ingest.settings import CdcIngestSettings
from services.cdc_ingest.store import SqsStore
from services.cdc_ingest.store import connect as connect_sqs
from services.cdc_ingest.upstreams import Upstreams
from services.cdc_ingest.worker import Pipeline

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

SERVICE_NAME = "dialler.cdc_ingest.v1.CdcIngestService"
# Threads other than the receivers that talk to SQS at the same time.
_OTHER_CONNECTIONS = 8
_RECONCILER_TIMEOUT_SECONDS = 5.0
_FILE_THREADS = 2
_GAUGE_INTERVAL_SECONDS = 15.0


async def build(settings: CdcIngestSettings) -> Parts:
    """Return the whole service, not started."""
    clock = SystemClock()
    ledger = Ledger()
    intake = Intake(settings.max_messages_in_flight, settings.max_bytes_in_flight)
    # boto3 reads files when it makes a client.
    client = await asyncio.to_thread(_client, settings)
    sqs = SqsStore(
        client, settings.sqs_queue_url, settings.sqs_dlq_url, clock, settings.visibility_seconds
    )
    main_app = description.load()
    custody = Custody(
        sqs,
        intake,
        ledger,
        clock,
        visibility_seconds=settings.visibility_seconds,
        back_off=BackOff(settings.retry_first_seconds, settings.retry_longest_seconds),
    )
    metrics.show_horizon(custody.horizon)
    s3 = await asyncio.to_thread(_s3, settings)
    people, witness = PersonMap(main_app), Witness(main_app)
    receivers = Receivers(
        sqs,
        intake,
        people,
        witness,
        threads=settings.receivers,
        wait_seconds=settings.receive_wait_seconds,
        visibility_seconds=settings.visibility_seconds,
    )
    channels = _channels(settings)
    pipeline = Pipeline(
        Refresher(
            Upstreams(*channels),
            ledger,
            clock,
            batch_users=settings.batch_users,
            destination=messaging.destination(settings.sqs_queue_url),
        ),
        custody,
        intake,
        ledger,
        Guard(
            settle_seconds=settings.settle_seconds,
            patience_seconds=settings.stale_patience_seconds,
        ),
        clock,
        batch_users=settings.batch_users,
        batches_in_flight=settings.batches_in_flight,
        bulk_above_users=settings.bulk_above_users,
        max_receives=settings.max_receives,
        dead_letters_per_minute=settings.dead_letters_per_minute,
    )
    files = ChangeFiles(
        _file_reader(settings, s3, people, witness),
        custody,
        ledger,
        pipeline.accept,
        threads=_FILE_THREADS,
        max_receives=settings.max_receives,
    )
    keeper = Loop("custody", custody.run_once, settings.visibility_seconds / 6, clock)
    pause = Pause(sqs, intake, pipeline, clock)
    watch = Loop("pause", pause.run_once, settings.pause_poll_seconds, clock)
    ingest = Ingest(
        receivers,
        files,
        pipeline,
        custody,
        keeper,
        pause,
        watch,
        clock,
        drain_seconds=settings.drain_seconds,
    )
    letters = DeadLetterStore(client, settings.sqs_queue_url, settings.sqs_dlq_url)
    dead_letters = DeadLetters(letters, main_app, clock)
    servicer = CdcIngestServicer(
        sqs, intake, ledger, custody.horizon, pipeline, dead_letters, pause
    )
    server = GrpcServer(
        settings,
        "cdc_ingest",
        lambda grpc_server: cdc_ingest_pb2_grpc.add_CdcIngestServiceServicer_to_server(
            servicer, grpc_server
        ),
        [SERVICE_NAME],
        {"sqs": receivers.check},
    )
    closing = [Closing(partial(channel.close, None)) for channel in channels if channel is not None]
    closing += [Closing(partial(asyncio.to_thread, each.close)) for each in (client, s3)]
    gauges = Loop("gauges", Gauges(sqs).run_once, _GAUGE_INTERVAL_SECONDS, clock)
    return Parts(*closing, gauges, server, ingest)


def _file_reader(
    settings: CdcIngestSettings, s3: ObjectStore, people: PersonMap, witness: Witness
) -> FileReader:
    return FileReader(
        s3,
        people,
        witness,
        buckets=settings.allowed_buckets,
        max_bytes=settings.s3_max_object_bytes,
    )


def _s3(settings: CdcIngestSettings) -> ObjectStore:
    return object_store.connect(
        endpoint_url=settings.s3_endpoint_url,
        region=settings.aws_region,
        connections=_FILE_THREADS,
    )


def _client(settings: CdcIngestSettings) -> "SQSClient":
    return connect_sqs(
        endpoint_url=settings.sqs_endpoint_url,
        region=settings.aws_region,
        wait_seconds=settings.receive_wait_seconds,
        connections=settings.receivers + _OTHER_CONNECTIONS,
    )


def _channels(
    settings: CdcIngestSettings,
) -> tuple[grpc.aio.Channel, grpc.aio.Channel, grpc.aio.Channel | None]:
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
    if settings.reconciler_target is None:
        return user_context, queue, None
    reconciler = connect(
        settings.reconciler_target,
        name="reconciler",
        default_timeout_seconds=_RECONCILER_TIMEOUT_SECONDS,
    )
    return user_context, queue, reconciler
