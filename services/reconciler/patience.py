"""Asking services that may be away for a while."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from servicekit.clock import Clock
from servicekit.errors import (
    Conflict,
    DeadlineExceeded,
    Exhausted,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from services.reconciler import metrics
from services.reconciler.domain.runs import retry_seconds

T = TypeVar("T")

# They say nothing about what was asked for: anything else would fail alike.
PASSING = (
    Unavailable,
    DeadlineExceeded,
    Exhausted,
    Conflict,
    PermissionDenied,
    Unauthenticated,
)

_log = logging.getLogger(__name__)


class GaveUpError(Exception):
    """Nothing has succeeded for too long; `cause` is the last failure."""

    def __init__(self, cause: ServiceError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait between tries, and until when."""

    retry_first_seconds: float
    retry_longest_seconds: float
    give_up_seconds: float


class Patience:
    """Repeats what fails in passing; one for each run."""

    def __init__(self, pauses: Pauses, clock: Clock) -> None:
        self._pauses = pauses
        self._clock = clock
        self._failures = 0
        self._succeeded_at = clock.monotonic()

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Return the answer.

        Raises:
            GaveUpError: nothing at all has succeeded for `give_up_seconds`.
            ServiceError: the question itself is refused.
        """
        while True:
            try:
                answer = await question()
            except PASSING as error:
                await self._pause(error)
            else:
                self._succeeded()
                return answer

    async def follow(
        self, begin: Callable[[], AsyncIterator[T]], *, starts_over: bool = False
    ) -> AsyncGenerator[T, None]:
        """Yield a stream's items; `begin` is called again, to go on, after a failure.

        Where it `starts_over` then, items are yielded again, and only those beyond the most there
        ever were count as a success: it would else be begun for ever. Raises what `ask` does.
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
            except PASSING as error:
                await self._pause(error)
            else:
                return

    def _succeeded(self) -> None:
        self._failures = 0
        self._succeeded_at = self._clock.monotonic()

    async def _pause(self, error: ServiceError) -> None:
        pauses = self._pauses
        if self._clock.monotonic() - self._succeeded_at > pauses.give_up_seconds:
            raise GaveUpError(error) from error
        self._failures += 1
        metrics.RETRIES.inc()
        if self._failures == 1:
            _log.warning("waiting_for_upstream", extra={"error": str(error)})
        # Spreading retries needs no secrecy.
        luck = random.random()  # noqa: S311
        await asyncio.sleep(
            retry_seconds(
                self._failures, pauses.retry_first_seconds, pauses.retry_longest_seconds, luck
            )
        )
