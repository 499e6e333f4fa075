"""Connections on which the head of a request is limited in size and time; uvicorn limits neither.

What is wrong before there is a request is answered with a problem, too.
"""

import asyncio
from http import HTTPStatus
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.problems import HttpError, response_of


def limited_heads(seconds: float, most_bytes: int) -> type[asyncio.Protocol]:
    """Return the protocol; a head may be larger by what one read brings."""

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
            # Mostly a head comes in one piece, and none of this is reached.
            self._head_bytes += len(data)
            if self._head_bytes > most_bytes:
                self._refuse(431, "HEAD_TOO_LARGE", f"the head has more than {most_bytes} bytes")
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self._too_late)

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
            """Close a connection on which nothing is asked for too long, the first time too."""
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

        def _too_late(self) -> None:
            self._refuse(408, "HEAD_TOO_SLOW", f"the head took longer than {seconds:g} s")

        def _refuse(self, status: int, reason: str, detail: str) -> None:
            self._head_ended()
            # An answer that is under way must not be mixed with another.
            if self._is_idle():
                self.transport.write(_answer(status, reason, detail))
            self.transport.close()

    return HttpConnection


def _answer(status: int, reason: str, detail: str) -> bytes:
    response = response_of(HttpError(status, reason, detail), "/")
    more = ((b"connection", b"close"), (b"cache-control", b"no-store"))
    fields = (b"%b: %b\r\n" % field for field in (*response.raw_headers, *more))
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    return b"%b%b\r\n%b" % (line, b"".join(fields), bytes(response.body))
