"""Engines for PostgreSQL and MySQL with time limits, and their failures as our errors."""

import logging
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from servicekit import database_telemetry, logs
from servicekit.errors import Conflict, DeadlineExceeded, Internal, ServiceError, Unavailable

RETRY_AFTER_SECONDS = 1.0

_log = logging.getLogger(__name__)

# The server's limit should speak first; the client's ends waits for a server that is gone.
_CLIENT_SLACK_SECONDS = 1.0


def lock_session(name: str) -> dict[str, str]:
    """Return settings for a PostgreSQL session that holds a leader's advisory lock.

    A node that is lost says no goodbye: without these PostgreSQL would keep its lock for as long
    as Linux keeps silent connections, two hours. So it is free after half a minute, which is long
    after a leader that is only cut off has noticed that it no longer gets answers.
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
    connect_timeout_seconds: float = 3.0,
    is_behind_pgbouncer: bool = False,
    pool_name: str = "postgres",
) -> AsyncEngine:
    """Return an engine of at most `pool_size` connections; none is opened yet.

    Sessions are in UTC and carry statement, lock (by default the statement's) and idle-in-
    transaction limits. Behind PgBouncer in transaction mode nothing is prepared under a name
    that another client could meet, and the limits are set at the start of each transaction,
    which costs a round trip.
    """
    limits = {
        "statement_timeout": _milliseconds(statement_timeout_seconds),
        "lock_timeout": _milliseconds(lock_timeout_seconds or statement_timeout_seconds),
        "idle_in_transaction_session_timeout": _milliseconds(idle_transaction_seconds),
    }
    arguments: dict[str, Any] = {
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
    engine = _engine(
        with_driver(url, "postgresql+asyncpg"), pool_size, pool_timeout_seconds, arguments
    )
    database_telemetry.observe(engine, "postgresql", pool_name)
    if is_behind_pgbouncer:
        _limit_each_transaction(engine, limits)
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

    Sessions use utf8mb4 and UTC and limit the time of a statement (on MySQL: of a SELECT).
    `read_only` sessions cannot write and autocommit, so that a statement is one round trip and
    holds no snapshot; for several statements on one snapshot take a connection with
    `execution_options(isolation_level="REPEATABLE READ")`.
    """
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": connect_timeout_seconds,
        "read_timeout": statement_timeout_seconds + _CLIENT_SLACK_SECONDS,
    }
    if tls_ca_file is not None:
        arguments["ssl"] = ssl.create_default_context(cafile=str(tls_ca_file))
    engine = _engine(
        with_driver(url, "mysql+asyncmy"),
        pool_size,
        pool_timeout_seconds,
        arguments,
        isolation_level="AUTOCOMMIT" if read_only else "READ COMMITTED",
    )
    _prepare_mysql_sessions(engine, statement_timeout_seconds, read_only)
    database_telemetry.observe(engine, "mysql", pool_name)
    return engine


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn the driver's errors into ours, without its text, which may quote a row's values.

    Raises Unavailable (no connection, or none free), DeadlineExceeded (a time limit of the
    database), Conflict (deadlock, serialisation, lock wait), and Internal, logged, for the rest.
    Metadata holds the database's own code. Errors a store expects, such as IntegrityError, it
    catches inside.
    """
    try:
        yield
    except (DBAPIError, PoolTimeoutError, PendingRollbackError, OSError) as error:
        ours = classify(error)
        if isinstance(ours, Internal):
            _log_defect(error, ours)
        raise ours from None


def classify(error: BaseException) -> ServiceError:
    """Return our error for one of SQLAlchemy's, a driver's or the network's."""
    if isinstance(error, PoolTimeoutError):
        database_telemetry.pool_timed_out()
        return Unavailable(
            "DATABASE_BUSY",
            "no database connection became free",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("DATABASE_TIMEOUT", "the database did not answer in time")
    if isinstance(error, OSError | PendingRollbackError):
        return _unavailable("")
    if isinstance(error, DBAPIError):
        return _classified(error)
    return Internal("DATABASE_ERROR", f"unexpected {type(error).__name__}")


def _classified(error: DBAPIError) -> ServiceError:
    code = _code(error)
    if code in _TIMEOUTS or _is_client_timeout(error.orig):
        return DeadlineExceeded(
            "DATABASE_TIMEOUT", "the database did not answer in time", database_code=code
        )
    if code in _CONTENTION:
        return Conflict(
            "DATABASE_CONTENTION", "others are changing the same rows", database_code=code
        )
    if error.connection_invalidated or code in _AWAY or code.startswith("08"):
        return _unavailable(code)
    return Internal(
        "DATABASE_ERROR", f"unexpected {type(error).__name__}", database_code=code or "none"
    )


# SQLSTATE for PostgreSQL, error numbers for MySQL and MariaDB.
_TIMEOUTS = frozenset(
    {
        "57014",  # query_canceled, by statement_timeout
        "25P03",  # idle_in_transaction_session_timeout
        "1969",  # MariaDB: max_statement_time
        "3024",  # MySQL: max_execution_time
    }
)
_CONTENTION = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available, by lock_timeout
        "1205",  # lock wait timeout
        "1213",  # deadlock
    }
)
_AWAY = frozenset(
    {
        "53300",  # too_many_connections
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "1040",  # too many connections
        "1053",  # server shutdown in progress
        "1203",  # user has too many connections
        "1290",  # running with --read-only, as after a failover
        "1836",  # running in read-only mode
        "1927",  # MariaDB: connection was killed
        "2002",  # cannot connect through the socket
        "2003",  # cannot connect
        "2006",  # server has gone away
        "2013",  # lost connection during the query
        "4031",  # MySQL: disconnected for inactivity
    }
)
# PostgreSQL's class 42 and these speak of tables, columns and grants, never of values.
_ABOUT_SCHEMA = frozenset({"1044", "1045", "1049", "1054", "1142", "1143", "1146", "1305", "1370"})


