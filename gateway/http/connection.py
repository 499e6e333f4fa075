"""Connections that limit the size and time of a request's head; uvicorn limits neither.

Malformed requests are answered with a problem as well.
"""

import asyncio
from http import HTTPStatus
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.http.problems import HttpError, response_of


def limited_heads(seconds: float, most_bytes: int) -> type[asyncio.Protocol]:
    """Return the protocol; a head may exceed the limit by the bytes of one read."""

    class HttpConnection(HttpToolsProtocol):
        _is_in_head = False
        _head_bytes = 0
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
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
