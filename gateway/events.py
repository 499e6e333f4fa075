"""The suite's events, read once by this process and fanned out to its clients."""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
from dialler.model.v1 import event_pb2
from prometheus_client import Counter, Gauge, Histogram

from gateway.auth import Caller, Role
from gateway.schemas import (
    EventType,
    conversion_name,
    moment_in,
    name_in,
    outcome_name,
    queue_name,
    state_name,
)
from gateway.topics import Topic
from servicekit.errors import Exhausted, Unavailable
from servicekit.event_stream import EventStream, StreamGap, StreamPosition
from servicekit.promises import Promise

BLOCK_SECONDS = 5.0
BATCH = 500
LONGEST_BACKOFF_SECONDS = 2.0
# After so many events given to clients the loop's other work has a turn.
MOST_GIVEN_AT_ONCE = 10_000
# Clients that are sent away together should not come back together.
RETRY_MILLISECONDS = (1000, 5000)

_CLIENTS = Gauge("dialler_gateway_event_clients", "Event streams open now.")
_ENDED = Counter("dialler_gateway_event_clients_ended", "Event streams that ended.", ("reason",))
_RESETS = Counter("dialler_gateway_event_resets", "Times clients were told to take a snapshot.")
_LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_VISIBLE = Histogram(
    "dialler_gateway_change_visible_seconds",
    "From a change's commit, or its capture where the server tells commits to the second, to its "
    "event being given to those who listen.",
    buckets=_LATENCY_BUCKETS,
)
Promise("dialler_gateway_changes_visible", _VISIBLE, 3.0)
_EVENT_LEG = Histogram(
    "dialler_gateway_event_seconds",
    "From something happening in the queue to its event being given to those who listen.",
    buckets=_LATENCY_BUCKETS,
)
_log = logging.getLogger(__name__)

_TIMELINE = ("committed_at", "captured_at", "received_at", "refreshed_at", "applied_at")


@dataclass(slots=True)
class Published:
    """One event at its place in the stream; each form is rendered at most once."""

    position: StreamPosition
    event: event_pb2.Event
    type: EventType | None = field(init=False)
    order: tuple[int, int] = field(init=False)
    _whole: bytes | None = field(init=False, default=None)
    _movement: bytes | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        name = name_in(event_pb2.EventType.Name, "EVENT_TYPE_", self.event.type)
        self.type = EventType(name) if name else None
        self.order = order_of(self.position)

    def whole(self) -> bytes:
        """Return the event as a block of server-sent events."""
        if self._whole is None:
            self._whole = self._block(event_json(self.event))
        return self._whole

    def movement(self) -> bytes:
        """Return the same without who holds the person."""
        if self._movement is None:
            hidden = {"agent_id": None, "assignment_id": None}
            self._movement = self._block(event_json(self.event) | hidden)
        return self._movement

    def _block(self, body: dict[str, object]) -> bytes:
        kind = (self.type or "unknown").encode()
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (
            str(self.position).encode(),
            kind,
            orjson.dumps(body),
        )


