"""Contexts as user_context has rendered them, several in one call when several are wanted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dialler.user_context.v1 import user_context_pb2

from servicekit.coalescing import Coalescer

if TYPE_CHECKING:
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub

# Two are under way at once: user_context works on one while the other is on the wire.
CALLS_IN_FLIGHT = 2
# About 200 KB of answers: far from any limit on messages.
PEOPLE_PER_CALL = 64

_Answer = user_context_pb2.GetUserContextResponse


class ContextReads:
    """Reads contexts as JSON, by a call that begins after the request for it.

    A call costs both sides several times what one more person in it does (decision 0020). Those
    together ask the cache alone, so that nobody waits for another's reading of MySQL, and one
    that cannot be had is nobody else's failure.
    """

    def __init__(self, user_context: "UserContextServiceAsyncStub") -> None:
        self._user_context = user_context
        self._cached: Coalescer[int, _Answer] = Coalescer(
            self._read_cached, max_keys=PEOPLE_PER_CALL, max_batches=CALLS_IN_FLIGHT
        )

    async def get(self, user_id: int) -> _Answer:
        """Return one person's context. Raises what GetUserContext answers with."""
        found = (await self._cached.get((user_id,))).get(user_id)
        if found is not None:
            return found
        return await self._user_context.GetUserContext(
            user_context_pb2.GetUserContextRequest(
                user_id=user_id, view=user_context_pb2.CONTEXT_VIEW_JSON
            )
        )

    async def stop(self) -> None:
        """Cancel what is under way."""
        await self._cached.stop()

    async def _read_cached(self, user_ids: Sequence[int]) -> dict[int, _Answer]:
        answer = await self._user_context.BatchGetUserContexts(
            user_context_pb2.BatchGetUserContextsRequest(
                user_ids=user_ids, view=user_context_pb2.CONTEXT_VIEW_JSON, cached_only=True
            )
        )
        others = {*answer.missing_user_ids, *answer.uncached_user_ids}
        found = [user_id for user_id in user_ids if user_id not in others]
        return dict(zip(found, answer.contexts, strict=True))
