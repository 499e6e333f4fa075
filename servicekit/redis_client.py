"""A Redis client that leaves a server which refuses to work."""

import re
from typing import Any

from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
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
WITHOUT_CLIENT_COMMANDS: dict[str, Any] = {
    "driver_info": None,
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}


def refusal(reply: str) -> str | None:
    """Return the code of an error reply that refuses every command, such as READONLY; else None."""
    found = _REFUSAL.match(reply)
    return found and found[1]


def check_refusal(reply: str) -> str | None:
    """Return the code of an error reply to WRITE_CHECK that is no answer to it; else None."""
    return "NOPERM" if reply.startswith("NOPERM") else refusal(reply)


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
            code = refusal(f"{error.status_code or ''} {error}".lstrip())
            if code is None:
                raise
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise RedisRefuses(code) from error


class _LeavingConnection(_LeavesRefusing, Connection):
    pass


class _LeavingSSLConnection(_LeavesRefusing, SSLConnection):
    pass


def redis_client(
    url: str, *, timeout_seconds: float, connect_timeout_seconds: float | None = None
) -> Redis:
    """Return a client of a redis:// or rediss:// address that never repeats a command.

    When the server refuses to work, the connection is closed and raises RedisRefuses, a RedisError.
    """
    client = Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=connect_timeout_seconds or timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        **WITHOUT_CLIENT_COMMANDS,
    )
    pool: Any = client.connection_pool
    encrypted = issubclass(pool.connection_class, SSLConnection)
    pool.connection_class = _LeavingSSLConnection if encrypted else _LeavingConnection
    return client
