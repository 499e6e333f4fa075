"""One open stream of a client, with a bounded buffer of what is to be sent."""

import asyncio
import random
from collections import deque
from collections.abc import Sequence

import orjson
from prometheus_client import Counter

from gateway.live.events import EventView, Published, order_of
from servicekit.event_stream import StreamPosition

# Clients whose streams end together should not reconnect together.
RETRY_MILLISECONDS = (1000, 5000)

_ENDED = Counter("dialler_gateway_event_clients_ended", "Event streams that ended.", ("reason",))
_RESETS = Counter("dialler_gateway_event_resets", "Resets sent to clients.")


class EventClient:
    """One open stream: a bounded buffer of blocks that the reader fills and the response empties.

    Events are buffered unfiltered until `begin`, since what an agent may see depends on the person
    it held before them.
    """

    def __init__(self, view: EventView, limit: int, joined_at: StreamPosition | None) -> None:
        self.joined_at = joined_at
        self._view = view
        self._limit = limit
        self._blocks: deque[bytes] = deque()
        self._figures: dict[str, bytes] = {}
        self._early: list[Published] | None = []
        self._after = (0, 0)
        self._seen = joined_at
        self._waiter: asyncio.Future[None] | None = None
        self._ended: str | None = None
        self._was_reset = False

    @property
    def view(self) -> EventView:
        """What the client may see."""
        return self._view

    @property
    def early(self) -> Sequence[Published]:
        """Events that arrived before `begin`."""
        return self._early or ()

    @property
    def needs_snapshot(self) -> bool:
        """Whether it was reset and needs `begin` again."""
        return self._early is not None and self._was_reset

    @property
    def ended(self) -> str | None:
        """Why the stream ended; None while it is open."""
        return self._ended

    def begin(
        self,
        missed: Sequence[Published] | None = (),
        after: StreamPosition | None = None,
        snapshot: bytes = b"",
    ) -> None:
        """Buffer missed and early events; the client knows those up to `after` already.

        `missed` is None when it is unknown: the client is reset. The snapshot is sent unless the
        client resumes without a gap; an event may repeat what it shows.
        """
        early, self._early = self._early or (), None
        if missed is None and self.joined_at is not None and not self._was_reset:
            self._send_reset(self.joined_at)
        if snapshot and (after is None or self._was_reset):
            self._push(snapshot)
        # After a reset earlier events are not sent.
        if missed is not None and not self._was_reset:
            self._after = order_of(after) if after else (0, 0)
            early = (*missed, *early)
        self._was_reset = False
        for each in early:
            self.offer(each)
        # A block without data dispatches no event, but it sets the position of a reconnect.
        position = b"id: %b\n" % str(self._seen).encode() if self._seen else b""
        self._push(b"retry: %d\n%b\n" % (_retry_milliseconds(), position))

    def offer(self, published: Published) -> None:
        """Buffer the event if the client may see it; a full buffer ends the stream."""
        if self._early is not None:
            if len(self._early) >= self._limit:
                self.end("slow")
            else:
                self._early.append(published)
            return
        if published.order <= self._after:
            return
        self._seen = published.position
        block = self._view.block(published)
        if block is not None:
            self._push(block)

    def reset(self, position: StreamPosition) -> None:
        """Send a reset: events may be missing and a snapshot is needed."""
        # What an agent may see depends on its assignment, which may have changed.
        self._early = []
        self._after = (0, 0)
        self._send_reset(position)
        self._wake()

    def _send_reset(self, position: StreamPosition) -> None:
        self._was_reset = True
        self._seen = position
        _RESETS.inc()
        data = orjson.dumps({"type": "reset", "position": str(position)})
        self._push(b"id: %b\nevent: reset\ndata: %b\n\n" % (str(position).encode(), data))

    def show(self, name: str, block: bytes) -> None:
        """Send the figures unless newer ones of that name replace them before."""
        if self._ended is None:
            self._figures[name] = block
            self._wake()

    def end(self, reason: str) -> None:
        """Drop the buffer, send when to reconnect, and end the stream."""
        if self._ended is not None:
            return
        self._ended = reason
        _ENDED.labels(reason).inc()
        self._blocks.clear()
        self._figures.clear()
        self._early = None
        milliseconds = _retry_milliseconds()
        data = orjson.dumps({"type": "reconnect", "reason": reason, "retry_after_ms": milliseconds})
        # The comment is for people, `retry` for an EventSource, the event for other clients.
        block = b"retry: %d\n: %b\nevent: reconnect\ndata: %b\n\n"
        self._blocks.append(block % (milliseconds, reason.encode(), data))
        self._wake()

    async def next(self, timeout_seconds: float) -> bytes | None:
        """Return the next bytes to send, a comment after the timeout; None at the end."""
        if not self._blocks and not self._figures and self._ended is None:
            # A bare future and timer: asyncio.timeout would be a third of the cost of a delivery,
            # which happens for each event of each client.
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_seconds, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._figures:
            sent = b"".join((*self._blocks, *self._figures.values()))
            self._figures.clear()
        elif self._blocks:
            sent = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
        elif self._ended is not None:
            return None
        elif self._seen is None or self._early is not None:
            return b":\n\n"
        else:
            # The id skips events that the client may not see, so that a resume is short.
            return b":\nid: %b\n\n" % str(self._seen).encode()
        self._blocks.clear()
        return sent

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _push(self, block: bytes) -> None:
        if self._ended is not None:
            return
        if len(self._blocks) >= self._limit:
            self.end("slow")
            return
        self._blocks.append(block)
        self._wake()


def _retry_milliseconds() -> int:
    return random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - spreads reconnects