class View:
    """What one caller may see, and of that what was asked for.

    A supervisor or service sees everything. An agent sees everything about itself and about the
    person it holds, and of others that somebody moved in the queues it may work. Topics narrow
    that: `assignment` to the former, `queues` to the latter; the others have figures, not events.
    """

    def __init__(
        self,
        caller: Caller,
        user_ids: frozenset[int] = frozenset(),
        types: frozenset[EventType] = frozenset(),
        topics: frozenset[Topic] = frozenset(),
    ) -> None:
        self._caller = caller
        self._user_ids = user_ids
        self._types = types
        self._topics = topics
        self._is_agent = caller.role is Role.AGENT
        self._has_assignment = not topics or Topic.ASSIGNMENT in topics
        self._has_queues = not topics or Topic.QUEUES in topics
        self._has_events = self._has_assignment or self._has_queues
        self._held: int | None = None

    @property
    def subject(self) -> str:
        """Whose stream it is."""
        return self._caller.subject

    @property
    def topics(self) -> frozenset[Topic]:
        """The topics asked for; none for all events and no figures."""
        return self._topics

    @property
    def queues(self) -> frozenset[str] | None:
        """The queues that the caller may work; None for all."""
        return self._caller.queues

    @property
    def needs_assignment(self) -> bool:
        """Whether `begin` must be told whom the caller holds."""
        return self._is_agent and self._has_assignment

    def begin(self, events: Sequence[Published], holds_now: int | None) -> None:
        """Work out whom the agent held before `events`, given whom it holds after or during them.

        Its first own beginning or end among them tells; without one nothing has changed.
        """
        self._held = holds_now
        for each in events:
            if each.event.agent_id != self._caller.subject:
                continue
            if each.type is EventType.ASSIGNMENT_STARTED:
                self._held = None
                return
            if each.type is EventType.ASSIGNMENT_ENDED:
                self._held = each.event.user_id
                return

    def block(self, published: Published) -> bytes | None:
        """Return what the caller is sent of the event; None for nothing."""
        if not self._has_events:
            return None
        block = self._permitted(published) if self._is_agent else self._whole(published)
        if block is None or not self._is_wanted(published):
            return None
        return block

    def _whole(self, published: Published) -> bytes | None:
        if self._topics and published.type is not EventType.ENTRY_MOVED:
            return None
        return published.whole()

    def _permitted(self, published: Published) -> bytes | None:
        event = published.event
        is_own = event.agent_id == self._caller.subject
        if is_own and published.type is EventType.ASSIGNMENT_STARTED:
            self._held = event.user_id
        if self._has_assignment and (is_own or event.user_id == self._held):
            if is_own and published.type is EventType.ASSIGNMENT_ENDED:
                self._held = None
            return published.whole()
        is_movement = self._has_queues and published.type is EventType.ENTRY_MOVED
        return published.movement() if is_movement and self._works(event) else None

    def _works(self, event: event_pb2.Event) -> bool:
        allowed = self._caller.queues
        if allowed is None:
            return True
        return bool(allowed & {queue_name(event.queue_before), queue_name(event.queue_after)})

    def _is_wanted(self, published: Published) -> bool:
        if self._user_ids and published.event.user_id not in self._user_ids:
            return False
        return not self._types or published.type in self._types


