"""A PostgreSQL advisory lock that is held for as long as a connection of its own is open."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from servicekit.database import lock_session
from servicekit.database_failures import ASYNCPG_ERRORS, RETRY_AFTER_SECONDS, classify
from servicekit.errors import Unavailable
from servicekit.postgres_hosts import PostgresHosts

_ANSWER_SECONDS: Final = 3.0

# A standby and a demoted server grant locks too, while the new server grants them to others.
_TAKES_WRITES: Final = (
    "NOT pg_is_in_recovery() AND NOT current_setting('default_transaction_read_only')::boolean"
)

# Turns off the limits of idle sessions that the server, the database or the role may set, as far as
# this version of PostgreSQL has them.
_WITHOUT_IDLE_LIMITS: Final = """
    SELECT count(set_config(name, '0', $1)) FROM pg_settings
    WHERE name IN (
        'idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
"""


class AdvisoryLock:
    """A lock that ends with its connection, and so with the process that holds it.

    The connection has no idle limit, and PostgreSQL closes it within a minute when the node is
    lost. The lock counts only on a server that takes writes. Behind PgBouncer in transaction mode
    a transaction that stays open holds the lock, since only then the session stays ours.
    """

    def __init__(
        self, postgres_url: str, *key: int, name: str, is_behind_pgbouncer: bool = False
    ) -> None:
        """`key` is one bigint or two integers; `name` is the session's in pg_stat_activity.

        Raises ValueError as `PostgresHosts` does.
        """
        target = "any" if is_behind_pgbouncer else "read-write"
        self._hosts = PostgresHosts(postgres_url, default_target=target)
        self._scope = "_xact" if is_behind_pgbouncer else ""
        self._key = ", ".join(map(str, key))
        self._session = {"application_name": name} if is_behind_pgbouncer else lock_session(name)
        self._connection: Any = None
        self._is_held = False
        self.lost = asyncio.Event()
        self.pid = 0

    @property
    def is_held(self) -> bool:
        """True while the lock was ours when PostgreSQL last answered."""
        return self._is_held and not self.lost.is_set()

    async def acquire(self) -> bool:
        """Try to take the lock; returns False while another session holds it.

        Between tries the connection is kept. `pid` is then the PostgreSQL process that holds the
        lock, and `lost` is set when the connection ends. Raises Unavailable when PostgreSQL
        cannot be asked.
        """
        async with self._asking():
            if self._connection is None:
                await self._connect()
            takes_writes, self._is_held = await self._connection.fetchrow(
                f"SELECT {_TAKES_WRITES}, pg_try_advisory{self._scope}_lock({self._key})"
            )
            _require(takes_writes)
        return self._is_held

    async def confirm(self) -> None:
        """Make sure that the lock is still ours; raises Unavailable when it may not be."""
        async with self._asking():
            _require(await self._connection.fetchval(f"SELECT {_TAKES_WRITES}"))

    async def release(self) -> None:
        """Give the lock up."""
        connection, self._connection, self._is_held = self._connection, None, False
        if connection is not None:
            # A connection that cannot be closed is gone already.
            with contextlib.suppress(Exception):
                await connection.close(timeout=_ANSWER_SECONDS)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Release the lock when a query fails: its answer may be lost."""
        try:
            yield
        except (OSError, TimeoutError, *ASYNCPG_ERRORS) as error:
            await self.release()
            known = classify(error)
            raise Unavailable(
                known.reason if isinstance(known, Unavailable) else "DATABASE_UNAVAILABLE",
                "PostgreSQL cannot be asked for the lock",
                retry_after_seconds=RETRY_AFTER_SECONDS,
                **known.metadata,
            ) from error
        except BaseException:
            await self.release()
            raise

    async def _connect(self) -> None:
        connection = self._connection = await self._hosts.connect(
            timeout=_ANSWER_SECONDS,
            command_timeout=_ANSWER_SECONDS,
            # Behind PgBouncer a name may be another client's.
            statement_cache_size=0,
            server_settings=self._session,
        )
        self.lost = lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        if self._scope:
            await connection.execute("BEGIN")
        await connection.fetchval(_WITHOUT_IDLE_LIMITS, bool(self._scope))
        # Not the driver's number: PgBouncer gives each client another one.
        self.pid = await connection.fetchval("SELECT pg_backend_pid()")


def _require(takes_writes: bool) -> None:
    if not takes_writes:
        raise asyncpg.ReadOnlySQLTransactionError("the server takes no writes")
