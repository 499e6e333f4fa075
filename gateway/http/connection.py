"""Connections that limit the size and time of a request's head; uvicorn limits neither.

Malformed requests are answered with a problem as well. The head and the body of an answer are sent
together.
"""

import asyncio
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.http.problems import HttpError, response_of


class PairedWrites:
    """A transport that joins a write to the next one of the same turn of the event loop.

    uvicorn writes the head of an answer and its body one after the other, and uvloop sends each
    write at once: a system call and a packet more.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = b""
        self._call_soon = asyncio.get_running_loop().call_soon

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send the data after those held back; hold them back if there are none."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        elif data:
            # One write at most: of a long answer the transport must see when to pause it.
            self._held = data
            self._call_soon(self._flush)

    def close(self) -> None:
        """Close the connection once all is sent."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection is closed or being closed."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)


def limited_heads(seconds: float, most_bytes: int) -> type[asyncio.Protocol]:
    """Return the protocol; a head may exceed the limit by the bytes of one read."""

    class HttpConnection(HttpToolsProtocol):
        _is_in_head = False
        _head_bytes = 0
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.transport = cast("asyncio.Transport", PairedWrites(transport))
            self._wait_for_request()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_ended()
            self._unset_keepalive_if_required()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.transport.is_closing():
                return
            if not self._is_in_head:
                self._wait_for_request()
                return
            # Most heads arrive in one read and do not reach this.
            self._head_bytes += len(data)
            if self._head_bytes > most_bytes:
                self._refuse(431, "HEAD_TOO_LARGE", f"the head has more than {most_bytes} bytes")
            elif self._timer is None:
                detail = f"the head took longer than {seconds:g} s"
                self._timer = self.loop.call_later(
                    seconds, self._refuse, 408, "HEAD_TOO_SLOW", detail
                )

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._is_in_head = True

        def on_headers_complete(self) -> None:
            self._head_ended()
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            del msg
            self._refuse(400, "HTTP_MALFORMED", "that is not HTTP")

        def _wait_for_request(self) -> None:
            """Close a connection that stays idle for too long, also before its first request."""
            if self._is_idle() and self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

        def _is_idle(self) -> bool:
            # None before the first request, whatever uvicorn's annotation says.
            cycle = cast("RequestResponseCycle | None", self.cycle)
            return cycle is None or cycle.response_complete

        def _head_ended(self) -> None:
            self._is_in_head = False
            self._head_bytes = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _refuse(self, status: int, reason: str, detail: str) -> None:
            self._head_ended()
            # Another answer must not be written into one that has begun.
            if self._is_idle():
                response = response_of(HttpError(status, reason, detail), "/")
                more = ((b"connection", b"close"), (b"cache-control", b"no-store"))
                fields = (b"%b: %b\r\n" % field for field in (*response.raw_headers, *more))
                line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
                head = b"%b%b\r\n" % (line, b"".join(fields))
                self.transport.write(head + bytes(response.body))
            self.transport.close()

    return HttpConnection
