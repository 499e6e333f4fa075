"""Delivers what the outboxes hold: events to the stream, invalidations to `user_context`.

The two have a loop each, so that neither holds up the other.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from dialler.model.v1 import event_pb2
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc
from google.protobuf.message import DecodeError

from servicekit import deadline
from servicekit.errors import ServiceError
from servicekit.event_stream import EventStream
from services.queue.store import outbox
from services.queue.store.database import Database

PAUSE_SECONDS = 1.0

_EVENT_BATCH = 500
_INVALIDATION_BATCH = 1_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dispatched:
    """How many rows were delivered; `is_held_up` when the receiver could not take them."""

    delivered: int
    has_more: bool = False
    is_held_up: bool = False


class _Receiver:
    """Pauses deliveries after a failure, so that nudges and ticks do not overload the receiver.

    The pause is shorter than a loop's own backoff, since agents watch the result.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._retry_at: datetime | None = None

    def is_pausing(self, now: datetime) -> bool:
        return self._retry_at is not None and now < self._retry_at

    async def deliver(self, call: Callable[[], Awaitable[object]], now: datetime) -> bool:
        """Return whether the call succeeded; the first of several failures in a row is logged."""
        try:
            await call()
        except ServiceError as error:
            if self._retry_at is None:
                extra = {"receiver": self._name, "error": str(error)}
                _log.warning("outbox_held_up", extra=extra)
            self._retry_at = now + timedelta(seconds=PAUSE_SECONDS)
            return False
        if self._retry_at is not None:
            _log.info("outbox_flows_again", extra={"receiver": self._name})
            self._retry_at = None
        return True


class EventDispatch:
    """Publishes events, each at least once and the events of one user in order."""

    def __init__(self, database: Database, stream: EventStream) -> None:
        self._database = database
        self._stream = stream
        self._receiver = _Receiver("event_stream")

    async def run_once(self, now: datetime) -> Dispatched:
        """Publish a batch; events that cannot be published stay for later.

        An event that cannot be decoded is logged and left out, since no event could follow it.
        """
        if self._receiver.is_pausing(now):
            return Dispatched(0, is_held_up=True)
        with suppress(_HeldUp):
            async with self._database.transaction() as tx:
                rows = await outbox.take_events(tx, _EVENT_BATCH)
                if not rows:
                    return Dispatched(0)
                events = []
                for row in rows:
                    try:
                        events.append(event_pb2.Event.FromString(row.event))
                    except DecodeError:
                        _log.error("event_undecodable", extra={"outbox_id": row.outbox_id})
                if not await self._receiver.deliver(lambda: self._stream.publish(events), now):
                    raise _HeldUp
            return Dispatched(len(rows), has_more=len(rows) == _EVENT_BATCH)
        return Dispatched(0, is_held_up=True)


class _HeldUp(Exception):
    """Puts the events of the transaction back."""


class InvalidationDispatch:
    """Notifies `user_context` of call states that have changed, of each at least once."""

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
        """Deliver a batch; invalidations that cannot be delivered stay for later."""
        if self._receiver.is_pausing(now):
            return Dispatched(0, is_held_up=True)
        async with self._database.statements() as tx:
            stale = await outbox.stale_call_states(tx, _INVALIDATION_BATCH)
        if not stale:
            return Dispatched(0)
        versions: dict[int, int] = {}
        for it in stale:
            versions[it.user_id] = max(it.state_version, versions.get(it.user_id, 0))
        request = user_context_pb2.InvalidateCallStatesRequest(
            versions=[
                user_context_pb2.CallStateVersion(user_id=user_id, version=version)
                for user_id, version in versions.items()
            ]
        )

        async def invalidate() -> None:
            with deadline.limit(self._timeout_seconds):
                await self._user_context.InvalidateCallStates(request)

        if not await self._receiver.deliver(invalidate, now):
            return Dispatched(0, is_held_up=True)
        async with self._database.statements() as tx:
            await outbox.delete_stale_call_states(tx, stale)
        return Dispatched(len(stale), has_more=len(stale) == _INVALIDATION_BATCH)
