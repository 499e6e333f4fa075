"""A Redis Cluster, through the stock client that knows how to find its way in one."""

from collections.abc import AsyncGenerator, Sequence

from redis.asyncio import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from services.user_context.fragments import RUN_BYTES
from services.user_context.redis_link import KEYS_PER_SCAN, Command, RedisAway, Reply, ReplyError

_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}


def is_cluster(url: str) -> bool:
    """Whether ``url`` asks for a cluster: redis+cluster:// or rediss+cluster://."""
    return url.partition("://")[0] in _SCHEMES


class ClusterLink:
    """Sends each command to the node that holds its key; pipelines node by node."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        scheme, _, rest = url.partition("://")
        self._client = RedisCluster.from_url(
            f"{_SCHEMES[scheme]}://{rest}",
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # A fence made twice under one token, with a loss between, would be two under one name.
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def run(self) -> bytes:
        """The same for ever: a node's copies are not told from those of the node it replaced."""
        return b"\0" * RUN_BYTES

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Send the commands and return their replies, in order. Raises RedisAway."""
        try:
            pipeline = self._client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)
            replies = await pipeline.execute(raise_on_error=False)
        except (RedisError, RedisClusterException, OSError) as error:
            raise RedisAway(type(error).__name__) from error
        return [_reply(reply) for reply in replies]

    async def keys(self, pattern: str) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the keys of every node that match, some perhaps twice. Raises RedisAway."""
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
            raise RedisAway(type(error).__name__) from error
        if found:
            yield found

    async def start(self) -> None:
        """Do nothing: the first command finds the nodes."""

    async def stop(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _reply(reply: Reply) -> Reply:
    if isinstance(reply, ResponseError):
        # The client takes the code off the text of the errors it knows.
        code = "NOSCRIPT " if type(reply).__name__ == "NoScriptError" else ""
        return ReplyError(f"{code}{reply}")
    if isinstance(reply, RedisError | OSError):
        raise RedisAway(type(reply).__name__)
    return reply
