"""Views of personal data, collected and written to the audit trail in batches."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
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

# Views kept while the queue does not accept them; one more is refused rather than lost.
MOST_WAITING = 50_000
# A repeated view of the same person by the same actor within this time is one view.
REPEAT_SECONDS = 60.0
MOST_REMEMBERED = 200_000
VIEWS_PER_FLUSH = 5_000
# In place of a user id, where a view is of no single person.
NO_PERSON = 0
# The most people of one RecordAccess, and how many such calls are in flight at once.
PEOPLE_PER_CALL = 1_000
CALLS_AT_ONCE = 8

_WAITING = Gauge("dialler_gateway_views_waiting", "Views not in the audit trail yet.")
_NOTED = Counter("dialler_gateway_views_noted", "Views written to the audit trail.")
_REFUSED = Counter(
    "dialler_gateway_views_refused", "Views refused because they could not be recorded."
)
_log = logging.getLogger(__name__)


class ViewAction(StrEnum):
    """What an actor sees of a person."""

    CONTEXT = "VIEWED_CONTEXT"
    EXPLANATION = "VIEWED_EXPLANATION"
    CALLS = "VIEWED_CALLS"
    HISTORY = "VIEWED_HISTORY"
    CALLBACK = "VIEWED_CALLBACK"
    SUPPRESSION = "VIEWED_SUPPRESSION"
    SEARCH = "FOUND_BY_SEARCH"
    # Of no person: a token for emergencies is in use.
    BREAK_GLASS = "BREAK_GLASS"


@dataclass(frozen=True, slots=True)
class Flushed:
    """What one run has written."""

    views: int
    has_more: bool


_Noted = tuple[str, ViewAction, int]


class AccessTrail:
    """Records views in memory and writes them in batches.

    A recorded view is written unless the process is killed before the next flush, half a second
    later; when too many wait, the next is refused.
    """

    def __init__(self, queue: "QueueServiceAsyncStub", clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._waiting: deque[_Noted] = deque()
        self._under_way = 0
        self._seen: dict[_Noted, float] = {}

    def note(self, actor_id: str, user_id: int, view: ViewAction) -> None:
        """Record one view; raises Unavailable (AUDIT_UNAVAILABLE) when too many wait."""
        noted, now = (actor_id, view, user_id), self._clock.monotonic()
        if self._seen.get(noted, 0.0) > now:
            return
        if len(self._waiting) + self._under_way >= MOST_WAITING:
            _REFUSED.inc()
            raise Unavailable(
                "AUDIT_UNAVAILABLE",
                "personal data is not shown while views cannot be recorded",
                retry_after_seconds=5.0,
            )
        self._waiting.append(noted)
        if len(self._seen) >= MOST_REMEMBERED:
            self._seen = {known: until for known, until in self._seen.items() if until > now}
        if len(self._seen) >= MOST_REMEMBERED:
            self._seen.clear()
        self._seen[noted] = now + REPEAT_SECONDS

    def note_all(self, actor_id: str, user_ids: Iterable[int], view: ViewAction) -> None:
        """Record a view of each; raises as `note` does."""
        for user_id in user_ids:
            self.note(actor_id, user_id, view)

    async def run_once(self, now: datetime) -> Flushed:
        """Write a batch of waiting views; views that the queue does not accept keep waiting."""
        del now
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), VIEWS_PER_FLUSH))]
        groups: dict[tuple[str, ViewAction], list[int]] = {}
        for actor_id, view, user_id in batch:
            groups.setdefault((actor_id, view), []).append(user_id)
        calls = [
            (actor_id, view, people[start : start + PEOPLE_PER_CALL])
            for (actor_id, view), people in groups.items()
            for start in range(0, len(people), PEOPLE_PER_CALL)
        ]
        self._under_way = len(batch)
        try:
            failures: list[BaseException] = []
            for start in range(0, len(calls), CALLS_AT_ONCE):
                together = map(self._call, calls[start : start + CALLS_AT_ONCE])
                results = await asyncio.gather(*together, return_exceptions=True)
                failures += filter(None, results)
            if failures:
                raise failures[0]
        finally:
            self._under_way = 0
        _WAITING.set(len(self._waiting))
        return Flushed(len(batch), has_more=bool(self._waiting))

    async def close(self) -> None:
        """Write the waiting views; the log counts those that cannot be written."""
        try:
            while self._waiting:
                await self.run_once(self._clock.now())
        except ServiceError as error:
            _log.error("views_lost", extra={"views": len(self._waiting), "error": str(error)})

    async def _call(self, call: tuple[str, ViewAction, list[int]]) -> None:
        actor_id, view, people = call
        request = queue_pb2.RecordAccessRequest(
            actor_id=actor_id, user_ids=filter(None, people), action=view
        )
        try:
            await self._queue.RecordAccess(request)
        except BaseException:
            self._waiting.extendleft((actor_id, view, user_id) for user_id in people)
            raise
        _NOTED.inc(len(people))
