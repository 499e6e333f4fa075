"""Asks the reconciler for full runs, which find the changes that could not be followed."""

import asyncio
import contextlib
import logging
from datetime import datetime

from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc

from servicekit import deadline
from servicekit.backoff import Backoff
from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.binlog_relay import metrics

_log = logging.getLogger(__name__)

_MAX_REASON = 200


class FullRunRequests:
    """Asks the reconciler for full runs. While one is pending, no later position is saved."""

    def __init__(
        self,
        stub: "reconciler_pb2_grpc.ReconcilerServiceAsyncStub",
        clock: Clock,
        retry_longest_seconds: float,
    ) -> None:
        self._stub = stub
        self._clock = clock
        self._backoff = Backoff(0.1, retry_longest_seconds, jitter=(1.0, 1.0))
        self._reasons: list[str] = []
        self._since: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self.gaps = 0

    @property
    def is_pending(self) -> bool:
        """Whether a full run has still to be accepted."""
        return self._since is not None

    def request(self, reason: str, *, is_gap: bool = True) -> None:
        """Request a full run that begins after now, again and again until one is accepted."""
        if is_gap:
            self.gaps += 1
            metrics.GAPS.labels(reason).inc()
        _log.warning("repair_wanted", extra={"reason": reason})
        metrics.REPAIR_IS_WANTED.set(1)
        self._since = self._clock.now()
        if reason not in self._reasons:
            self._reasons.append(reason)
        if self._task is None or self._task.done():
            with deadline.detached():
                self._task = asyncio.create_task(self._ask_until_accepted(), name="full-runs")

    async def stop(self) -> None:
        """Stop asking; the next start finds the gap again from the old position."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _ask_until_accepted(self) -> None:
        attempt = 0
        while self._since is not None:
            since = self._since
            reason = "binlog_relay: " + ", ".join(self._reasons)
            start_run = reconciler_pb2.StartRunRequest(
                kind=reconciler_pb2.RUN_KIND_FULL, reason=reason[:_MAX_REASON]
            )
            is_accepted = False
            try:
                run = (await self._stub.StartRun(start_run)).run
            except ServiceError as error:
                _log.warning("repair_not_accepted", extra={"error": str(error)})
            else:
                # A run that began before the gap may have passed the users whose changes it lacks.
                has_begun = run.HasField("started_at")
                is_accepted = not has_begun or run.started_at.ToDatetime(since.tzinfo) >= since
            if not is_accepted:
                attempt += 1
                await asyncio.sleep(self._backoff.delay_seconds(attempt))
                continue
            attempt = 0
            # Another gap may have opened during the call.
            if self._since == since:
                _log.info("repair_accepted", extra={"reasons": self._reasons})
                self._since = None
                self._reasons = []
                metrics.REPAIR_IS_WANTED.set(0)
