"""A Redis Cluster, through redis-py's cluster client."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import cast

from redis.asyncio import RedisCluster
from redis.exceptions import RedisError, ResponseError

from servicekit.redis_client import (
    WRITE_CHECK,
    check_refusal,
    failure_code,
    redis_client,
    reply_text,
)
from services.user_context.cache.fragments import RUN_BYTES
from services.user_context.cache.links import (
    KEYS_PER_SCAN,
    Command,
    RedisUnavailable,
    Reply,
    ReplyError,
    refused,
)

# So many keys reach every node of a cluster, except one with very few slots.
_KEYS_FOR_EVERY_NODE = 200


class ClusterLink:
    """Sends each command to the node that holds its key; pipelines node by node.

    The run is that of all primaries together: a replica that is promoted may lack invalidations, so
    that nothing cached before serves as fresh, on whichever node it is. While a node is unavailable
    all of the cluster is.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float, tls_ca_file: Path | None = None
    ) -> None:
        client = redis_client(url, timeout_seconds=timeout_seconds, tls_ca_file=tls_ca_file)
        if not isinstance(client, RedisCluster):
            raise ValueError("not a redis+cluster:// or rediss+cluster:// address")
        self._client = client
        self.run = b"\0" * RUN_BYTES
        self.reconnects = 0
        # The nodes whose run is known; empty after a failure.
        self._identified: frozenset[str] = frozenset()
        self._identifying = asyncio.Lock()

    async def confirm(self) -> None:
        """Return when every node is of that run and takes writes. Raises RedisUnavailable."""
        keys = (b"{%d}" % number for number in range(_KEYS_FOR_EVERY_NODE))
        await self.execute([("HMGET", key, "f") for key in keys])
        run = self.run
        with self._failures():
            await self._identify()
            if self.run != run:
                raise RedisUnavailable("other nodes lead")

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Send the commands and return their replies, in order. Raises RedisUnavailable.

        On each node, a write that changes nothing goes first.
        """
        with self._failures():
            await self._find_run()
            identified = self._identified
            name, check_key, value = WRITE_CHECK
            tags: dict[object, bytes] = {}
            for command in commands:
                key = command[3] if str(command[0]).startswith("EVAL") else command[1]
                whole = key if isinstance(key, bytes) else str(key).encode()
                # The part of the key that decides where the command runs.
                tag, end, _ = whole.partition(b"{")[2].partition(b"}")
                tag = tag if tag and end else whole
                # redis-py's annotation does not have keys in bytes.
                tags[self._client.get_node_from_key(cast("str", tag))] = tag
            checks = [
                (name, b"%b:{%b}" % (check_key.encode(), tag), value) for tag in tags.values()
            ]
            pipeline = self._client.pipeline()
            for command in (*checks, *commands):
                pipeline.execute_command(*command)
            replies = [_reply(reply) for reply in await pipeline.execute(raise_on_error=False)]
            for check in replies[: len(checks)]:
                if isinstance(check, ReplyError) and (code := check_refusal(str(check))):
                    raise refused(code)
            if self._primaries() != identified:
                # A node has sent the commands on to its successor, whose run is not known.
                raise RedisUnavailable("other nodes lead", "MOVED")
        return replies[len(checks) :]

    async def keys(self, pattern: str) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the keys of every node that match, some perhaps twice. Raises RedisUnavailable."""
        found: list[bytes] = []
        with self._failures():
            scan = self._client.scan_iter(
                match=pattern, count=KEYS_PER_SCAN, target_nodes=RedisCluster.PRIMARIES
            )
            async for key in scan:
                found.append(key)
                if len(found) == KEYS_PER_SCAN:
                    yield found
                    found = []
        if found:
            yield found

    async def start(self) -> None:
        """Find the nodes if they answer; otherwise the first command finds them."""
        with suppress(RedisUnavailable), self._failures():
            await self._find_run()

    async def stop(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _primaries(self) -> frozenset[str]:
        return frozenset(node.name for node in self._client.get_primaries())

    async def _find_run(self) -> None:
        await self._client.initialize()
        if self._primaries() != self._identified:
            async with self._identifying:
                if self._primaries() != self._identified:
                    await self._identify()

    async def _identify(self) -> None:
        """Read the run of every primary."""
        names = self._primaries()
        nodes = self._client.get_primaries()
        found = await asyncio.gather(*(self._client.info(target_nodes=node) for node in nodes))
        if any(info["role"] != "master" for info in found):
            raise refused("REPLICA")
        identities = sorted(f"{info['run_id']} {info['master_replid']}" for info in found)
        run = sha256(" ".join(identities).encode()).digest()[:RUN_BYTES]
        if self.run not in (run, b"\0" * RUN_BYTES):
            self.reconnects += 1
        self.run = run
        self._identified = names

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (RedisUnavailable, RedisError, OSError) as error:
            self._identified = frozenset()
            if isinstance(error, RedisUnavailable):
                raise
            raise RedisUnavailable(type(error).__name__, failure_code(error)) from error


def _reply(reply: Reply) -> Reply:
    return ReplyError(reply_text(reply)) if isinstance(reply, ResponseError) else reply