def _code(error: DBAPIError) -> str:
    """Return the SQLSTATE, or MySQL's error number; empty if the server gave none."""
    original = error.orig
    first = original.args[0] if original is not None and original.args else None
    if isinstance(first, int):
        return str(first) if first else ""
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else ""


def _log_defect(error: BaseException, ours: ServiceError) -> None:
    """Log where it happened, and what the server said where that can only name the schema."""
    code = ours.metadata.get("database_code", "")
    original = error.orig if isinstance(error, DBAPIError) else None
    detail = str(original) if code.startswith("42") or code in _ABOUT_SCHEMA else None
    _log.error(
        "database_error",
        extra={
            "database_code": code,
            "database_says": detail,
            "exception": logs.describe(error),
        },
    )


def _is_client_timeout(original: BaseException | None) -> bool:
    seen = original
    while seen is not None:
        if isinstance(seen, TimeoutError):
            return True
        seen = seen.__cause__
    return False


def _unavailable(code: str) -> Unavailable:
    metadata = {"database_code": code} if code else {}
    return Unavailable(
        "DATABASE_UNAVAILABLE",
        "the database cannot be reached",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        **metadata,
    )


def _engine(
    url: URL, pool_size: int, pool_timeout_seconds: float, arguments: dict[str, Any], **more: Any
) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_seconds,
        # The most recently used connection first, so that the rest can age out.
        pool_use_lifo=True,
        pool_recycle=1800,
        hide_parameters=True,
        skip_autocommit_rollback=True,
        connect_args=arguments,
        **more,
    )


def with_driver(url: str, drivername: str) -> URL:
    """Return `url` for one of our drivers, whichever it names; ValueError for another database."""
    parsed = make_url(url)
    if parsed.get_backend_name() not in (drivername.partition("+")[0], "postgres", "mariadb"):
        raise ValueError(f"not a {drivername.partition('+')[0]} URL")
    return parsed.set(drivername=drivername)


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _limit_each_transaction(engine: AsyncEngine, limits: dict[str, str]) -> None:
    # The values are digits made by _milliseconds.
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in limits.items())

    @event.listens_for(engine.sync_engine, "begin")
    def set_limits(connection: Any) -> None:
        connection.exec_driver_sql(f"SELECT {calls}")


def _prepare_mysql_sessions(engine: AsyncEngine, seconds: float, read_only: bool) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("SELECT VERSION()")
            is_mariadb = "MariaDB" in cursor.fetchone()[0]
            limit = (
                f"max_statement_time = {seconds:.3f}"
                if is_mariadb
                else f"max_execution_time = {_milliseconds(seconds)}"
            )
            cursor.execute(f"SET SESSION time_zone = '+00:00', {limit}")
            if read_only:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")
        finally:
            cursor.close()
