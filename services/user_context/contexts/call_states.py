"""The queue's part of contexts: the call states."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from dialler.model.v1.call_state_pb2 import CallState
from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import ServiceError, Unavailable
from services.user_context.cache.breaker import Breaker
from services.user_context.cache.context_cache import BothForms, ContextCache, Filling
from services.user_context.cache.rendering import render_call
from services.user_context.domain import Part, UserId

Ask = Callable[
    [queue_pb2.BatchGetCallStatesRequest], Awaitable[queue_pb2.BatchGetCallStatesResponse]
]


class CallStates:
    """Reads call states from the queue and caches them."""

    def __init__(self, ask: Ask, cache: ContextCache, clock: Clock) -> None:
        self._ask = ask
        self._cache = cache
        self._queue = Breaker(clock)

    async def load(self, user_ids: Sequence[UserId]) -> Mapping[UserId, BothForms]:
        """Read and cache the queue's part. Raises ServiceError when the queue does not answer."""
        if not self._queue.allows():
            raise Unavailable("QUEUE_UNAVAILABLE", "the queue service cannot be asked now")
        # Versions come with the states, and the fence in the cache decides about each of them.
        grants = await self._cache.begin(Part.CALL, user_ids, 0)
        try:
            response = await self._ask(queue_pb2.BatchGetCallStatesRequest(user_ids=user_ids))
        except ServiceError:
            self._queue.failed()
            raise
        self._queue.succeeded()
        states = {state.user_id: state for state in response.call_states}
        forms = {}
        for user_id in user_ids:
            state = states.get(user_id) or CallState(user_id=user_id)
            filling = Filling(user_id, state.version, render_call(state))
            grant = grants.get(user_id)
            run = grant.run if grant is not None else b"\0" * 8
            forms[user_id] = self._cache.form(Part.CALL, filling, run, 0)
        await self._cache.fill(Part.CALL, forms, grants)
        return forms
