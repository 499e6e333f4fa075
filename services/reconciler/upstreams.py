"""What the reconciler asks of the other services."""

from collections.abc import Sequence

import grpc.aio
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from services.reconciler.domain import Page


class Upstreams:
    """user_context and queue; every method raises ServiceError."""

    def __init__(self, user_context: grpc.aio.Channel, queue: grpc.aio.Channel) -> None:
        self._user_context = user_context_pb2_grpc.UserContextServiceStub(user_context)
        self._queue = queue_pb2_grpc.QueueServiceStub(queue)

    async def list_users(self, after_user_id: int, limit: int) -> Page:
        """Return the next people by id; none means that there are no more."""
        response = await self._user_context.ListUserIds(
            user_context_pb2.ListUserIdsRequest(after_user_id=after_user_id, page_size=limit)
        )
        return Page(tuple(response.user_ids), response.max_user_id)

    async def reconcile(self, user_ids: Sequence[int]) -> int:
        """Read people anew and have the queue apply them; return how many it had to move."""
        refreshed = await self._user_context.RefreshUsers(
            user_context_pb2.RefreshUsersRequest(user_ids=user_ids)
        )
        applied = await self._queue.ApplyUserFacts(
            queue_pb2.ApplyUserFactsRequest(facts=refreshed.facts)
        )
        return applied.moved
