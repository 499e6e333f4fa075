"""Every view of somebody's personal data, on its way to the audit trail."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from dialler.queue.v1 import queue_pb2
from prometheus_client import Counter, Gauge

from servicekit.clock import Clock
from servicekit.errors import ServiceError, Unavailable

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

# Views held while the queue does not take them; one more is refused rather than lost.
MOST_WAITING = 50_000
# The same person seen by the same reader in the same way again is one view.
REPEAT_SECONDS = 60.0
MOST_REMEMBERED = 200_000
VIEWS_PER_FLUSH = 5_000
# What RecordAccess takes at once, and how many such calls are under way together.
PEOPLE_PER_CALL = 1_000
CALLS_AT_ONCE = 8

_WAITING = Gauge("dialler_gateway_views_waiting", "Views not in the audit trail yet.")
_NOTED = Counter("dialler_gateway_views_noted", "Views written to the audit trail.")
_REFUSED = Counter(
    "dialler_gateway_views_refused", "Views refused because they could not be noted."
)
_log = logging.getLogger(__name__)


class View(StrEnum):
    """What is seen of a person."""

    CONTEXT = "VIEWED_CONTEXT"
    EXPLANATION = "VIEWED_EXPLANATION"
    CALLS = "VIEWED_CALLS"
    CALLBACK = "VIEWED_CALLBACK"
    SUPPRESSION = "VIEWED_SUPPRESSION"
    SEARCH = "FOUND_BY_SEARCH"


@dataclass(frozen=True, slots=True)
class Flushed:
    """What one run has written."""

    views: int
    has_more: bool


_Noted = tuple[str, View, int]


class AccessTrail:
    """Takes views in at once and writes them in batches within a moment.

    A view that has been taken in is written unless the process is killed before the next flush,
    half a second later; when too many wait, the next is refused.
    """

    def __init__(self, queue: "QueueServiceAsyncStub", clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._waiting: deque[_Noted] = deque()
        self._under_way = 0
        self._seen: dict[_Noted, float] = {}

    def note(self, actor_id: str, user_id: int, view: View) -> None:
        """Take in one view; raises Unavailable (AUDIT_UNAVAILABLE) when too many wait."""
        noted, now = (actor_id, view, user_id), self._clock.monotonic()
        if self._seen.get(noted, 0.0) > now:
            return
        if len(self._waiting) + self._under_way >= MOST_WAITING:
            _REFUSED.inc()
            raise Unavailable(
                "AUDIT_UNAVAILABLE",
                "nobody's data is shown while that cannot be noted",
                retry_after_seconds=5.0,
            )
        self._waiting.append(noted)
        self._remember(noted, now)

    def note_all(self, actor_id: str, user_ids: Iterable[int], view: View) -> None:
        """Take in a view of each; raises as `note` does."""
        for user_id in user_ids:
            self.note(actor_id, user_id, view)

    async def run_once(self, now: datetime) -> Flushed:
        """Write a batch of what waits; what the queue does not take goes on waiting."""
        del now
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), VIEWS_PER_FLUSH))]
        self._under_way = len(batch)
        try:
            await self._write(batch)
        finally:
            self._under_way = 0
        _WAITING.set(len(self._waiting))
        return Flushed(len(batch), has_more=bool(self._waiting))

    async def close(self) -> None:
        """Write what still waits; what cannot be written is counted in the log."""
        try:
            while self._waiting:
                await self.run_once(self._clock.now())
        except ServiceError as error:
            _log.error("views_lost", extra={"views": len(self._waiting), "error": str(error)})

    async def _write(self, batch: Sequence[_Noted]) -> None:
        groups: dict[tuple[str, View], list[int]] = {}
        for actor_id, view, user_id in batch:
            groups.setdefault((actor_id, view), []).append(user_id)
        calls = [
            (actor_id, view, people[start : start + PEOPLE_PER_CALL])
            for (actor_id, view), people in groups.items()
            for start in range(0, len(people), PEOPLE_PER_CALL)
        ]
        failures = [
            failure
            for start in range(0, len(calls), CALLS_AT_ONCE)
            for failure in await asyncio.gather(
                *map(self._call, calls[start : start + CALLS_AT_ONCE]), return_exceptions=True
            )
            if failure is not None
        ]
        if failures:
            raise failures[0]

    async def _call(self, call: tuple[str, View, list[int]]) -> None:
        actor_id, view, people = call
        request = queue_pb2.RecordAccessRequest(actor_id=actor_id, user_ids=people, action=view)
        try:
            await self._queue.RecordAccess(request)
        except BaseException:
            self._waiting.extendleft((actor_id, view, user_id) for user_id in people)
            raise
        _NOTED.inc(len(people))

    def _remember(self, noted: _Noted, now: float) -> None:
        if len(self._seen) >= MOST_REMEMBERED:
            self._seen = {known: until for known, until in self._seen.items() if until > now}
        if len(self._seen) >= MOST_REMEMBERED:
            self._seen.clear()
        self._seen[noted] = now + REPEAT_SECONDS
