"""The queue's side of contexts."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from dialler.model.v1.call_state_pb2 import CallState
from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import ServiceError, Unavailable
from services.user_context.breaker import Breaker
from services.user_context.cache import BothForms, ContextCache, Filling
from services.user_context.domain import Part, UserId
from services.user_context.rendering import render_call

Ask = Callable[
    [queue_pb2.BatchGetCallStatesRequest], Awaitable[queue_pb2.BatchGetCallStatesResponse]
]


class CallStates:
    """Asks the queue and caches what it says."""

    def __init__(self, ask: Ask, cache: ContextCache, clock: Clock) -> None:
        self._ask = ask
        self._cache = cache
        self._queue = Breaker(clock)

    async def load(self, user_ids: Sequence[UserId]) -> Mapping[UserId, BothForms]:
        """Return and cache the queue's part; raises ServiceError when the queue cannot be asked."""
        if not self._queue.allows():
            raise Unavailable("QUEUE_UNAVAILABLE", "the queue service cannot be asked now")
        # Versions come with the states: whatever fence is there decides when they are filled.
        grants = await self._cache.begin(Part.CALL, user_ids, 0)
        states = await self._states(user_ids)
        forms = {}
        for user_id in user_ids:
            state = states.get(user_id) or CallState(user_id=user_id)
            filling = Filling(user_id, state.version, render_call(state))
            grant = grants.get(user_id)
            run = grant.run if grant is not None else b"\0" * 8
            forms[user_id] = self._cache.form(Part.CALL, filling, run, 0)
        await self._cache.fill(Part.CALL, forms, grants)
        return forms

    async def _states(self, user_ids: Sequence[UserId]) -> dict[UserId, CallState]:
        request = queue_pb2.BatchGetCallStatesRequest(user_ids=user_ids)
        try:
            response = await self._ask(request)
        except ServiceError:
            self._queue.failed()
            raise
        self._queue.succeeded()
        return {UserId(state.user_id): state for state in response.call_states}
