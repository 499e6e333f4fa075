"""Builds the service from its parts."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from dialler.cdc_ingest.v1 import cdc_ingest_pb2_grpc

from mainapp import description
from servicekit import messaging
from servicekit.backoff import Backoff
from servicekit.client import connect
from servicekit.clock import SystemClock
from servicekit.lifecycle import Closing, Loop, Parts
from servicekit.server import GrpcServer
from services.cdc_ingest import metrics
from services.cdc_ingest.domain.people import PersonMap
from services.cdc_ingest.domain.rereading import StalenessCheck
from services.cdc_ingest.domain.staleness import RowObserver
from services.cdc_ingest.files import object_store
from services.cdc_ingest.files.change_files import ChangeFiles
from services.cdc_ingest.files.file_reader import FileReader
from services.cdc_ingest.refresh.ingest import IngestRunner
from services.cdc_ingest.refresh.pipeline import RefreshPipeline
from services.cdc_ingest.refresh.refresher import Refresher
from services.cdc_ingest.refresh.upstreams import Upstreams
from services.cdc_ingest.servicer import CdcIngestServicer
from services.cdc_ingest.settings import CdcIngestSettings
from services.cdc_ingest.sqs.dead_letter_store import DeadLetterStore
from services.cdc_ingest.sqs.dead_letters import DeadLetterQueue
from services.cdc_ingest.sqs.in_flight import InFlight
from services.cdc_ingest.sqs.pause import Pause
from services.cdc_ingest.sqs.queue import QueueDepthGauges, SqsStore
from services.cdc_ingest.sqs.queue import connect as connect_sqs
from services.cdc_ingest.sqs.receive_gate import ReceiveGate
from services.cdc_ingest.sqs.receivers import Receivers

if TYPE_CHECKING:
    pass

SERVICE_NAME = "dialler.cdc_ingest.v1.CdcIngestService"
# Connections for the threads other than receivers that send requests to SQS.
_OTHER_CONNECTIONS = 8
_RECONCILER_TIMEOUT_SECONDS = 5.0
_FILE_THREADS = 2
_GAUGE_INTERVAL_SECONDS = 15.0


async def build(settings: CdcIngestSettings) -> Parts:
    """Return the whole service, not started."""
    clock = SystemClock()
    pipeline_metrics = metrics.PipelineMetrics()
    gate = ReceiveGate(settings.max_messages_in_flight, settings.max_bytes_in_flight)
    # boto3 reads files when it makes a client.
    client = await asyncio.to_thread(
        connect_sqs,
        endpoint_url=settings.sqs_endpoint_url,
        region=settings.aws_region,
        wait_seconds=settings.receive_wait_seconds,
        connections=settings.receivers + _OTHER_CONNECTIONS,
    )
    sqs = SqsStore(
        client, settings.sqs_queue_url, settings.sqs_dlq_url, clock, settings.visibility_seconds
    )
    main_app = description.load()
    in_flight = InFlight(
        sqs,
        gate,
        pipeline_metrics,
        clock,
        visibility_seconds=settings.visibility_seconds,
        backoff=Backoff(settings.retry_first_seconds, settings.retry_longest_seconds),
    )
    metrics.show_watermark(in_flight.watermark)
    metrics.show_skew(pipeline_metrics.skew, clock)
    s3 = await asyncio.to_thread(
        object_store.connect,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.aws_region,
        connections=_FILE_THREADS,
    )
    people, observer = PersonMap(main_app), RowObserver(main_app)
    receivers = Receivers(
        sqs,
        gate,
        people,
        observer,
        threads=settings.receivers,
        wait_seconds=settings.receive_wait_seconds,
        visibility_seconds=settings.visibility_seconds,
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
    reconciler = None
    if settings.reconciler_target is not None:
        reconciler = connect(
            settings.reconciler_target,
            name="reconciler",
            default_timeout_seconds=_RECONCILER_TIMEOUT_SECONDS,
        )
    upstreams = Upstreams(user_context, queue, reconciler)
    pipeline = RefreshPipeline(
        Refresher(
            upstreams,
            pipeline_metrics,
            clock,
            batch_users=settings.batch_users,
            destination=messaging.destination(settings.sqs_queue_url),
        ),
        in_flight,
        gate,
        pipeline_metrics,
        StalenessCheck(
            settle_seconds=settings.settle_seconds,
            retry_seconds=settings.stale_patience_seconds,
        ),
        clock,
        batch_users=settings.batch_users,
        batches_in_flight=settings.batches_in_flight,
        bulk_above_users=settings.bulk_above_users,
        max_receives=settings.max_receives,
        dead_letters_per_minute=settings.dead_letters_per_minute,
    )
    files = ChangeFiles(
        FileReader(
            s3,
            people,
            observer,
            buckets=settings.allowed_buckets,
            max_bytes=settings.s3_max_object_bytes,
        ),
        in_flight,
        pipeline_metrics,
        pipeline.accept,
        threads=_FILE_THREADS,
        max_receives=settings.max_receives,
    )
    in_flight_loop = Loop("in_flight", in_flight.run_once, settings.visibility_seconds / 6, clock)
    pause = Pause(sqs, gate, pipeline.resume, clock)
    pause_loop = Loop("pause", pause.run_once, settings.pause_poll_seconds, clock)
    ingest = IngestRunner(
        receivers,
        files,
        pipeline,
        in_flight,
        in_flight_loop,
        pause,
        pause_loop,
        clock,
        drain_seconds=settings.drain_seconds,
    )
    letters = DeadLetterStore(client, settings.sqs_queue_url, settings.sqs_dlq_url)
    dead_letters = DeadLetterQueue(letters, main_app, upstreams.ask_full_run, clock)
    servicer = CdcIngestServicer(
        sqs, gate, pipeline_metrics, in_flight.watermark, pipeline, dead_letters, pause, clock
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
    channels = [user_context, queue, *([] if reconciler is None else [reconciler])]
    closing = [Closing(partial(channel.close, None)) for channel in channels]
    closing += [Closing(partial(asyncio.to_thread, each.close)) for each in (client, s3)]
    gauges = Loop("gauges", QueueDepthGauges(sqs).run_once, _GAUGE_INTERVAL_SECONDS, clock)
    return Parts(*closing, gauges, server, ingest)
