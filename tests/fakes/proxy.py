"""A TCP proxy that stands in for a network which breaks, hangs and heals."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self


class FaultProxy:
    """Passes bytes on to `host:port` until told otherwise; use as an async context manager.

    A name that leads elsewhere after a fail-over is one, too (`lead_to`).
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_cut = False
        self._ends_both_sides = True
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.host = "127.0.0.1"
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        await self._drop_connections()

    @property
    def connections(self) -> int:
        """How many connections are open through it."""
        return len(self._connections)

    async def cut(self) -> None:
        """Close every connection, and each new one at once, until `heal`."""
        self._is_cut = True
        await self._drop_connections()

    def lead_to(self, host: str, port: int) -> None:
        """Lead new connections there; open ones stay where they are."""
        self._target = (host, port)

    def keep_open(self) -> None:
        """Leave clients' connections open when the server ends its side of them."""
        self._ends_both_sides = False

    def stall(self) -> None:
        """Keep connections open and accept new ones, but pass nothing on until `heal`."""
        self._flowing.clear()

    def heal(self) -> None:
        """Be a good network again; what was held back by `stall` flows."""
        self._is_cut = False
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if self._is_cut or task is None:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            async with (
                self._upstream() as (up_reader, up_writer),
                asyncio.TaskGroup() as directions,
            ):
                directions.create_task(self._pass(reader, up_writer))
                directions.create_task(self._pass(up_reader, writer))
        # Being dropped is this task's ordinary end; streams would log it as a failure.
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def _upstream(
        self,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._flowing.wait()
            sink.write(data)
            await sink.drain()
        if self._ends_both_sides:
            sink.close()

    async def _drop_connections(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
