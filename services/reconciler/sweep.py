"""One walk through everybody, page by page, that survives failures of those it asks."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
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
from services.reconciler.domain import Page, PageResult, Progress, retry_seconds
from services.reconciler.upstreams import Upstreams

T = TypeVar("T")

# They say nothing about the people asked for: anybody else would fail alike.
_PASSING = (
    Unavailable,
    DeadlineExceeded,
    Exhausted,
    Conflict,
    PermissionDenied,
    Unauthenticated,
)

_log = logging.getLogger(__name__)

Save = Callable[[Progress], Awaitable[None]]


class GaveUpError(Exception):
    """Nothing has succeeded for too long; `cause` is the last failure."""

    def __init__(self, cause: ServiceError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Pace:
    """How much at once, and how patient."""

    page_users: int
    pages_in_flight: int
    retry_first_seconds: float
    retry_longest_seconds: float
    give_up_seconds: float


class Sweep:
    """Looks at everybody after `progress`; `save` is called in order, page by page.

    What has been saved is done; what was under way when it ends early is done again next time.
    """

    def __init__(self, upstreams: Upstreams, pace: Pace, clock: Clock, save: Save) -> None:
        self._upstreams = upstreams
        self._pace = pace
        self._clock = clock
        self._save = save
        self._failures = 0
        self._succeeded_at = clock.monotonic()

    async def run(self, progress: Progress) -> Progress:
        """Return the progress once everybody has been looked at.

        Raises:
            GaveUpError: nothing has succeeded for `give_up_seconds`.
            ServiceError: progress could not be saved.
        """
        under_way: deque[tuple[Page, asyncio.Task[PageResult]]] = deque()
        after, is_last = progress.last_user_id, False
        try:
            while under_way or not is_last:
                if not is_last and len(under_way) < self._pace.pages_in_flight:
                    page = await self._list(after)
                    is_last = len(page.user_ids) < self._pace.page_users
                    if page.user_ids:
                        after = page.user_ids[-1]
                        task = asyncio.create_task(self._reconcile(page.user_ids))
                        under_way.append((page, task))
                    continue
                page, task = under_way.popleft()
                progress = progress.after(page, await task)
                await self._save(progress)
        finally:
            await _cancel([task for _, task in under_way])
        return progress

    async def _list(self, after: int) -> Page:
        limit = self._pace.page_users
        return await self._patiently(lambda: self._upstreams.list_users(after, limit))

    async def _reconcile(self, user_ids: Sequence[int]) -> PageResult:
        """Look at people; those who are refused are found by halves and left out."""
        try:
            moved = await self._patiently(lambda: self._upstreams.reconcile(user_ids))
        except ServiceError as error:
            if len(user_ids) == 1:
                _log.warning("user_failed", extra={"user_id": user_ids[0], "error": error.reason})
                metrics.USERS.labels("failed").inc()
                return PageResult(failed_user_ids=tuple(user_ids))
            middle = len(user_ids) // 2
            return await self._reconcile(user_ids[:middle]) + await self._reconcile(
                user_ids[middle:]
            )
        metrics.USERS.labels("checked").inc(len(user_ids))
        metrics.USERS.labels("moved").inc(moved)
        return PageResult(users_moved=moved)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                answer = await ask()
            except _PASSING as error:
                await self._pause(error)
            else:
                self._failures = 0
                self._succeeded_at = self._clock.monotonic()
                return answer

    async def _pause(self, error: ServiceError) -> None:
        if self._clock.monotonic() - self._succeeded_at > self._pace.give_up_seconds:
            raise GaveUpError(error) from error
        self._failures += 1
        metrics.RETRIES.inc()
        if self._failures == 1:
            _log.warning("waiting_for_upstream", extra={"error": str(error)})
        pace = self._pace
        # Spreading retries needs no secrecy.
        luck = random.random()  # noqa: S311
        await asyncio.sleep(
            retry_seconds(
                self._failures, pace.retry_first_seconds, pace.retry_longest_seconds, luck
            )
        )


async def _cancel(tasks: Sequence[asyncio.Task[PageResult]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