class Client:
    """One open stream: a bounded buffer of blocks that the reader fills and the response empties.

    Events are put aside until `begin`, since what an agent may see depends on whom it held.
    """

    def __init__(self, view: View, limit: int, joined_at: StreamPosition | None) -> None:
        self.joined_at = joined_at
        self._view = view
        self._limit = limit
        self._blocks: deque[bytes] = deque()
        self._figures: dict[str, bytes] = {}
        self._aside: list[Published] | None = []
        self._after = (0, 0)
        self._seen = joined_at
        self._waiter: asyncio.Future[None] | None = None
        self._ended: str | None = None
        self._was_reset = False

    @property
    def view(self) -> View:
        """What the client may see."""
        return self._view

    @property
    def aside(self) -> Sequence[Published]:
        """Events that came before `begin`."""
        return self._aside or ()

    @property
    def needs_snapshot(self) -> bool:
        """Whether it was reset and waits for `begin` once more."""
        return self._aside is not None and self._was_reset

    @property
    def ended(self) -> str | None:
        """Why no more will come; None while it goes on."""
        return self._ended

    def begin(
        self,
        missed: Sequence[Published] | None = (),
        after: StreamPosition | None = None,
        snapshot: bytes = b"",
    ) -> None:
        """Go through what was missed and put aside; events up to `after` are known already.

        None for what was missed: it cannot be told, and the client is reset. The snapshot is sent
        unless the client resumes without a gap; an event may tell again what it shows.
        """
        aside, self._aside = self._aside or (), None
        if missed is None and self.joined_at is not None and not self._was_reset:
            self._tell_reset(self.joined_at)
        if snapshot and (after is None or self._was_reset):
            self._push(snapshot)
        # After a reset nothing that came before it counts.
        if missed is not None and not self._was_reset:
            self._after = order_of(after) if after else (0, 0)
            aside = (*missed, *aside)
        self._was_reset = False
        for each in aside:
            self.offer(each)
        self._push(_hello(self._seen))

    def offer(self, published: Published) -> None:
        """Take the event into the buffer if it is for this client; too many end it."""
        if self._aside is not None:
            if len(self._aside) >= self._limit:
                self.end("slow")
            else:
                self._aside.append(published)
            return
        if published.order <= self._after:
            return
        self._seen = published.position
        block = self._view.block(published)
        if block is not None:
            self._push(block)

    def reset(self, position: StreamPosition) -> None:
        """Tell that events may be missing and that a snapshot is needed."""
        # What an agent may see depends on whom it holds by now.
        self._aside = []
        self._after = (0, 0)
        self._tell_reset(position)
        self._wake()

    def _tell_reset(self, position: StreamPosition) -> None:
        self._was_reset = True
        self._seen = position
        _RESETS.inc()
        data = orjson.dumps({"type": "reset", "position": str(position)})
        self._push(b"id: %b\nevent: reset\ndata: %b\n\n" % (str(position).encode(), data))

    def show(self, name: str, block: bytes) -> None:
        """Send the figures unless newer ones of that name come before they could be sent."""
        if self._ended is None:
            self._figures[name] = block
            self._wake()

    def end(self, reason: str) -> None:
        """Send a hint when to come back instead of all that is held, and end."""
        if self._ended is not None:
            return
        self._ended = reason
        _ENDED.labels(reason).inc()
        self._blocks.clear()
        self._figures.clear()
        self._aside = None
        self._blocks.append(_goodbye(reason))
        self._wake()

    async def next(self, timeout_seconds: float) -> bytes | None:
        """Return what there is to send, a comment if that is nothing in time; None at the end."""
        if not self._blocks and not self._figures and self._ended is None:
            await self._wait(timeout_seconds)
        if self._figures:
            sent = b"".join((*self._blocks, *self._figures.values()))
            self._figures.clear()
        elif self._blocks:
            sent = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
        else:
            return None if self._ended is not None else self._heartbeat()
        self._blocks.clear()
        return sent

    async def _wait(self, timeout_seconds: float) -> None:
        # A bare future and timer: done for each event of each client, asyncio's own means for
        # this are a third of what a delivery costs.
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_seconds, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _heartbeat(self) -> bytes:
        # The id moves past events that this client was not shown, so that a resume is short.
        if self._seen is None or self._aside is not None:
            return b":\n\n"
        return b":\nid: %b\n\n" % str(self._seen).encode()

    def _push(self, block: bytes) -> None:
        if self._ended is not None:
            return
        if len(self._blocks) >= self._limit:
            self.end("slow")
            return
        self._blocks.append(block)
        self._wake()


