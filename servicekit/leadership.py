"""Leadership by an advisory lock: of the replicas of a service one works, the others stand by."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from servicekit.advisory_lock import AdvisoryLock
from servicekit.errors import ServiceError, Unavailable

_CHECK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Leadership:
    """The advisory lock of the leading replica, on a connection of its own.

    The lock goes with the connection: PgBouncer in transaction mode may not be in between. Use
    `is_ours` from a loop that asks again at each step, or `held` around work that goes on.
    """

    def __init__(self, postgres_url: str, *key: int, name: str) -> None:
        """`key` and `name` are the lock's, as `AdvisoryLock` takes them."""
        self._lock = AdvisoryLock(postgres_url, *key, name=name)
        self._failure: ServiceError | None = None

    @property
    def is_held(self) -> bool:
        """True while the lock was ours when PostgreSQL last answered."""
        return self._lock.is_held

    async def check(self) -> None:
        """Raise Unavailable (CANNOT_LEAD) while the lock cannot be asked for, so that no replica
        is ready that could never lead. For the readiness of a server.
        """
        if self._failure is not None:
            raise Unavailable("CANNOT_LEAD", self._failure.reason)

    async def is_ours(self) -> bool:
        """Try to take the lock, or make sure that we still have it.

        Raises Unavailable when PostgreSQL cannot be asked; the lock is then not ours.
        """
        if not self._lock.is_held:
            return await self._acquire()
        await self._lock.confirm()
        return True

    async def release(self) -> None:
        """Give the lock up."""
        await self._lock.release()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[asyncio.Event]:
        """Wait until the lock is ours, and release it at the end of the block.

        The event is set as soon as the lock may no longer be ours. Raises Unavailable when
        PostgreSQL cannot be asked for it.
        """
        watcher: asyncio.Task[None] | None = None
        try:
            is_waiting = False
            while not await self._acquire():
                if not is_waiting:
                    _log.info("standing_by")
                    is_waiting = True
                await asyncio.sleep(_CHECK_SECONDS)
            watcher = asyncio.create_task(self._watch(), name="leadership")
            yield self._lock.lost
        finally:
            if watcher is not None:
                watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watcher
            await self._lock.release()

    async def _acquire(self) -> bool:
        try:
            is_ours = await self._lock.acquire()
        except ServiceError as error:
            self._failure = error
            raise
        self._failure = None
        return is_ours

    async def _watch(self) -> None:
        # A connection can be dead without an end ever arriving: an unanswered question shows it.
        lost = self._lock.lost
        while not lost.is_set():
            try:
                await self._lock.confirm()
            except Exception as error:
                _log.warning("leadership_lost", extra={"error": type(error).__name__})
                lost.set()
                return
            await asyncio.sleep(_CHECK_SECONDS)
