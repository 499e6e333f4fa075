"""The doubles of the services that one service calls, each on a gRPC server of its own.

Methods that a double does not define answer UNIMPLEMENTED.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from dialler.binlog_relay.v1 import binlog_relay_pb2_grpc
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc
from dialler.queue.v1 import queue_pb2_grpc
from dialler.reconciler.v1 import reconciler_pb2_grpc
from dialler.user_context.v1 import user_context_pb2_grpc

from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings
from tests.fakes.binlog_relay import FakeBinlogRelay
from tests.fakes.cdc_ingest import FakeCdcIngest
from tests.fakes.queue import AppliedEntry, FakeAppliedFacts, FakeQueue
from tests.fakes.reconciler import FakeReconciler
from tests.fakes.recorded_calls import MOMENT_SECONDS
from tests.fakes.user_context import FakeUserContext
from tests.fakes.user_context_rows import FakeRowFingerprints, context_of


def double_server(name: str, double: Any) -> GrpcServer:
    """Return a server of the double of the service `name`, not yet started."""
    adders: dict[str, Callable[[Any, Any], None]] = {
        "user_context": user_context_pb2_grpc.add_UserContextServiceServicer_to_server,
        "queue": queue_pb2_grpc.add_QueueServiceServicer_to_server,
        "cdc_ingest": cdc_ingest_pb2_grpc.add_CdcIngestServiceServicer_to_server,
        "binlog_relay": binlog_relay_pb2_grpc.add_BinlogRelayServiceServicer_to_server,
        "reconciler": reconciler_pb2_grpc.add_ReconcilerServiceServicer_to_server,
    }
    add, settings = adders[name], ServiceSettings(drain_seconds=0.0)
    return GrpcServer(settings, name, lambda server: add(double, server), (name,))


@asynccontextmanager
async def serving_doubles(**doubles: Any) -> AsyncIterator[list[str]]:
    """Serve each double on a free loopback port and yield their addresses in order."""
    servers = [double_server(name, double) for name, double in doubles.items()]
    for server in servers:
        await server.start()
    try:
        yield [server.address for server in servers]
    finally:
        for server in servers:
            await server.stop()


@dataclass
class IngestUpstreams:
    """The services that cdc_ingest calls."""

    user_context: FakeUserContext
    queue: FakeQueue
    reconciler: FakeReconciler
    user_context_target: str
    queue_target: str
    reconciler_target: str


@asynccontextmanager
async def ingest_upstreams() -> AsyncIterator[IngestUpstreams]:
    """Serve the doubles that cdc_ingest calls; user_context has every user."""
    user_context = FakeUserContext(has_every_user=True)  # type: ignore[abstract]
    queue = FakeQueue()  # type: ignore[abstract]
    reconciler = FakeReconciler()  # type: ignore[abstract]
    async with serving_doubles(
        user_context=user_context, queue=queue, reconciler=reconciler
    ) as targets:
        yield IngestUpstreams(user_context, queue, reconciler, *targets)


@dataclass
class ReconcilerUpstreams:
    """The services that the reconciler calls."""

    user_context: FakeRowFingerprints
    queue: FakeAppliedFacts
    ingest: FakeCdcIngest
    user_context_target: str
    queue_target: str
    ingest_target: str

    def apply_all_users(self) -> None:
        """Make the queue's entries those of all people of the main app."""
        for user_id, rows in self.user_context.people.items():
            self.queue.entries[user_id] = AppliedEntry(1, context_of(rows), rows)


@asynccontextmanager
async def reconciler_upstreams() -> AsyncIterator[ReconcilerUpstreams]:
    """Serve the doubles that the reconciler calls."""
    user_context = FakeRowFingerprints()  # type: ignore[abstract]
    queue = FakeAppliedFacts()  # type: ignore[abstract]
    queue.main_app = user_context.people
    ingest = FakeCdcIngest()
    async with serving_doubles(
        user_context=user_context, queue=queue, cdc_ingest=ingest
    ) as targets:
        yield ReconcilerUpstreams(user_context, queue, ingest, *targets)


class GatewayUpstreams:
    """The five services that the gateway calls, each on a server that can be stopped."""

    def __init__(self) -> None:
        self.user_context = FakeUserContext()  # type: ignore[abstract]
        self.queue = FakeQueue()  # type: ignore[abstract]
        self.cdc_ingest = FakeCdcIngest(status=_ingest_status())
        self.binlog_relay = FakeBinlogRelay()
        self.reconciler = FakeReconciler()  # type: ignore[abstract]
        self._servers = {
            name: double_server(name, getattr(self, name))
            for name in ("user_context", "queue", "cdc_ingest", "binlog_relay", "reconciler")
        }

    async def start(self) -> None:
        """Start all."""
        for server in self._servers.values():
            await server.start()

    async def stop(self, *names: str) -> None:
        """Stop those named, or all."""
        for name in names or tuple(self._servers):
            await self._servers[name].stop()

    def targets(self) -> dict[str, str]:
        """Return the gateway's settings of their addresses."""
        return {f"{name}_target": server.address for name, server in self._servers.items()}


def _ingest_status() -> cdc_ingest_pb2.GetStatusResponse:
    status = cdc_ingest_pb2.GetStatusResponse(backlog_messages=5, dead_letter_messages=1)
    status.change_latency.count = 10
    status.change_latency.p50_seconds = 0.05
    status.capture_alive_at.seconds = MOMENT_SECONDS + 5
    status.applied_through.seconds = MOMENT_SECONDS
    return status
