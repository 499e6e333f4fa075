"""Redis clients, of one server or a cluster, that leave a server which refuses to work."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Connection, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterPipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

# Codes of replies with which a server refuses every command: it was demoted, its disk or memory is
# full, it has too few replicas, it is loading, runs a script without end or no longer knows the
# caller. The address may lead to another server by now. NOPERM refuses one command only.
_REFUSALS = (
    "READONLY",
    "MISCONF",
    "OOM",
    "NOREPLICAS",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "UNBLOCKED",
    "BUSY",
    "NOAUTH",
    "MOVED",
)
# Redis 6 puts words of its own before the reply to a script's command.
_REFUSAL = re.compile(rf"(?:ERR Error running script .*?: -?)?({'|'.join(_REFUSALS)})\b")

# A write that changes nothing, since no such list exists. It is refused wherever a write that needs
# memory is; reads alone are answered by a demoted or full server too.
WRITE_CHECK = ("LPUSHX", "dialler:takes-writes", "")

# Options with which redis-py sends no CLIENT SETINFO and MAINT_NOTIFICATIONS while it connects:
# accounts may lack CLIENT, and no service needs it.
_WITHOUT_CLIENT_COMMANDS: dict[str, Any] = {
    "driver_info": None,
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}


_CLUSTER_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}


def refusal(reply: str) -> str | None:
    """Return the code of an error reply that refuses every command, such as READONLY; else None."""
    found = _REFUSAL.match(reply)
    return found and found[1]


def reply_text(error: RedisError) -> str:
    """Return an error reply as the server sent it: redis-py removes the codes that it knows."""
    return f"{error.status_code or ''} {error}".lstrip()


def check_refusal(reply: str) -> str | None:
    """Return the code of an error reply to WRITE_CHECK that is no answer to it; else None."""
    return "NOPERM" if reply.startswith("NOPERM") else refusal(reply)


def failure_code(error: BaseException) -> str:
    """Return one word for operators: what Redis refuses with, TLS (not trusted) or UNREACHABLE."""
    if isinstance(error, RedisRefuses):
        return error.code
    if isinstance(error, ResponseError):
        return reply_text(error).partition(" ")[0]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "TLS"
        cause = cause.__cause__ or cause.__context__
    return "UNREACHABLE"


class RedisRefuses(RedisConnectionError):
    """The server answers and refuses to work; the connection to it has been closed."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the server refuses: {code}")
        self.code = code


class _LeavesRefusing:
    """Closes the connection on a refusal, so that the next command connects anew."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)  # type: ignore[misc]
        except ResponseError as error:
            code = refusal(reply_text(error))
            if code is None:
                raise
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise RedisRefuses(code) from error


class _LeavingConnection(_LeavesRefusing, Connection):
    pass


class _LeavingSSLConnection(_LeavesRefusing, SSLConnection):
    pass


class _Cluster(RedisCluster):
    """Looks for the nodes anew after every failure, and reports each as a RedisError.

    redis-py does so between its own repetitions of a command only, and there are none here: after
    the fail-over of a node, it would ask the dead one for ever.
    """

    async def initialize(self, *args: Any, **kwargs: Any) -> Self:
        try:
            await super().initialize(*args, **kwargs)
        except RedisClusterException as error:
            # No known node answers: the address may lead to other nodes by now.
            self.nodes_manager.startup_nodes = {node.name: node for node in self.startup_nodes}
            raise RedisConnectionError(str(error)) from error
        return self

    async def aclose(self) -> None:
        # After a failure redis-py would leave connections open.
        self._initialize = False
        await super().aclose()

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        with self.failures_noted():
            await self.initialize()
            return await super().execute_command(*args, **kwargs)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        # redis-py runs each command of a transaction in a thread with an event loop of its own.
        if transaction:
            raise ValueError("transactions in a cluster are Lua scripts")
        return _Pipeline(self)  # type: ignore[abstract]

    @contextmanager
    def failures_noted(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            code = refusal(reply_text(error)) if isinstance(error, ResponseError) else None
            if code is None and isinstance(error, ResponseError):
                raise
            self._initialize = True
            if code is not None:
                raise RedisRefuses(code) from error
            if isinstance(error, RedisClusterException):
                raise RedisConnectionError(str(error)) from error
            raise


class _Pipeline(ClusterPipeline):
    """Fails as a whole when a node is lost or refuses to work, as that of one server does."""

    cluster_client: _Cluster

    async def execute(
        self, raise_on_error: bool = True, allow_redirections: bool = True
    ) -> list[Any]:
        with self.cluster_client.failures_noted():
            replies = await super().execute(False, allow_redirections)
            for reply in replies:
                if not isinstance(reply, Exception):
                    continue
                of_command = isinstance(reply, ResponseError) and not refusal(reply_text(reply))
                if raise_on_error or not of_command:
                    raise reply
            return replies


RedisClient = Redis | RedisCluster


def is_cluster(url: str) -> bool:
    """Return whether the address is of a cluster: redis+cluster:// or rediss+cluster://."""
    return url.partition("://")[0] in _CLUSTER_SCHEMES


def redis_client(
    url: str,
    *,
    timeout_seconds: float,
    connect_timeout_seconds: float | None = None,
    tls_ca_file: Path | None = None,
) -> RedisClient:
    """Return a client of one server or a cluster that never repeats a command.

    The address begins with redis:// or rediss:// (TLS), or with redis+cluster:// or
    rediss+cluster:// and leads to any node of the cluster; `tls_ca_file` replaces the system's
    certificates. When a server refuses to work, the connection is closed and raises RedisRefuses, a
    RedisError. A cluster's keys decide which node executes a command: transactions are Lua scripts
    over keys with a common tag in braces.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": connect_timeout_seconds or timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        **_WITHOUT_CLIENT_COMMANDS,
    }
    scheme, _, rest = url.partition("://")
    encrypted = scheme.startswith("rediss")
    if encrypted and tls_ca_file is not None:
        options["ssl_ca_certs"] = str(tls_ca_file)
    if is_cluster(url):
        # At a MOVED one slot's node is noted; to close all connections fails requests of others.
        return _Cluster.from_url(
            f"{_CLUSTER_SCHEMES[scheme]}://{rest}", reinitialize_steps=0, **options
        )
    client = Redis.from_url(url, **options)
    pool: Any = client.connection_pool
    pool.connection_class = _LeavingSSLConnection if encrypted else _LeavingConnection
    return client


async def drop_idle_connections(client: RedisClient) -> None:
    """Close idle connections, which a restarted server may have closed; a cluster's client does."""
    if isinstance(client, Redis):
        await client.connection_pool.disconnect(inuse_connections=False)
