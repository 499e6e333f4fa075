"""Puts the relay together."""

import logging
import zlib

from dialler.binlog_relay.v1 import binlog_relay_pb2, binlog_relay_pb2_grpc
from dialler.reconciler.v1 import reconciler_pb2_grpc

from mainapp import description
from servicekit.client import connect
from servicekit.clock import SystemClock
from servicekit.database import postgres_engine
from servicekit.lifecycle import Closing, Parts
from servicekit.server import GrpcServer
from services.binlog_relay.domain.packing import Limits
from services.binlog_relay.mysql_server import Source
from services.binlog_relay.publisher import Publisher
from services.binlog_relay.repairs import Repairs
from services.binlog_relay.servicer import BinlogRelayServicer
from services.binlog_relay.settings import BinlogRelaySettings
from services.binlog_relay.store import Leadership, PositionStore
from services.binlog_relay.term import Pace, Tools
from services.binlog_relay.worker import Relay

POSTGRES_POOL_SIZE = 2
_SERVICE = binlog_relay_pb2.DESCRIPTOR.services_by_name["BinlogRelayService"].full_name
_STATEMENT_SECONDS = 3.0


def build(settings: BinlogRelaySettings) -> Parts:
    """Return the relay with its gRPC server; connects to nothing yet."""
    # It warns of each lost connection, which we deal with and log ourselves.
    logging.getLogger("pymysqlreplication").setLevel(logging.ERROR)
    clock = SystemClock()
    postgres_url = settings.postgres_url.get_secret_value()
    engine = postgres_engine(
        postgres_url,
        pool_size=POSTGRES_POOL_SIZE,
        application_name="binlog_relay",
        statement_timeout_seconds=_STATEMENT_SECONDS,
    )
    store = PositionStore(engine, settings.source_name)
    channel = connect(settings.reconciler_target, name="reconciler", default_timeout_seconds=2.0)
    repairs = Repairs(
        reconciler_pb2_grpc.ReconcilerServiceStub(channel), clock, settings.retry_longest_seconds
    )
    publisher = Publisher(
        settings.sqs_queue_url,
        endpoint_url=settings.sqs_endpoint_url,
        region=settings.aws_region,
        sends_in_flight=settings.sends_in_flight,
        retry_longest_seconds=settings.retry_longest_seconds,
    )
    source = Source.parse(settings.mysql_url.get_secret_value())
    tools = Tools(source, description.load(), store, publisher, repairs, _pace(settings))
    relay = Relay(tools, Leadership(postgres_url, settings.source_name), clock)
    server = GrpcServer(
        settings,
        "binlog_relay",
        lambda grpc_server: binlog_relay_pb2_grpc.add_BinlogRelayServiceServicer_to_server(
            BinlogRelayServicer(relay), grpc_server
        ),
        [_SERVICE],
        {"relay": relay.check, "postgres": store.ping},
    )
    return Parts(Closing(engine.dispose), Closing(lambda: channel.close(None)), relay, server)


def _pace(settings: BinlogRelaySettings) -> Pace:
    # MySQL drops an older connection with the same id, so two copies must not take turns with
    # one: only the one that holds the lock connects.
    derived = 0x4000_0000 | zlib.crc32(settings.source_name.encode()) >> 2
    return Pace(
        limits=Limits(settings.max_records_per_message, settings.max_message_bytes),
        server_id=settings.server_id or derived,
        heartbeat_seconds=settings.heartbeat_seconds,
        capture_heartbeat_seconds=settings.capture_heartbeat_seconds,
        sends_in_flight=settings.sends_in_flight,
        backlog_bytes=settings.backlog_bytes,
        save_interval_seconds=settings.save_interval_seconds,
        retry_longest_seconds=settings.retry_longest_seconds,
    )
