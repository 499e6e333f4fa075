"""Calls other services again while these are unavailable."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import ParamSpec, TypeVar

from servicekit.backoff import SERVICE_FAULTS, Backoff
from servicekit.clock import Clock
from servicekit.errors import Conflict, ServiceError
from services.reconciler import metrics

P = ParamSpec("P")
T = TypeVar("T")

# The server, not the request, is the cause: every other call would fail with them as well.
TRANSIENT_ERRORS = (*SERVICE_FAULTS, Conflict)

_log = logging.getLogger(__name__)


class GaveUpError(Exception):
    """Nothing has succeeded for too long; `cause` is the last failure."""

    def __init__(self, cause: ServiceError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class UpstreamRetry:
    """Repeats calls that fail with a transient error; one for each run.

    It gives up when no call has succeeded for `give_up_seconds`.
    """

    def __init__(self, backoff: Backoff, give_up_seconds: float, clock: Clock) -> None:
        self._backoff = backoff
        self._give_up_seconds = give_up_seconds
        self._clock = clock
        self._failures = 0
        self._succeeded_at = clock.monotonic()

    async def call(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the answer of `method`.

        Raises:
            GaveUpError: no call at all has succeeded for `give_up_seconds`.
            ServiceError: the service refuses the request itself.
        """
        while True:
            try:
                answer = await method(*args, **kwargs)
            except TRANSIENT_ERRORS as error:
                await self._pause(error)
            else:
                self._succeeded()
                return answer

    async def stream(
        self, begin: Callable[[], AsyncIterator[T]], *, starts_over: bool = False
    ) -> AsyncGenerator[T, None]:
        """Yield a stream's items; `begin` is called again after a failure, to continue the stream.

        A stream that `starts_over` yields its first items again. Then only items beyond the longest
        attempt so far count as a success; otherwise it would be begun for ever. Raises what `call`
        does.
        """
        furthest = 0
        while True:
            place = 0
            try:
                async for item in begin():
                    place += 1
                    if place > furthest or not starts_over:
                        furthest = place
                        self._succeeded()
                    yield item
            except TRANSIENT_ERRORS as error:
                await self._pause(error)
            else:
                return

    def _succeeded(self) -> None:
        self._failures = 0
        self._succeeded_at = self._clock.monotonic()

    async def _pause(self, error: ServiceError) -> None:
        if self._clock.monotonic() - self._succeeded_at > self._give_up_seconds:
            raise GaveUpError(error) from error
        self._failures += 1
        metrics.RETRIES.inc()
        if self._failures == 1:
            _log.warning("waiting_for_upstream", extra={"error": str(error)})
        await asyncio.sleep(self._backoff.delay_seconds(self._failures))
