"""Many open event streams, kept by one process that spends little on each."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator

CONNECTING_AT_ONCE = 50
SECONDS = 30.0

# The event's id is the moment of its publication, in nanoseconds of the monotonic clock.
_SENT_AT = re.compile(rb'"event_id":"at-(\d+)"')
_LONGEST_ID = 64


class Crowd:
    """Streams of one server; counts what arrives and how long it took."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.last_at = 0.0
        self.opened = 0
        self.lost = 0
        self._transports: list[asyncio.Transport] = []
        self._wanted = 0
        self._complete = asyncio.Event()

    async def open(self, port: int, requests: Iterator[bytes]) -> None:
        """Open one stream for each request; returns when all are open."""
        limit = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def one(request: bytes) -> None:
            async with limit:
                loop = asyncio.get_running_loop()
                began: asyncio.Future[None] = loop.create_future()

                def made() -> _Client:
                    return _Client(self, request, began)

                transport, _ = await loop.create_connection(made, "127.0.0.1", port)
                self._transports.append(transport)
                async with asyncio.timeout(SECONDS):
                    await began

        await asyncio.gather(*(one(each) for each in requests))

    def close(self) -> None:
        """Close all streams."""
        for transport in self._transports:
            transport.abort()

    def expect(self, deliveries: int) -> None:
        """Begin a round in which so many events should arrive."""
        self.delays.clear()
        self._wanted = deliveries
        self._complete.clear()

    async def arrived(self) -> float:
        """Return the moment at which the last event of the round came."""
        try:
            async with asyncio.timeout(SECONDS):
                await self._complete.wait()
        except TimeoutError as error:
            found = f"{len(self.delays)} of {self._wanted} events, {self.lost} streams ended"
            raise TimeoutError(found) from error
        return self.last_at

    def took(self, sent_at: list[bytes]) -> None:
        """Take note of events that came just now."""
        now = time.monotonic_ns()
        self.delays.extend((now - int(each)) / 1e9 for each in sent_at)
        if len(self.delays) >= self._wanted and not self._complete.is_set():
            self.last_at = now / 1e9
            self._complete.set()


class _Client(asyncio.Protocol):
    def __init__(self, crowd: Crowd, request: bytes, began: asyncio.Future[None]) -> None:
        self._crowd = crowd
        self._request = request
        self._began = began
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._began.done():
            ok = data.startswith(b"HTTP/1.1 200")
            if ok:
                self._crowd.opened += 1
                self._began.set_result(None)
            else:
                self._began.set_exception(ConnectionError(data[:300].decode("latin-1")))
        data = self._tail + data
        found = None
        sent_at = []
        for found in _SENT_AT.finditer(data):
            sent_at.append(found[1])
        # An id may be split between two pieces; one that was counted must not be counted again.
        begin = max(found.end() if found else 0, len(data) - _LONGEST_ID)
        self._tail = data[begin:]
        if sent_at:
            self._crowd.took(sent_at)

    def connection_lost(self, _error: Exception | None) -> None:
        self._crowd.lost += 1
        if not self._began.done():
            self._began.set_exception(ConnectionError("closed before it began"))
