"""A Redis Cluster, through redis-py's cluster client."""

from collections.abc import AsyncGenerator, Sequence
from typing import cast

from redis.asyncio import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from servicekit.redis_client import (
    WITHOUT_CLIENT_COMMANDS,
    WRITE_CHECK,
    check_refusal,
    refusal,
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

_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}


def is_cluster(url: str) -> bool:
    """Whether ``url`` asks for a cluster: redis+cluster:// or rediss+cluster://."""
    return url.partition("://")[0] in _SCHEMES


class ClusterLink:
    """Sends each command to the node that holds its key; pipelines node by node."""

    # A node's copies are not distinguished from those of its predecessor, and redis-py does not say
    # when it reconnects.
    run = b"\0" * RUN_BYTES
    reconnects = 0

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        scheme, _, rest = url.partition("://")
        self._client = RedisCluster.from_url(
            f"{_SCHEMES[scheme]}://{rest}",
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # A repeated command could make a fence twice under one token, with a loss in between.
            retry=Retry(NoBackoff(), 0),
            **WITHOUT_CLIENT_COMMANDS,
        )

    async def confirm(self) -> None:
        """Return when every node takes writes. Raises RedisUnavailable."""
        keys = (b"{%d}" % number for number in range(_KEYS_FOR_EVERY_NODE))
        await self.execute([("HMGET", key, "f") for key in keys])

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Send the commands and return their replies, in order. Raises RedisUnavailable.

        On each node, a write that changes nothing goes first.
        """
        try:
            await self._client.initialize()
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
            replies = await pipeline.execute(raise_on_error=False)
        except (RedisError, RedisClusterException, OSError) as error:
            raise RedisUnavailable(type(error).__name__) from error
        found = [_reply(reply) for reply in replies]
        for check in found[: len(checks)]:
            if isinstance(check, ReplyError) and (code := check_refusal(str(check))):
                raise refused(code)
        return found[len(checks) :]

    async def keys(self, pattern: str) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the keys of every node that match, some perhaps twice. Raises RedisUnavailable."""
        found: list[bytes] = []
        try:
            scan = self._client.scan_iter(
                match=pattern, count=KEYS_PER_SCAN, target_nodes=RedisCluster.PRIMARIES
            )
            async for key in scan:
                found.append(key)
                if len(found) == KEYS_PER_SCAN:
                    yield found
                    found = []
        except (RedisError, RedisClusterException, OSError) as error:
            raise RedisUnavailable(type(error).__name__) from error
        if found:
            yield found

    async def start(self) -> None:
        """Do nothing: the first command finds the nodes."""

    async def stop(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _reply(reply: Reply) -> Reply:
    if isinstance(reply, ResponseError):
        # The client removes the code from the text of the errors that it knows.
        text = f"{reply.status_code or ''} {reply}".lstrip()
        if code := refusal(text):
            raise refused(code)
        return ReplyError(text)
    if isinstance(reply, RedisError | OSError):
        raise RedisUnavailable(type(reply).__name__)
    return reply
