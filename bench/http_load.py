"""A lean HTTP/1.1 client: one request at a time on each connection, kept open."""

from __future__ import annotations

import asyncio
from typing import cast

_HEAD_END = b"\r\n\r\n"


class LoadConnection(asyncio.Protocol):
    """Sends prepared requests and counts the bytes of answers; parses no more than it must."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, port: int) -> LoadConnection:
        """Connect to a port of this machine."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(cls, "127.0.0.1", port)
        return protocol

    async def get(self, request: bytes) -> bytes:
        """Send the request and return the body; raises unless the answer is 200."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        whole = end + len(_HEAD_END) + length
        if len(self._buffer) < whole or self._answer is None:
            return
        body = bytes(self._buffer[whole - length : whole])
        del self._buffer[:whole]
        answer, self._answer = self._answer, None
        if head[9:12] == b"200":
            answer.set_result(body)
        else:
            answer.set_exception(RuntimeError(f"{head[:40]!r} {body[:200]!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed"))


def request_bytes(path: str, **headers: str) -> bytes:
    """Return a GET as it goes over the wire."""
    lines = [f"GET {path} HTTP/1.1", "Host: bench", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()
