"""uvicorn as a part with start and stop."""

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from gateway.http.connection import limited_heads

BACKLOG = 2048
# A connection whose peer does not acknowledge data for so long is closed, so that a client that
# stopped reading does not hold memory for ever. Connections inherit it from the listening socket.
UNTAKEN_MILLISECONDS = 60_000
KEEP_ALIVE_SECONDS = 75


class HttpServer:
    """Serves an ASGI application on one address."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        drain_seconds: float,
        *,
        head_seconds: float,
        max_head_bytes: int,
    ) -> None:
        self._host = host
        self._port = port
        self._server = _UvicornServer(
            uvicorn.Config(
                app,
                http=limited_heads(head_seconds, max_head_bytes),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(drain_seconds),
            )
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The address as host:port; a port given as 0 is 0 until the start."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen and serve; raises OSError if the address is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # With the protocol named, asyncio turns Nagle's algorithm off for its connections;
        # otherwise an answer's body waits 40 ms for the client to acknowledge the head.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_MILLISECONDS)
            listener.bind((self._host, self._port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve([listener]), name="http server")
        begun = asyncio.create_task(self._server.begun.wait())
        await asyncio.wait((self._serving, begun), return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            begun.cancel()
            self._serving.result()

    async def stop(self) -> None:
        """Accept no new connections and let requests in progress finish."""
        serving, self._serving = self._serving, None
        if serving is not None:
            self._server.should_exit = True
            await serving


class _UvicornServer(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun.set()
