"""From the outboxes to those who wait: events to the stream, notices to `user_context`.

The two are apart, so that neither can hold up the other.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from dialler.model.v1 import event_pb2
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit import deadline
from servicekit.errors import ServiceError
from servicekit.event_stream import EventStream
from services.queue.store import outbox
from services.queue.store.database import Database
from services.queue.store.outbox import StaleCallState

PAUSE_SECONDS = 1.0

_EVENT_BATCH = 500
_NOTICE_BATCH = 1_000

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dispatched:
    """How many were delivered; `is_held_up` when the receiver could not take them."""

    delivered: int
    has_more: bool = False
    is_held_up: bool = False


class _Receiver:
    """Pauses after a failure, so that neither nudges nor ticks wear out one who is away.

    Shorter than a loop's own backoff: agents are watching.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._away_until: datetime | None = None

    def is_away(self, now: datetime) -> bool:
        return self._away_until is not None and now < self._away_until

    async def deliver(self, call: Callable[[], Awaitable[T]], now: datetime) -> bool:
        """Return whether the call succeeded; the first failure of a row is logged."""
        try:
            await call()
        except ServiceError as error:
            if self._away_until is None:
                extra = {"receiver": self._name, "error": str(error)}
                _log.warning("outbox_held_up", extra=extra)
            self._away_until = now + timedelta(seconds=PAUSE_SECONDS)
            return False
        if self._away_until is not None:
            _log.info("outbox_flows_again", extra={"receiver": self._name})
            self._away_until = None
        return True


class EventDispatch:
    """Publishes events, each at least once and each person's in order."""

    def __init__(self, database: Database, stream: EventStream) -> None:
        self._database = database
        self._stream = stream
        self._receiver = _Receiver("event_stream")

    async def run_once(self, now: datetime) -> Dispatched:
        """Publish a batch; what cannot be published stays for later."""
        if self._receiver.is_away(now):
            return Dispatched(0, is_held_up=True)
        async with self._database.transaction() as tx:
            posted = await outbox.lock_posted(tx, _EVENT_BATCH)
            if not posted:
                return Dispatched(0)
            events = [event_pb2.Event.FromString(it.event) for it in posted]
            if not await self._receiver.deliver(lambda: self._stream.publish(events), now):
                return Dispatched(0, is_held_up=True)
            await outbox.delete_posted(tx, posted)
        return Dispatched(len(posted), has_more=len(posted) == _EVENT_BATCH)


class NoticeDispatch:
    """Tells `user_context` which call states have changed, each at least once."""

    def __init__(
        self,
        database: Database,
        user_context: "user_context_pb2_grpc.UserContextServiceAsyncStub",
        timeout_seconds: float,
    ) -> None:
        self._database = database
        self._user_context = user_context
        self._timeout_seconds = timeout_seconds
        self._receiver = _Receiver("user_context")

    async def run_once(self, now: datetime) -> Dispatched:
        """Deliver a batch; what cannot be delivered stays for later."""
        if self._receiver.is_away(now):
            return Dispatched(0, is_held_up=True)
        async with self._database.statements() as tx:
            stale = await outbox.stale_call_states(tx, _NOTICE_BATCH)
        if not stale:
            return Dispatched(0)
        if not await self._receiver.deliver(lambda: self._tell(stale), now):
            return Dispatched(0, is_held_up=True)
        async with self._database.statements() as tx:
            await outbox.delete_stale_call_states(tx, stale)
        return Dispatched(len(stale), has_more=len(stale) == _NOTICE_BATCH)

    async def _tell(self, stale: list[StaleCallState]) -> None:
        versions: dict[int, int] = {}
        for it in stale:
            versions[it.user_id] = max(it.state_version, versions.get(it.user_id, 0))
        request = user_context_pb2.InvalidateCallStatesRequest(
            versions=[
                user_context_pb2.CallStateVersion(user_id=user_id, version=version)
                for user_id, version in versions.items()
            ]
        )
        with deadline.limit(self._timeout_seconds):
            await self._user_context.InvalidateCallStates(request)
