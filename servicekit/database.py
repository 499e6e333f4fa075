"""Engines for PostgreSQL and MySQL with time limits, and their failures as our errors."""

import logging
import socket
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    InvalidatePoolError,
    PendingRollbackError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from servicekit import database_telemetry, logs
from servicekit.database_failures import (
    ASYNCPG_ERRORS,
    classify,
    spoils_pool,
    spoils_session,
)
from servicekit.errors import Internal
from servicekit.postgres_hosts import CONNECT_SECONDS, PostgresHosts

_log = logging.getLogger(__name__)

# The server's limit is to pass first; the client's limit ends waits for a server that is gone.
_CLIENT_SLACK_SECONDS = 1.0

# How often a MySQL session that is in use checks whether its server takes writes.
_DEMOTION_SECONDS = 2.0
_SERVER = "dialler_server"


def session_name(name: str) -> str:
    """Return what sessions of this process are called: `name`, and the pod that it runs in.

    PostgreSQL shows it as application_name, of which it keeps 63 bytes.
    """
    return f"{name}@{socket.gethostname()}"[:63]


def lock_session(name: str) -> dict[str, str]:
    """Return settings for a PostgreSQL session that holds a leader's advisory lock.

    A node that is lost does not close its connections: by default PostgreSQL would keep the lock
    for two hours, as long as Linux keeps silent connections. With these settings the lock is free
    after half a minute. A leader that is only cut off notices much earlier that it gets no answers.
    """
    return {
        "application_name": name,
        "tcp_keepalives_idle": "15",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }


def postgres_engine(
    url: str,
    *,
    pool_size: int,
    application_name: str,
    statement_timeout_seconds: float,
    lock_timeout_seconds: float | None = None,
    idle_transaction_seconds: float = 30.0,
    pool_timeout_seconds: float = 2.0,
    connect_timeout_seconds: float = CONNECT_SECONDS,
    is_behind_pgbouncer: bool = False,
    pool_name: str = "postgres",
) -> AsyncEngine:
    """Return an engine of at most `pool_size` connections; none is opened yet.

    `url` may name several hosts; sessions are opened on the host that takes writes and leave it
    when it no longer does. Sessions are in UTC and have limits for statements, locks (by default
    the limit for statements) and idle transactions. Behind PgBouncer in transaction mode prepared
    statements have names that no other client uses, and the limits are set at the start of each
    transaction, which costs a round trip. Raises ValueError as `PostgresHosts` does.
    """
    # What PgBouncer reports of a server may be true of the server before.
    hosts = PostgresHosts(url, default_target="any" if is_behind_pgbouncer else "read-write")
    limits = {
        "statement_timeout": _milliseconds(statement_timeout_seconds),
        "lock_timeout": _milliseconds(lock_timeout_seconds or statement_timeout_seconds),
        "idle_in_transaction_session_timeout": _milliseconds(idle_transaction_seconds),
    }
    arguments: dict[str, Any] = {
        "async_creator_fn": hosts.connect,
        "timeout": connect_timeout_seconds,
        "command_timeout": statement_timeout_seconds + _CLIENT_SLACK_SECONDS,
        "server_settings": {"application_name": application_name, "TimeZone": "UTC"},
    }
    if is_behind_pgbouncer:
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__{uuid.uuid4().hex}__",
        }
    else:
        arguments["server_settings"] |= limits
    engine = _engine(make_url("postgresql+asyncpg://"), pool_size, pool_timeout_seconds, arguments)
    database_telemetry.observe(engine, "postgresql", pool_name)

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: Any, record: object, proxy: object) -> None:
        # A session may have been ended while idle, or its server may take no more writes.
        session = connection.driver_connection
        if session.is_closed():
            raise DisconnectionError
        if not hosts.takes_writes(session):
            raise InvalidatePoolError

    if is_behind_pgbouncer:
        # The values are digits made by _milliseconds.
        calls = ", ".join(f"set_config('{name}', '{each}', true)" for name, each in limits.items())

        @event.listens_for(engine.sync_engine, "begin")
        def set_limits(connection: Any) -> None:
            connection.exec_driver_sql(f"SELECT {calls}")

    return engine


