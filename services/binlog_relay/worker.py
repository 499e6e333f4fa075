"""Elects the active copy and lets it work, again and again."""

import asyncio
import contextlib
import logging
import random
import time
from datetime import datetime, timedelta

import asyncpg
import pymysql

from servicekit import deadline
from servicekit.clock import Clock
from servicekit.errors import ServiceError, Unavailable
from services.binlog_relay import metrics
from services.binlog_relay.mysql_server import examine
from services.binlog_relay.store import Leadership, Saved
from services.binlog_relay.term import Term, Tools

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_SILENT_HEARTBEATS = 10.0


class Relay:
    """One copy of the relay: active while it holds the lock, standing by otherwise."""

    def __init__(self, tools: Tools, leadership: Leadership, clock: Clock) -> None:
        self._tools = tools
        self._leadership = leadership
        self._clock = clock
        self._term: Term | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; raises FailedPrecondition when the server answers and its settings are wrong."""
        try:
            await asyncio.to_thread(examine, self._tools.source)
        except (pymysql.err.MySQLError, OSError) as error:
            _log.warning("mysql_unreachable", extra={"error": type(error).__name__})
        with deadline.detached():
            self._task = asyncio.create_task(self._run(), name="relay")

    async def stop(self) -> None:
        """Stop reading, let sends under way end, save the position, give up the lead."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._tools.repairs.stop()
        await self._tools.publisher.close()

    async def check(self) -> None:
        """Raise Unavailable while this copy ought to read and cannot, or SQS fails it."""
        if self._tools.publisher.is_failing:
            raise Unavailable("SQS_UNAVAILABLE", "SQS does not take messages")
        if self.is_active and not self._is_hearing():
            raise Unavailable("BINLOG_UNAVAILABLE", "nothing is heard from the binlog")

    @property
    def is_active(self) -> bool:
        """Whether this copy holds the lock."""
        return self._term is not None

    @property
    def records_published(self) -> int:
        """Records published since the process started."""
        return self._tools.progress.records

    @property
    def messages_published(self) -> int:
        """Messages published since the process started."""
        return self._tools.progress.messages

    @property
    def gaps(self) -> int:
        """Times changes could not be followed row by row, since the process started."""
        return self._tools.repairs.gaps

    @property
    def last_event_at(self) -> datetime | None:
        """When the newest event was read, heartbeats included."""
        heard_at = self._heard_at()
        if heard_at is None:
            return None
        return self._clock.now() - timedelta(seconds=time.monotonic() - heard_at)

    async def saved(self) -> Saved:
        """Return the position as it is stored."""
        return await self._tools.store.read()

    def _heard_at(self) -> float | None:
        live = self._term.heard_at if self._term else None
        return live or self._tools.progress.heard_at

    def _is_hearing(self) -> bool:
        heard_at = self._term.heard_at if self._term else None
        longest = _SILENT_HEARTBEATS * self._tools.pace.heartbeat_seconds
        return heard_at is not None and time.monotonic() - heard_at < longest

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        longest = self._tools.pace.retry_longest_seconds
        while True:
            began = time.monotonic()
            try:
                async with self._leadership.held() as lost:
                    await self._lead(lost)
            except (ServiceError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                named = str(error) if isinstance(error, ServiceError) else type(error).__name__
                _log.warning("not_leading", extra={"error": named})
            if time.monotonic() - began > longest:
                pause = _FIRST_PAUSE_SECONDS
            # Copies that failed together should not come back together.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            pause = min(pause * 2, longest)

    async def _lead(self, lost: asyncio.Event) -> None:
        epoch, saved = await self._tools.store.begin_epoch()
        _log.info("leading", extra={"epoch": epoch, "has_position": saved.position is not None})
        term = self._term = Term(self._tools, epoch, saved.position)
        metrics.IS_ACTIVE.set(1)
        working = asyncio.create_task(term.run(), name="term")
        losing = asyncio.create_task(lost.wait())
        try:
            await asyncio.wait((working, losing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._term = None
            metrics.IS_ACTIVE.set(0)
            if lost.is_set():
                term.abandon()
            losing.cancel()
            working.cancel()
            await asyncio.wait((working,))
        if not working.cancelled():
            working.result()
