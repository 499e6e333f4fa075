"""One socket to a standalone Redis, shared by all requests.

It answers about a quarter more requests a second than a pooled client, because the commands of one
turn of the event loop are sent in one write and no request needs a connection of its own.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from servicekit.redis_client import WRITE_CHECK, check_refusal, failure_code, refusal
from services.user_context.cache.fragments import RUN_BYTES
from services.user_context.cache.links import (
    KEYS_PER_SCAN,
    UNREACHABLE,
    Command,
    RedisUnavailable,
    Reply,
    ReplyError,
    refused,
)

# The stub declares commands of one word only.
_pack: Callable[[Command], bytes] = cast("Any", hiredis.pack_command)

_WRITE_CHECK = _pack(WRITE_CHECK)
_IDENTITY: list[Command] = [("INFO", "server"), ("INFO", "replication")]


class _ExpectedReplies:
    """Replies still to come for commands sent together; those of a check have no future."""

    __slots__ = ("future", "missing", "replies", "sent_at")

    def __init__(
        self, count: int, sent_at: float, future: asyncio.Future[list[Reply]] | None
    ) -> None:
        self.missing = count
        self.replies: list[Reply] = []
        self.sent_at = sent_at
        self.future = future


class _Connection(asyncio.Protocol):
    """The socket: writes once in each turn of the event loop and returns replies in order.

    Each turn's commands follow a write that changes nothing. Where it is refused, the connection is
    dropped before any of their replies is returned: a server that is demoted while its connections
    stay open goes on answering reads.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self.is_lost = False
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ReplyError)
        self._waiting: deque[_ExpectedReplies] = deque()
        self._unsent: list[bytes] = []
        self._heard_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._give_up()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        self._heard_at = self._loop.time()
        try:
            reader.feed(data)
            while not self.is_lost and (reply := reader.gets()) is not False:
                self._received(reply)
        except (hiredis.ProtocolError, IndexError):
            self.abort()

    def send(
        self, commands: Sequence[Command], *, is_greeting: bool = False
    ) -> asyncio.Future[list[Reply]]:
        """Return the replies to come. Raises what packing a command raises; then none is sent.

        A greeting follows no check, as it may have to log in first.
        """
        # All are packed before one is queued: with a command more or less than expected replies,
        # every later request would get the replies of another.
        packed = [_pack(command) for command in commands]
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self.is_lost:
            future.set_exception(RedisUnavailable("the connection was lost"))
            return future
        now = self._loop.time()
        if not self._unsent:
            self._loop.call_soon(self._flush)
            if not is_greeting:
                self._unsent.append(_WRITE_CHECK)
                self._waiting.append(_ExpectedReplies(1, now, None))
        self._unsent += packed
        self._waiting.append(_ExpectedReplies(len(commands), now, future))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_seconds, self._check_silence)
        return future

    def abort(self, why: RedisUnavailable | None = None) -> None:
        """Drop the connection and fail all waiting requests, for the reason given."""
        if self._transport is not None:
            self._transport.abort()
        self._give_up(why)

    async def aclose(self) -> None:
        """Drop the connection and return when the socket is closed."""
        self.abort()
        if self._transport is not None:
            await self._closed.wait()

    def _give_up(self, why: RedisUnavailable | None = None) -> None:
        self.is_lost = True
        if self._watch is not None:
            self._watch.cancel()
        message, code = (str(why), why.code) if why else ("the connection was lost", UNREACHABLE)
        while self._waiting:
            future = self._waiting.popleft().future
            if future is not None and not future.done():
                # One exception each: a shared one would collect the tracebacks of all.
                future.set_exception(RedisUnavailable(message, code))

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self._transport is not None and not self.is_lost:
            self._transport.write(data)

    def _received(self, reply: Reply) -> None:
        waiting = self._waiting[0]
        if isinstance(reply, ReplyError):
            code_in = refusal if waiting.future else check_refusal
            if code := code_in(str(reply)):
                self.abort(refused(code))
                return
        waiting.replies.append(reply)
        waiting.missing -= 1
        if not waiting.missing:
            self._waiting.popleft()
            if waiting.future is not None and not waiting.future.done():
                waiting.future.set_result(waiting.replies)

    def _check_silence(self) -> None:
        """Drop the connection when a request waits and no data has arrived for too long.

        A large reply may take longer. One timer for all requests is much cheaper than one for each,
        and replies come in order.
        """
        self._watch = None
        if not self._waiting:
            return
        silent_since = max(self._waiting[0].sent_at, self._heard_at)
        left = silent_since + self._timeout_seconds - self._loop.time()
        if left <= 0:
            self.abort()
        else:
            self._watch = self._loop.call_later(left, self._check_silence)


