"""Keeps simulated time from outrunning what goes on in real time.

The queue's loops run so many times a real second and a change needs some real moments to arrive.
A week in half an hour would leave them behind by hours, of which the rules know nothing.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from dialler.binlog_relay.v1 import binlog_relay_pb2, binlog_relay_pb2_grpc
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc

from devstack.mysql_connection import Connection
from servicekit import metrics
from servicekit.clock import Clock
from servicekit.errors import ServiceError

LOOPS = ("promotion", "leases")
_LOOPS_BEHIND = timedelta(seconds=40)
_CAPTURE_BEHIND = timedelta(minutes=10)
_LOOK_SECONDS = 0.4
# Far longer than capture ever takes; then something is broken.
_GIVE_UP_SECONDS = 180.0


class LoopsWatch:
    """Sees that the queue's loops have run since a moment before time goes on."""

    def __init__(self, clock: Clock, copies: int) -> None:
        self._clock = clock
        # One more than can be under way: of so many runs that end one has begun since.
        self._more = copies + 1
        self._marked_at = clock.now()
        self._wanted = self._counts(self._more)

    async def keep_up(self, when: datetime) -> None:
        """Return when a run of each loop has begun since shortly before `when`, and ended."""
        if when - self._marked_at <= _LOOPS_BEHIND:
            return
        await self.settle(runs=0)
        self._marked_at = self._clock.now()
        self._wanted = self._counts(self._more)

    async def settle(self, runs: int) -> None:
        """Return when each loop has run as often as is wanted, and `runs` times more from now."""
        wanted = self._counts(more=runs) if runs else self._wanted
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            # A counter cannot be waited for.
            while self._are_behind(wanted):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def _are_behind(self, wanted: list[float]) -> bool:
        return any(have < want for have, want in zip(self._counts(), wanted, strict=True))

    @staticmethod
    def _counts(more: int = 0) -> list[float]:
        return [_runs(loop) + more for loop in LOOPS]


def _runs(loop: str) -> float:
    samples = metrics.looped(loop, "ok").collect()
    return sum(
        it.value for metric in samples for it in metric.samples if it.name.endswith("_count")
    )


class _Mark(NamedTuple):
    """Where the binlog was at a simulated moment."""

    at: datetime
    place: tuple[str, int]
    # Messages sent when the relay had come so far.
    messages: int | None = None


class CaptureWatch:
    """Knows up to which simulated moment the changes have arrived, and can hold them up."""

    def __init__(
        self,
        clock: Clock,
        connection: Connection,
        relays: Sequence["binlog_relay_pb2_grpc.BinlogRelayServiceAsyncStub"],
        ingests: Sequence["cdc_ingest_pb2_grpc.CdcIngestServiceAsyncStub"],
    ) -> None:
        """`connection` belongs to an account that may ask where the binlog is.

        Of relays and ingests one for each copy, each of which counts its own messages.
        """
        self._clock = clock
        self._connection = connection
        self._relays = relays
        self._ingests = ingests
        self._through = clock.now()
        self._mark: _Mark | None = None
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.messages = 0

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def keep_up(self, when: datetime) -> None:
        """Return when everything until shortly before `when` has arrived."""
        await self._arrived(min(when - _CAPTURE_BEHIND, self._clock.now()))

    async def drain(self) -> None:
        """Return when everything until now has arrived."""
        await self._arrived(self._clock.now())

    async def pause(self) -> None:
        """Hold up whatever is changed from now on."""
        for ingest in self._ingests:
            await ingest.PauseIngest(cdc_ingest_pb2.PauseIngestRequest())

    async def resume(self) -> None:
        """Let arrive what was held up."""
        for ingest in self._ingests:
            await ingest.ResumeIngest(cdc_ingest_pb2.ResumeIngestRequest())

    async def _arrived(self, moment: datetime) -> None:
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            while self._through < moment:
                self._moved.clear()
                await self._moved.wait()

    async def _watch(self) -> None:
        while True:
            # Away for a moment is away for a moment.
            with contextlib.suppress(ServiceError):
                await self._look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        if self._mark is None:
            self._mark = _Mark(self._clock.now(), await asyncio.to_thread(self._end_of_binlog))
        if self._mark.messages is None:
            asked = binlog_relay_pb2.GetPositionRequest()
            positions = [await it.GetPosition(asked) for it in self._relays]
            if max((it.file, it.offset) for it in positions) >= self._mark.place:
                sent = sum(it.messages_published for it in positions)
                self._mark = self._mark._replace(messages=sent)
        if self._mark.messages is not None:
            request = cdc_ingest_pb2.GetStatusRequest()
            statuses = [await it.GetStatus(request) for it in self._ingests]
            self.messages = sum(it.messages_done for it in statuses)
            if self.messages >= self._mark.messages:
                self._through = self._mark.at
                self._mark = None
                self._moved.set()

    def _end_of_binlog(self) -> tuple[str, int]:
        with self._connection.cursor() as cursor:
            cursor.execute("SHOW MASTER STATUS")
            row = cursor.fetchone()
        if row is None:
            raise RuntimeError("MySQL writes no binlog")
        return str(row[0]), int(row[1])
