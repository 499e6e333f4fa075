"""Elects the active replica and lets it work until it loses the lock."""

import asyncio
import contextlib
import logging
import time
from datetime import datetime, timedelta

import pymysql

from servicekit import deadline
from servicekit.backoff import Backoff
from servicekit.clock import Clock
from servicekit.database_failures import ASYNCPG_ERRORS
from servicekit.errors import FailedPrecondition, ServiceError, Unavailable
from servicekit.leadership import Leadership
from services.binlog_relay import metrics
from services.binlog_relay.binlog.server import examine
from services.binlog_relay.leadership import RelayLeadership, RelayResources

_log = logging.getLogger(__name__)

_SILENT_HEARTBEATS = 10.0


class BinlogRelay:
    """One replica of the relay: active while it holds the lock, on standby otherwise."""

    def __init__(self, resources: RelayResources, lock: Leadership, clock: Clock) -> None:
        self.resources = resources
        self._lock = lock
        self._clock = clock
        self._leadership: RelayLeadership | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; raises FailedPrecondition when the MySQL server has wrong settings."""
        try:
            tables = self.resources.description.tables
            await asyncio.to_thread(examine, self.resources.source, tables)
        except FailedPrecondition:
            await self.resources.store.invalidate()
            raise
        except (pymysql.err.MySQLError, OSError) as error:
            _log.warning("mysql_unreachable", extra={"error": type(error).__name__})
        with deadline.detached():
            self._task = asyncio.create_task(self._run(), name="relay")

    async def stop(self) -> None:
        """Stop reading, let sends under way end, save the position, release the lock."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self.resources.full_runs.stop()
        await self.resources.publisher.close()

    async def check(self) -> None:
        """Raise Unavailable while this replica should read and cannot, or SQS takes no messages.

        Also while the server can be read and no change can come from it; the text says why.
        """
        if self.resources.publisher.is_failing:
            raise Unavailable("SQS_UNAVAILABLE", "SQS does not take messages")
        obstacle = self._leadership.obstacle if self._leadership else None
        if obstacle is not None:
            raise Unavailable(obstacle.reason, obstacle.message)
        if self._leadership is not None:
            heard_at = self._leadership.heard_at
            longest = _SILENT_HEARTBEATS * self.resources.options.heartbeat_seconds
            if heard_at is None or time.monotonic() - heard_at >= longest:
                raise Unavailable("BINLOG_UNAVAILABLE", "nothing is heard from the binlog")

    @property
    def is_active(self) -> bool:
        """Whether this replica holds the lock."""
        return self._leadership is not None

    @property
    def last_event_at(self) -> datetime | None:
        """When the newest event was read, heartbeats included."""
        live = self._leadership.heard_at if self._leadership else None
        heard_at = live or self.resources.progress.heard_at
        if heard_at is None:
            return None
        return self._clock.now() - timedelta(seconds=time.monotonic() - heard_at)

    async def _run(self) -> None:
        attempt = 0
        longest = self.resources.options.retry_longest_seconds
        backoff = Backoff(0.1, longest, jitter=(0.8, 1.2))
        while True:
            began = time.monotonic()
            try:
                async with self._lock.held() as lost:
                    await self._lead(lost)
            except (ServiceError, OSError, *ASYNCPG_ERRORS) as error:
                named = str(error) if isinstance(error, ServiceError) else type(error).__name__
                _log.warning("not_leading", extra={"error": named})
            if time.monotonic() - began > longest:
                attempt = 0
            attempt += 1
            await asyncio.sleep(backoff.delay_seconds(attempt))

    async def _lead(self, lost: asyncio.Event) -> None:
        epoch, saved = await self.resources.store.begin_epoch()
        _log.info("leading", extra={"epoch": epoch, "has_position": saved.position is not None})
        leadership = self._leadership = RelayLeadership(self.resources, epoch, saved.position)
        metrics.IS_ACTIVE.set(1)
        working = asyncio.create_task(leadership.run(), name="relay-leadership")
        losing = asyncio.create_task(lost.wait())
        try:
            await asyncio.wait((working, losing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._leadership = None
            metrics.IS_ACTIVE.set(0)
            if lost.is_set():
                leadership.abandon()
            losing.cancel()
            working.cancel()
            await asyncio.wait((working,))
        if not working.cancelled():
            working.result()
