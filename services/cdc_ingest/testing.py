"""The services the ingest calls, as real gRPC servers that record calls and fail on demand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import grpc.aio
from dialler.model.v1.change_pb2 import ChangeTimeline
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit import telemetry
from servicekit.errors import Internal, InvalidArgument, ServiceError
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Faults:
    """How a fake is to fail; `gate` holds every call until it is set again."""

    failure: ServiceError | None = None
    poison: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def strike(self, user_ids: Iterable[int]) -> None:
        """Fail, or wait, as ordered."""
        self.entered += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        asked = set(user_ids)
        if asked & self.poison:
            raise InvalidArgument("USER_POISONOUS", "somebody cannot be read")
        if asked & self.broken:
            raise Internal("USER_BROKEN", "somebody cannot be read")


class FakeUserContext(user_context_pb2_grpc.UserContextServiceServicer):
    """Everybody exists, as `people` has him; `owners` says whom other rows belong to."""

    def __init__(self) -> None:
        self.people: dict[int, UserFacts] = {}
        self.faults = Faults()
        self.owners: dict[tuple[str, str], int] = {}
        self.refreshes: list[list[int]] = []
        self.resolves: list[list[tuple[str, str]]] = []
        self.probes = 0
        self._versions = count(1)

    async def RefreshUsers(
        self, request: user_context_pb2.RefreshUsersRequest, context: Context
    ) -> user_context_pb2.RefreshUsersResponse:
        """Return facts of rising versions."""
        await self.faults.strike(request.user_ids)
        self.refreshes.append(list(request.user_ids))
        version = next(self._versions)
        response = user_context_pb2.RefreshUsersResponse(
            facts=[self._facts(user_id, version) for user_id in request.user_ids]
        )
        response.refreshed_at.FromDatetime(datetime.now(UTC))
        return response

    def _facts(self, user_id: int, version: int) -> UserFacts:
        facts = UserFacts(exists=True)
        facts.CopyFrom(self.people.get(user_id, facts))
        facts.user_id, facts.version = user_id, version
        return facts

    async def ResolveUsers(
        self, request: user_context_pb2.ResolveUsersRequest, context: Context
    ) -> user_context_pb2.ResolveUsersResponse:
        """Return the owners of the rows."""
        await self.faults.strike(())
        rows = [(row.table, row.key) for row in request.rows]
        self.resolves.append(rows)
        found = {self.owners[row] for row in rows if row in self.owners}
        return user_context_pb2.ResolveUsersResponse(user_ids=sorted(found))

    async def ListUserIds(
        self, request: user_context_pb2.ListUserIdsRequest, context: Context
    ) -> user_context_pb2.ListUserIdsResponse:
        """Return one person: the ingest only wants to know whether this works."""
        self.probes += 1
        if self.faults.failure is not None:
            raise self.faults.failure
        return user_context_pb2.ListUserIdsResponse(user_ids=[1], max_user_id=1)


@dataclass
class Applied:
    """One person the queue was told of."""

    user_id: int
    version: int
    timeline: ChangeTimeline
    traceparent: str | None


class FakeQueue(queue_pb2_grpc.QueueServiceServicer):
    """Keeps what it is told of each person."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.applied: list[Applied] = []
        self.calls = 0

    def user_ids(self) -> list[int]:
        """Return everybody applied, in order, repeats included."""
        return [each.user_id for each in self.applied]

    async def ApplyUserFacts(
        self, request: queue_pb2.ApplyUserFactsRequest, context: Context
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Record the facts."""
        await self.faults.strike(facts.user_id for facts in request.facts)
        self.calls += 1
        for facts in request.facts:
            timeline = request.timelines.get(facts.user_id, ChangeTimeline())
            self.applied.append(Applied(facts.user_id, facts.version, timeline, telemetry.inject()))
        return queue_pb2.ApplyUserFactsResponse(applied=len(request.facts))

    async def BatchGetCallStates(
        self, request: queue_pb2.BatchGetCallStatesRequest, context: Context
    ) -> queue_pb2.BatchGetCallStatesResponse:
        """Return nothing: the ingest only wants to know whether this works."""
        if self.faults.failure is not None:
            raise self.faults.failure
        return queue_pb2.BatchGetCallStatesResponse()


class FakeReconciler(reconciler_pb2_grpc.ReconcilerServiceServicer):
    """Records why runs are asked for."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.reasons: list[str] = []

    async def StartRun(
        self, request: reconciler_pb2.StartRunRequest, context: Context
    ) -> reconciler_pb2.StartRunResponse:
        """Record the reason."""
        await self.faults.strike(())
        self.reasons.append(request.reason)
        return reconciler_pb2.StartRunResponse()


@dataclass
class FakeServices:
    """The three of them, each on its own port."""

    user_context: FakeUserContext
    queue: FakeQueue
    reconciler: FakeReconciler
    user_context_target: str
    queue_target: str
    reconciler_target: str


@asynccontextmanager
async def fake_services() -> AsyncIterator[FakeServices]:
    """Serve the fakes on free loopback ports."""
    # Methods the ingest never calls answer UNIMPLEMENTED, as generated.
    user_context = FakeUserContext()  # type: ignore[abstract]
    queue = FakeQueue()  # type: ignore[abstract]
    reconciler = FakeReconciler()  # type: ignore[abstract]
    servers = [
        _server(
            lambda s: user_context_pb2_grpc.add_UserContextServiceServicer_to_server(
                user_context, s
            )
        ),
        _server(lambda s: queue_pb2_grpc.add_QueueServiceServicer_to_server(queue, s)),
        _server(
            lambda s: reconciler_pb2_grpc.add_ReconcilerServiceServicer_to_server(reconciler, s)
        ),
    ]
    for server in servers:
        await server.start()
    try:
        yield FakeServices(user_context, queue, reconciler, *(s.address for s in servers))
    finally:
        for server in servers:
            await server.stop()


def _server(register: Callable[[grpc.aio.Server], None]) -> GrpcServer:
    return GrpcServer(ServiceSettings(drain_seconds=0.0), "fake", register, [])
