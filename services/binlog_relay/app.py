"""Builds the relay from its settings."""

import logging
import zlib
from functools import partial

from dialler.binlog_relay.v1.binlog_relay_pb2_grpc import add_BinlogRelayServiceServicer_to_server
from dialler.reconciler.v1 import reconciler_pb2_grpc

from mainapp import description
from servicekit.client import connect
from servicekit.clock import SystemClock
from servicekit.database import postgres_engine, session_name
from servicekit.leadership import Leadership
from servicekit.lifecycle import Closing, Parts
from servicekit.migrations import SchemaCheck
from servicekit.server import GrpcServer
from services.binlog_relay.binlog.server import MySqlSource
from services.binlog_relay.domain.packing import PackingLimits
from services.binlog_relay.full_run_requests import FullRunRequests
from services.binlog_relay.leadership import RelayOptions, RelayResources
from services.binlog_relay.publish.publisher import Publisher
from services.binlog_relay.servicer import BinlogRelayServicer
from services.binlog_relay.settings import BinlogRelaySettings
from services.binlog_relay.store import PositionStore, lock_key
from services.binlog_relay.tables import SCHEMA
from services.binlog_relay.worker import BinlogRelay

POSTGRES_POOL_SIZE = 2
_STATEMENT_SECONDS = 3.0


def build(settings: BinlogRelaySettings) -> Parts:
    """Return the relay with its gRPC server; connects to nothing yet."""
    # The library warns of each lost connection; the relay handles and logs these itself.
    logging.getLogger("pymysqlreplication").setLevel(logging.ERROR)
    clock = SystemClock()
    postgres_url = settings.postgres_url.get_secret_value()
    engine = postgres_engine(
        postgres_url,
        pool_size=POSTGRES_POOL_SIZE,
        application_name=session_name("binlog_relay"),
        statement_timeout_seconds=_STATEMENT_SECONDS,
    )
    store = PositionStore(engine, settings.source_name)
    channel = connect(settings.reconciler_target, name="reconciler", default_timeout_seconds=2.0)
    full_runs = FullRunRequests(
        reconciler_pb2_grpc.ReconcilerServiceStub(channel), clock, settings.retry_longest_seconds
    )
    publisher = Publisher(
        settings.sqs_queue_url,
        endpoint_url=settings.sqs_endpoint_url,
        region=settings.aws_region,
        sends_in_flight=settings.sends_in_flight,
        retry_longest_seconds=settings.retry_longest_seconds,
    )
    # MySQL drops an older connection with the same id, so two replicas must not take turns with
    # one: only the one that holds the lock connects.
    derived = 0x4000_0000 | zlib.crc32(settings.source_name.encode()) >> 2
    options = RelayOptions(
        limits=PackingLimits(
            settings.max_records_per_message,
            settings.max_message_bytes,
            settings.max_request_bytes,
        ),
        max_record_bytes=settings.max_record_bytes,
        bulk_above_bytes=settings.bulk_above_bytes,
        server_id=settings.server_id or derived,
        heartbeat_seconds=settings.heartbeat_seconds,
        capture_heartbeat_seconds=settings.capture_heartbeat_seconds,
        sends_in_flight=settings.sends_in_flight,
        backlog_bytes=settings.backlog_bytes,
        save_interval_seconds=settings.save_interval_seconds,
        retry_longest_seconds=settings.retry_longest_seconds,
    )
    source = MySqlSource.parse(settings.mysql_url.get_secret_value())
    resources = RelayResources(source, description.load(), store, publisher, full_runs, options)
    leadership = Leadership(
        postgres_url, *lock_key(settings.source_name), name=session_name("binlog_relay-lock")
    )
    relay = BinlogRelay(resources, leadership, clock)
    server = GrpcServer(
        settings,
        "binlog_relay",
        partial(add_BinlogRelayServiceServicer_to_server, BinlogRelayServicer(relay)),
        ["dialler.binlog_relay.v1.BinlogRelayService"],
        {
            "relay": relay.check,
            "postgres": store.ping,
            "schema": SchemaCheck(engine, "services.binlog_relay", SCHEMA),
            "leadership": leadership.check,
        },
    )
    return Parts(Closing(engine.dispose), Closing(lambda: channel.close(None)), relay, server)
