"""The floor of `sse_clients`: a bare Starlette route that fans a Redis stream out, and no more."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from bench.sse_clients import BARE_STREAM
from gateway.live.events import Published
from gateway.live.hub import BATCH
from servicekit.event_stream import EventStream

BUFFER = 512


def application(redis_url: str) -> Starlette:
    """Return the application; its one route is the stream."""
    clients: set[asyncio.Queue[bytes]] = set()

    async def read() -> None:
        async with redis.asyncio.Redis.from_url(redis_url, socket_timeout=10.0) as client:
            stream = EventStream(client, BARE_STREAM)
            position = await stream.position()
            while True:
                batch = await stream.read(position, block_seconds=5.0, count=BATCH)
                for at, event in batch:
                    block = Published(at, event).whole()
                    for queue in clients:
                        queue.put_nowait(block)
                    position = at

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        reading = asyncio.create_task(read())
        yield
        reading.cancel()

    async def events(_: Request) -> StreamingResponse:
        queue: asyncio.Queue[bytes] = asyncio.Queue(BUFFER)
        clients.add(queue)

        async def blocks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield await queue.get()
            finally:
                clients.discard(queue)

        return StreamingResponse(blocks(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/events", events)], lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[2]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        backlog=4096,
    )