class EventHub:
    """Reads the stream and gives each event to every client.

    While Redis is away clients stay; on its return reading goes on where it stopped, or, if events
    may be lost, every client is told to reset.
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
        self._clients: set[Client] = set()
        self._per_caller: dict[str, int] = {}
        self._position: StreamPosition | None = None
        self._failures = 0
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Find the stream's end and read on from there; Redis may be away."""
        with contextlib.suppress(Unavailable):
            self._position = await self._stream.position()
        self._reading = asyncio.create_task(self._run(), name="event hub")

    async def stop(self) -> None:
        """End every client and stop reading."""
        for client in tuple(self._clients):
            client.end("closing")
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait((reading,))

    def join(self, view: View) -> Client:
        """Return a client that misses nothing from now on; it must `leave`."""
        if len(self._clients) >= self._most_clients:
            raise Exhausted(
                "TOO_MANY_STREAMS", "too many event streams are open", retry_after_seconds=5.0
            )
        # One caller alone may not shut everybody else out.
        open_already = self._per_caller.get(view.subject, 0)
        if open_already >= self._most_per_caller:
            raise Exhausted(
                "TOO_MANY_OWN_STREAMS", "you have too many streams open", retry_after_seconds=5.0
            )
        client = Client(view, self._buffer, self._position)
        self._clients.add(client)
        self._per_caller[view.subject] = open_already + 1
        _CLIENTS.inc()
        return client

    def leave(self, client: Client) -> None:
        """Forget the client; a second time does nothing."""
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
                await self._pause_after(error)
            else:
                self._recovered()

    async def _step(self) -> None:
        if self._position is None:
            self._position = await self._stream.position()
            for client in tuple(self._clients):
                client.reset(self._position)
        # After an outage a gap is noticed at once, not with the next event.
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
            self._stream.noted(event, began_ns, len(self._clients))
            _observe(event, began_ns)
            self._position = position
            given += len(self._clients)
            if given >= MOST_GIVEN_AT_ONCE:
                given = 0
                await asyncio.sleep(0)

    async def _pause_after(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            cause = None if isinstance(error, Unavailable) else error
            _log.error("event_stream_lost", exc_info=cause)
        seconds = min(LONGEST_BACKOFF_SECONDS, 0.05 * 2 ** min(self._failures, 10))
        await asyncio.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries

    def _recovered(self) -> None:
        if self._failures:
            _log.info("event_stream_found", extra={"failures": self._failures})
            self._failures = 0


def _observe(event: event_pb2.Event, now_ns: int) -> None:
    if event.HasField("occurred_at"):
        _EVENT_LEG.observe(max(0, now_ns - event.occurred_at.ToNanoseconds()) / 1e9)
    # One of a change's events stands for it.
    if event.type != event_pb2.EVENT_TYPE_CONTEXT_CHANGED or not event.HasField("timeline"):
        return
    timeline = event.timeline
    began = timeline.committed_at
    if not began.nanos:
        began = timeline.captured_at
    if began.seconds:
        _VISIBLE.observe(max(0, now_ns - began.ToNanoseconds()) / 1e9)


def order_of(position: StreamPosition) -> tuple[int, int]:
    """Return what orders positions of one epoch."""
    milliseconds, _, number = position.offset.partition("-")
    return int(milliseconds), int(number)


def event_json(event: event_pb2.Event) -> dict[str, object]:
    """Return the event as the API shows it."""
    name = name_in(event_pb2.EventType.Name, "EVENT_TYPE_", event.type)
    has_timeline = event.HasField("timeline")
    return {
        "event_id": event.event_id,
        "type": name or "unknown",
        "user_id": str(event.user_id),
        "occurred_at": moment_in(event, "occurred_at"),
        "queue_before": queue_name(event.queue_before),
        "queue_after": queue_name(event.queue_after),
        "state": state_name(event.state),
        "agent_id": event.agent_id or None,
        "assignment_id": event.assignment_id or None,
        "outcome": outcome_name(event.outcome),
        "conversion": conversion_name(event.conversion),
        "timeline": {each: moment_in(event.timeline, each) for each in _TIMELINE}
        if has_timeline
        else None,
        "traceparent": event.traceparent or None,
    }


def _hello(seen: StreamPosition | None) -> bytes:
    # Without data nothing is dispatched, but a client that reconnects knows where it was.
    place = b"id: %b\n" % str(seen).encode() if seen else b""
    return b"retry: %d\n%b\n" % (_retry(), place)


def _goodbye(reason: str) -> bytes:
    milliseconds = _retry()
    data = orjson.dumps({"type": "reconnect", "reason": reason, "retry_after_ms": milliseconds})
    # The comment is for people, `retry` for an EventSource, the event for a page's own code.
    return b"retry: %d\n: %b\nevent: reconnect\ndata: %b\n\n" % (
        milliseconds,
        reason.encode(),
        data,
    )


def _retry() -> int:
    return random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - spreads reconnects
