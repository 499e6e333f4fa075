"""Asking the reconciler to find what could not be followed."""

import asyncio
import contextlib
import logging
from datetime import datetime

from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc

from servicekit import deadline
from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.binlog_relay import metrics

_log = logging.getLogger(__name__)

_MAX_REASON = 200


class Repairs:
    """While a repair is wanted, no position beyond the gap may be saved."""

    def __init__(
        self,
        stub: "reconciler_pb2_grpc.ReconcilerServiceAsyncStub",
        clock: Clock,
        retry_longest_seconds: float,
    ) -> None:
        self._stub = stub
        self._clock = clock
        self._longest_pause_seconds = retry_longest_seconds
        self._wanted: list[str] = []
        self._since: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self.gaps = 0

    @property
    def is_wanted(self) -> bool:
        """Whether a full run has still to be accepted."""
        return self._since is not None

    def want(self, reason: str, *, is_gap: bool = True) -> None:
        """Ask for a full run that begins after now; asks again until one is accepted."""
        if is_gap:
            self.gaps += 1
            metrics.GAPS.labels(reason).inc()
        _log.warning("repair_wanted", extra={"reason": reason})
        metrics.REPAIR_IS_WANTED.set(1)
        self._since = self._clock.now()
        if reason not in self._wanted:
            self._wanted.append(reason)
        if self._task is None or self._task.done():
            with deadline.detached():
                self._task = asyncio.create_task(self._ask_until_accepted(), name="repairs")

    async def stop(self) -> None:
        """Stop asking; what was wanted is found again at the next start from the old position."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _ask_until_accepted(self) -> None:
        pause = 0.1
        while self._since is not None:
            since = self._since
            if await self._is_accepted(since):
                # Another gap may have opened while the answer was on its way.
                if self._since == since:
                    self._settled()
                pause = 0.1
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._longest_pause_seconds)

    async def _is_accepted(self, since: datetime) -> bool:
        reason = "binlog_relay: " + ", ".join(self._wanted)
        request = reconciler_pb2.StartRunRequest(
            kind=reconciler_pb2.RUN_KIND_FULL, reason=reason[:_MAX_REASON]
        )
        try:
            run = (await self._stub.StartRun(request)).run
        except ServiceError as error:
            _log.warning("repair_not_accepted", extra={"error": str(error)})
            return False
        # A run already under way has passed people whose changes fell into the gap since.
        has_begun = run.HasField("started_at")
        return not has_begun or run.started_at.ToDatetime(since.tzinfo) >= since

    def _settled(self) -> None:
        _log.info("repair_accepted", extra={"reasons": self._wanted})
        self._since = None
        self._wanted = []
        metrics.REPAIR_IS_WANTED.set(0)
