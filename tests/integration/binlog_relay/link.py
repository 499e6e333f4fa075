"""A network between the relay and MariaDB that can be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK_BYTES = 65_536


class Link:
    """Passes bytes on both ways until `cut`; new connections are taken all the same."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()

    def lead_to(self, host: str, port: int) -> None:
        """Lead new connections elsewhere, as an address does that fails over; old ones stay."""
        self._target = (host, port)

    def cut(self) -> None:
        """Drop every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def is_cut(self) -> bool:
        """Cut; return whether there was anything to cut."""
        was_connected = bool(self._writers)
        self.cut()
        return was_connected

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one caller through."""
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()


@asynccontextmanager
async def linked(host: str, port: int) -> AsyncIterator[tuple[Link, int]]:
    """Open a link on a free port."""
    link = Link(host, port)
    server = await asyncio.start_server(link.accept, "127.0.0.1", 0)
    try:
        yield link, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        link.cut()
        await server.wait_closed()