class PipelinedLink:
    """Keeps one connection to ``url`` (redis:// or rediss://) and makes it anew when it is lost."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        connect_timeout_seconds: float | None = None,
        tls_ca_file: Path | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError("not a redis:// or rediss:// address")
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 6379
        self._database = int(parts.path.strip("/") or 0)
        self._account = [unquote(word) for word in (parts.username, parts.password) if word]
        self._tls = (
            ssl.create_default_context(cafile=tls_ca_file) if parts.scheme == "rediss" else None
        )
        self._timeout_seconds = timeout_seconds
        self._connect_timeout_seconds = connect_timeout_seconds or timeout_seconds
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        # Another after a restart, and each time the server begins to lead: a server that leads once
        # more may have missed writes to another in between.
        self.run = b"\0" * RUN_BYTES
        self.reconnects = 0
        self._is_closed = False

    async def confirm(self) -> None:
        """Return when the server is still of that run and takes writes. Raises RedisUnavailable."""
        connection, run = self._connection, self.run
        replies = await self.execute(_IDENTITY)
        try:
            if _run_of(replies) != run and connection is self._connection:
                raise RedisUnavailable("the server is of another run")
        except RedisUnavailable as unavailable:
            # Dropped, so that this server answers no later command.
            if self._connection is not None:
                self._connection.abort(unavailable)
            raise

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Send the commands together and return the replies in order. Raises RedisUnavailable."""
        if not commands:
            return []
        connection = self._connection
        if connection is None or connection.is_lost:
            connection = await self._connected()
        return await connection.send(commands)

    async def keys(self, pattern: str) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the keys that match, some perhaps twice. Raises RedisUnavailable."""
        cursor = b"0"
        while True:
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", KEYS_PER_SCAN)
            (reply,) = await self.execute([command])
            if isinstance(reply, ReplyError):
                raise RedisUnavailable(str(reply).partition(" ")[0])
            cursor, keys = reply
            if keys:
                yield keys
            if cursor == b"0":
                return

    async def start(self) -> None:
        """Connect if Redis answers; otherwise the first command connects."""
        with suppress(RedisUnavailable):
            await self._connected()

    async def stop(self) -> None:
        """Close; a later command raises RedisUnavailable."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            await self._connection.aclose()

    async def _connected(self) -> _Connection:
        if self._is_closed:
            raise RedisUnavailable("closed")
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            # Retrieves the failure, so that asyncio does not log it when no request waits.
            self._connecting.add_done_callback(lambda it: it.cancelled() or it.exception())
        # Shared: a cancelled request must not end the connecting of the others.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Connection:
        made: _Connection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                _, made = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._timeout_seconds),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
                account: list[Command] = [("AUTH", *self._account)] if self._account else []
                greeting = [*account, ("SELECT", self._database), WRITE_CHECK, *_IDENTITY]
                self.run = _run_of(await made.send(greeting, is_greeting=True))
        except (OSError, TimeoutError, RedisUnavailable) as error:
            if made is not None:
                made.abort()
            if isinstance(error, RedisUnavailable):
                raise
            message = f"cannot connect: {type(error).__name__}"
            raise RedisUnavailable(message, failure_code(error)) from error
        finally:
            self._connecting = None
        self.reconnects += self._connection is not None
        self._connection = made
        return made


def _run_of(replies: list[Reply]) -> bytes:
    """Return the run of the server that gave these replies; raises RedisUnavailable."""
    for reply in replies:
        if isinstance(reply, ReplyError):
            raise refused(str(reply).partition(" ")[0])
    *_, server, replication = replies
    info = dict(line.split(b":", 1) for line in (server + replication).splitlines() if b":" in line)
    if info.get(b"role", b"master") != b"master":
        # A replica that takes writes loses them with the next synchronisation.
        raise refused("REPLICA")
    identity = info.get(b"run_id", b"") + info.get(b"master_replid", b"")
    return sha256(identity).digest()[:RUN_BYTES]
