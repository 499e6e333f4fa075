"""The reader of the event stream: one for this process, which fans out to its clients."""

import asyncio
import contextlib
import logging
import random
import time

from dialler.model.v1 import event_pb2
from prometheus_client import Gauge, Histogram

from gateway.live.clients import EventClient
from gateway.live.events import EventView, Published, order_of
from servicekit.backoff import Backoff
from servicekit.errors import Exhausted, Unavailable
from servicekit.event_stream import EventStream, StreamGap, StreamPosition
from servicekit.lifecycle import cancelled
from servicekit.slo import Slo

BLOCK_SECONDS = 5.0
BATCH = 500
_BACKOFF = Backoff(0.1, 2.0, jitter=(0.8, 1.2))
# After so many deliveries the event loop's other tasks run.
MOST_GIVEN_AT_ONCE = 10_000
# Clients that are refused together should not come back together; `Retry-After` has whole seconds.
# Refused clients come back less often than clients whose streams ended.
REFUSED_SECONDS = (5, 15)

_CLIENTS = Gauge("dialler_gateway_event_clients", "Event streams open now.")
_LOST = Gauge(
    "dialler_gateway_event_stream_lost",
    "1 while the event stream cannot be read: Redis is unavailable or refuses writes.",
)
_LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_VISIBLE = Histogram(
    "dialler_gateway_change_visible_seconds",
    "From a change's commit, or its capture where commit times have whole seconds, to the delivery "
    "of its event to the clients.",
    buckets=_LATENCY_BUCKETS,
)
Slo("dialler_gateway_changes_visible", _VISIBLE, 3.0)
_EVENT_LEG = Histogram(
    "dialler_gateway_event_seconds",
    "From the time of an event in the queue to its delivery to the clients.",
    buckets=_LATENCY_BUCKETS,
)
_log = logging.getLogger(__name__)


class EventHub:
    """Reads the stream and offers each event to every client.

    While Redis is unavailable streams stay open. Afterwards reading resumes at the last position,
    or every client is reset if events may be lost.
    """

    def __init__(
        self,
        stream: EventStream,
        *,
        clients: int,
        clients_per_caller: int,
        buffer: int,
        replay: int,
    ) -> None:
        self._stream = stream
        self._most_clients = clients
        self._most_per_caller = clients_per_caller
        self._buffer = buffer
        self._replay = replay
        self._clients: set[EventClient] = set()
        self._per_caller: dict[str, int] = {}
        self._position: StreamPosition | None = None
        self._failures = 0
        self._lost = ""
        self._reading: asyncio.Task[None] | None = None

    @property
    def lost(self) -> str:
        """Why the stream cannot be read, such as READONLY or UNREACHABLE; empty while it can be."""
        return self._lost

    async def start(self) -> None:
        """Begin to read at the stream's end; Redis may be unavailable."""
        with contextlib.suppress(Unavailable):
            self._position = await self._stream.position()
        self._reading = asyncio.create_task(self._run(), name="event hub")

    async def stop(self) -> None:
        """End every stream and stop reading."""
        for client in tuple(self._clients):
            client.end("closing")
        reading, self._reading = self._reading, None
        if reading is not None:
            await cancelled(reading)

    def join(self, view: EventView) -> EventClient:
        """Return a client that gets every event from now on; `leave` must follow."""
        if len(self._clients) >= self._most_clients:
            raise _refused("TOO_MANY_STREAMS", "too many event streams are open")
        # One caller must not take all streams of the process.
        open_already = self._per_caller.get(view.subject, 0)
        if open_already >= self._most_per_caller:
            raise _refused("TOO_MANY_OWN_STREAMS", "you have too many streams open")
        client = EventClient(view, self._buffer, self._position)
        self._clients.add(client)
        self._per_caller[view.subject] = open_already + 1
        _CLIENTS.inc()
        return client

    def leave(self, client: EventClient) -> None:
        """Remove the client; a second call does nothing."""
        if client in self._clients:
            self._clients.remove(client)
            left = self._per_caller.pop(client.view.subject) - 1
            if left:
                self._per_caller[client.view.subject] = left
            _CLIENTS.dec()

    async def missed(
        self, after: StreamPosition, until: StreamPosition | None
    ) -> list[Published] | None:
        """Return the events after one position up to the other; None if some may be lost."""
        if until is None or after.epoch != until.epoch:
            return None
        try:
            found = await self._stream.read(after, block_seconds=0, count=self._replay + 1)
        except (StreamGap, Unavailable):
            return None
        if len(found) > self._replay:
            return None
        last = order_of(until)
        return [Published(at, event) for at, event in found if order_of(at) <= last]

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Exception as error:
                self._failures += 1
                _LOST.set(1)
                known = error if isinstance(error, Unavailable) else None
                self._lost = known.metadata.get("redis", known.reason) if known else "INTERNAL"
                if self._failures == 1:
                    cause = None if known else error
                    _log.error("event_stream_lost", exc_info=cause, extra={"reason": self._lost})
                await asyncio.sleep(_BACKOFF.delay_seconds(self._failures))
                continue
            if self._failures:
                _log.info("event_stream_found", extra={"failures": self._failures})
                self._failures = 0
                self._lost = ""
                _LOST.set(0)

    async def _step(self) -> None:
        if self._position is None:
            self._position = await self._stream.position()
            for client in tuple(self._clients):
                client.reset(self._position)
        # After an outage a gap is detected at once, not with the next event.
        seconds = 0.0 if self._failures else BLOCK_SECONDS
        try:
            batch = await self._stream.read(self._position, block_seconds=seconds, count=BATCH)
        except StreamGap:
            self._position = None
            return
        given = 0
        for position, event in batch:
            began_ns = time.time_ns()
            published = Published(position, event)
            for client in tuple(self._clients):
                client.offer(published)
            self._stream.trace_delivery(event, began_ns, len(self._clients))
            if event.HasField("occurred_at"):
                _EVENT_LEG.observe(max(0, began_ns - event.occurred_at.ToNanoseconds()) / 1e9)
            # Of the events of a change only this one is measured.
            if event.type == event_pb2.EVENT_TYPE_CONTEXT_CHANGED and event.HasField("timeline"):
                timeline = event.timeline
                begin = (
                    timeline.committed_at if timeline.committed_at.nanos else timeline.captured_at
                )
                if begin.seconds:
                    _VISIBLE.observe(max(0, began_ns - begin.ToNanoseconds()) / 1e9)
            self._position = position
            given += len(self._clients)
            if given >= MOST_GIVEN_AT_ONCE:
                given = 0
                await asyncio.sleep(0)


def _refused(reason: str, message: str) -> Exhausted:
    seconds = random.randint(*REFUSED_SECONDS)  # noqa: S311 - spreads reconnects
    return Exhausted(reason, message, retry_after_seconds=float(seconds))