def mysql_engine(
    url: str,
    *,
    pool_size: int,
    statement_timeout_seconds: float,
    read_only: bool = True,
    pool_timeout_seconds: float = 2.0,
    connect_timeout_seconds: float = 3.0,
    tls_ca_file: Path | None = None,
    pool_name: str = "mysql",
) -> AsyncEngine:
    """Return an engine of at most `pool_size` connections for MySQL 8/9 or MariaDB.

    Once a session has been opened on a server that takes writes, a session on a read-only server
    is replaced after two seconds, again and again until the address leads to a server that takes
    writes. An engine that has met only replicas reads from them. Sessions use utf8mb4 and UTC and
    limit the time of a statement (on MySQL: of a SELECT). `read_only` sessions cannot write and
    autocommit, so that a statement is one round trip and holds no snapshot; for several statements
    on one snapshot use a connection with
    `execution_options(isolation_level="REPEATABLE READ")`. Raises ValueError for the URL of
    another database.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() not in ("mysql", "mariadb"):
        raise ValueError("not a mysql URL")
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": connect_timeout_seconds,
        "read_timeout": statement_timeout_seconds + _CLIENT_SLACK_SECONDS,
    }
    if tls_ca_file is not None:
        arguments["ssl"] = ssl.create_default_context(cafile=str(tls_ca_file))
    engine = _engine(
        parsed.set(drivername="mysql+asyncmy"),
        pool_size,
        pool_timeout_seconds,
        arguments,
        isolation_level="AUTOCOMMIT" if read_only else "READ COMMITTED",
    )
    _prepare_mysql_sessions(engine, statement_timeout_seconds, read_only)
    _leave_demoted_mysql(engine)
    database_telemetry.observe(engine, "mysql", pool_name)
    return engine


_FAILURES = (DBAPIError, PoolTimeoutError, PendingRollbackError, OSError, *ASYNCPG_ERRORS)
# Messages of PostgreSQL's class 42 and of these codes hold names of the schema, never values.
_ABOUT_SCHEMA = frozenset({"1044", "1045", "1049", "1054", "1142", "1143", "1146", "1305", "1370"})


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn the driver's errors into ours, without their text, which may quote a row's values.

    Raises Unavailable (DATABASE_UNAVAILABLE, _READ_ONLY, _EXHAUSTED, and _BUSY: no connection is
    free), its subclass Contention (deadlock, serialisation, lock wait), DeadlineExceeded
    (DATABASE_TIMEOUT: a time limit of the database), and Internal, logged, for the rest. Metadata
    holds the database's own code. A store catches errors that it expects, such as IntegrityError,
    within the block.
    """
    try:
        yield
    except _FAILURES as error:
        ours = classify(error)
        if isinstance(ours, Internal):
            code = ours.metadata.get("database_code", "")
            original = error.orig if isinstance(error, DBAPIError) else error
            detail = str(original) if code.startswith("42") or code in _ABOUT_SCHEMA else None
            _log.error(
                "database_error",
                extra={
                    "database_code": code,
                    "database_says": detail,
                    "exception": logs.describe(error),
                },
            )
        raise ours from None


@asynccontextmanager
async def asyncpg_connection(connection: AsyncConnection) -> AsyncIterator[asyncpg.Connection]:
    """Yield asyncpg's own connection, for what SQLAlchemy does not do, or does slowly.

    SQLAlchemy does not see its failures: the session is replaced here after one that leaves it of
    no use. Raises what `database_errors` does.
    """
    with database_errors():
        session = (await connection.get_raw_connection()).driver_connection
        try:
            yield session
        except (OSError, *ASYNCPG_ERRORS) as error:
            if spoils_session(error):
                await connection.invalidate(error)
            raise


def _engine(
    url: URL, pool_size: int, pool_timeout_seconds: float, arguments: dict[str, Any], **more: Any
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_seconds,
        # The most recently used connection first, so that the rest can age out.
        pool_use_lifo=True,
        # How long sessions stay on a server that has been replaced without ending them.
        pool_recycle=300,
        hide_parameters=True,
        skip_autocommit_rollback=True,
        connect_args=arguments,
        **more,
    )

    @event.listens_for(engine.sync_engine, "handle_error")
    def replace_spoilt_sessions(failure: Any) -> None:
        # Sessions whose server is of no use may still be open.
        error = failure.sqlalchemy_exception or failure.original_exception
        if spoils_session(error):
            failure.is_disconnect = True
            failure.invalidate_pool_on_disconnect = spoils_pool(error)

    return engine


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _prepare_mysql_sessions(engine: AsyncEngine, seconds: float, read_only: bool) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("SELECT VERSION(), @@global.read_only")
            version, takes_no_writes = cursor.fetchone()
            limit = (
                f"max_statement_time = {seconds:.3f}"
                if "MariaDB" in version
                else f"max_execution_time = {_milliseconds(seconds)}"
            )
            cursor.execute(f"SET SESSION time_zone = '+00:00', {limit}")
            if read_only:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")
        finally:
            cursor.close()
        record.info[_SERVER] = _Server(_is_on(takes_no_writes))


def _leave_demoted_mysql(engine: AsyncEngine) -> None:
    """Replace sessions on a demoted server, which would serve rows that are out of date.

    A demoted server goes on answering reads while the rows change on another server. The address
    may lead to it for a while, so a new session is checked like any other. Where the address has
    led to replicas only, sessions stay on them.
    """
    has_taken_writes = False

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: Any, record: Any, proxy: object) -> None:
        nonlocal has_taken_writes
        server: _Server = record.info[_SERVER]
        now = time.monotonic()
        if server.asked_at is None:
            server.asked_at = now
        elif now - server.asked_at >= _DEMOTION_SECONDS:
            was_demoted = not server.takes_no_writes
            cursor = connection.cursor()
            try:
                cursor.execute("SELECT @@global.read_only")
                (read_only,) = cursor.fetchone()
            except connection.dbapi.Error as error:
                raise InvalidatePoolError from error
            finally:
                cursor.close()
            server.takes_no_writes = _is_on(read_only)
            server.asked_at = now
            if server.takes_no_writes and has_taken_writes:
                # Only a demotion ends every session: those opened since may be on another server.
                raise InvalidatePoolError if was_demoted else DisconnectionError
        has_taken_writes = has_taken_writes or not server.takes_no_writes


@dataclass(slots=True)
class _Server:
    """The last check of a session's server; `asked_at` is on the monotonic clock.

    It is None until the session is first used: opening it checks the server as well.
    """

    takes_no_writes: bool
    asked_at: float | None = None


def _is_on(variable: object) -> bool:
    """Whether a server variable is on; newer MariaDB has words for read_only."""
    return str(variable).upper() not in ("0", "OFF")
