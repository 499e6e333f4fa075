"""The services the reconciler calls, as real gRPC servers that count calls and fail on demand."""

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit.errors import InvalidArgument, ServiceError
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings

Context = grpc.aio.ServicerContext[Any, Any]


class FakeUserContext(user_context_pb2_grpc.UserContextServiceServicer):
    """Knows `user_ids`; refuses any refresh that names one of `poison`."""

    def __init__(self) -> None:
        self.user_ids: list[int] = []
        self.poison: set[int] = set()
        self.failure: ServiceError | None = None
        self.refreshes = 0

    async def ListUserIds(
        self, request: user_context_pb2.ListUserIdsRequest, context: Context
    ) -> user_context_pb2.ListUserIdsResponse:
        """Return the next page."""
        if self.failure is not None:
            raise self.failure
        start = bisect_right(self.user_ids, request.after_user_id)
        return user_context_pb2.ListUserIdsResponse(
            user_ids=self.user_ids[start : start + request.page_size],
            max_user_id=self.user_ids[-1] if self.user_ids else 0,
        )

    async def RefreshUsers(
        self, request: user_context_pb2.RefreshUsersRequest, context: Context
    ) -> user_context_pb2.RefreshUsersResponse:
        """Return facts."""
        self.refreshes += 1
        if self.failure is not None:
            raise self.failure
        if self.poison & set(request.user_ids):
            raise InvalidArgument("USER_POISONOUS", "somebody cannot be read")
        return user_context_pb2.RefreshUsersResponse(
            facts=[UserFacts(user_id=u, exists=True, version=1) for u in request.user_ids]
        )


class FakeQueue(queue_pb2_grpc.QueueServiceServicer):
    """Counts how often each person was applied; `gate` holds calls beyond `free_calls`."""

    def __init__(self) -> None:
        self.applied: Counter[int] = Counter()
        self.failure: ServiceError | None = None
        self.free_calls = 1_000_000
        self.gate = asyncio.Event()
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0

    async def ApplyUserFacts(
        self, request: queue_pb2.ApplyUserFactsRequest, context: Context
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Count the people; whoever is new has been moved."""
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.calls > self.free_calls:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            moved = sum(facts.user_id not in self.applied for facts in request.facts)
            self.applied.update(facts.user_id for facts in request.facts)
            return queue_pb2.ApplyUserFactsResponse(applied=len(request.facts), moved=moved)
        finally:
            self.at_once -= 1


@dataclass
class FakeServices:
    """Both, each on its own port."""

    # Methods the reconciler never calls answer UNIMPLEMENTED, as generated.
    user_context: FakeUserContext = field(
        default_factory=lambda: FakeUserContext()  # type: ignore[abstract]
    )
    queue: FakeQueue = field(default_factory=lambda: FakeQueue())  # type: ignore[abstract]
    user_context_target: str = ""
    queue_target: str = ""


@asynccontextmanager
async def fake_services() -> AsyncIterator[FakeServices]:
    """Serve the fakes on free loopback ports."""
    fakes = FakeServices()
    settings = ServiceSettings(drain_seconds=0.0)
    user_context = GrpcServer(
        settings,
        "fake",
        lambda server: user_context_pb2_grpc.add_UserContextServiceServicer_to_server(
            fakes.user_context, server
        ),
        [],
    )
    queue = GrpcServer(
        settings,
        "fake",
        lambda server: queue_pb2_grpc.add_QueueServiceServicer_to_server(fakes.queue, server),
        [],
    )
    await user_context.start()
    await queue.start()
    fakes.user_context_target, fakes.queue_target = user_context.address, queue.address
    try:
        yield fakes
    finally:
        await user_context.stop()
        await queue.stop()
