"""What a failure of PostgreSQL or MySQL means: the one place that reads the servers' codes."""

from enum import Enum, auto

import asyncpg
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from servicekit import database_telemetry
from servicekit.errors import DeadlineExceeded, Internal, ServiceError, Unavailable

RETRY_AFTER_SECONDS = 1.0

# What asyncpg raises. It raises InternalClientError when a session is used after PostgreSQL has
# announced its end and before the connection ends.
ASYNCPG_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

READ_ONLY_SQLSTATE = "25006"


class Contention(Unavailable):
    """Unavailable (DATABASE_CONTENTION): another transaction held a lock for too long."""


class Failure(Enum):
    """Kinds of failure that are neither a defect of ours nor a fault of the request."""

    TIMEOUT = auto()
    """A time limit passed; the session goes on."""
    CONTENTION = auto()
    """Another transaction held a lock; the session goes on."""
    READ_ONLY = auto()
    """The server takes no writes, as a demoted server whose sessions stayed open."""
    EXHAUSTED = auto()
    """The server lacks connections, memory or disk."""
    UNAVAILABLE = auto()
    """The server or the network is gone, stopping, starting or not yet usable."""


# SQLSTATE for PostgreSQL, error numbers for MySQL and MariaDB (their manuals' error references).
_BY_CODE = {
    **dict.fromkeys(
        (
            "57014",  # query_canceled, by statement_timeout
            "25P03",  # idle_in_transaction_session_timeout
            "25P04",  # transaction_timeout
            "1969",  # MariaDB: max_statement_time
            "3024",  # MySQL: max_execution_time
        ),
        Failure.TIMEOUT,
    ),
    **dict.fromkeys(
        (
            "55P03",  # lock_not_available, by lock_timeout
            "1205",  # lock wait timeout
            "1213",  # deadlock
            "3101",  # rolled back on commit, as by MySQL's group replication
            "3572",  # NOWAIT
        ),
        Failure.CONTENTION,
    ),
    **dict.fromkeys(
        (
            READ_ONLY_SQLSTATE,  # read_only_sql_transaction
            "1290",  # an option such as --read-only prevents it
            "1792",  # transaction_read_only
            "1836",  # running in read-only mode
        ),
        Failure.READ_ONLY,
    ),
    **dict.fromkeys(
        (
            "1021",  # disk full
            "1037",  # out of memory
            "1038",  # out of sort memory
            "1040",  # too many connections
            "1041",  # out of resources
            "1135",  # no thread
            "1203",  # user has too many connections
            "1226",  # user has too much of another resource
        ),
        Failure.EXHAUSTED,
    ),
    **dict.fromkeys(
        (
            "58000",  # system_error
            "58030",  # io_error
            "1047",  # Galera: the node is not yet ready for use
            "1053",  # server shutdown in progress
            "1077",  # normal shutdown
            "1079",  # shutdown complete
            "1080",  # forcing close
            "1129",  # host is blocked after errors of connections
            "1152",  # aborted connection
            "1158",  # errors of reading packets, and of writing them
            "1159",
            "1160",
            "1161",
            "1184",  # aborted connection
            "1317",  # interrupted, as by a server that stops
            "1927",  # MariaDB: connection was killed
            "2002",  # cannot connect through the socket
            "2003",  # cannot connect
            "2005",  # unknown host
            "2006",  # server has gone away
            "2012",  # error of the handshake
            "2013",  # lost connection during the query
            "2014",  # commands out of sync: the session's answers cannot be told apart
            "2027",  # malformed packet
            "2055",  # lost connection
            "3032",  # offline mode
            "3100",  # a replication hook failed, as without a majority of the group
            "3168",  # server is not available
            "3169",  # session was killed
            "4031",  # disconnected for inactivity
        ),
        Failure.UNAVAILABLE,
    ),
}
# SQLSTATE has classes: connection exceptions, insufficient resources, rollbacks, and operator
# intervention, that is, shutdowns and starts.
_BY_CLASS = {
    "08": Failure.UNAVAILABLE,
    "40": Failure.CONTENTION,
    "53": Failure.EXHAUSTED,
    "57": Failure.UNAVAILABLE,
}
_REASONS = {
    Failure.TIMEOUT: ("DATABASE_TIMEOUT", "the database did not answer in time"),
    Failure.CONTENTION: ("DATABASE_CONTENTION", "others are changing the same rows"),
    Failure.READ_ONLY: ("DATABASE_READ_ONLY", "the database takes no writes now"),
    Failure.EXHAUSTED: ("DATABASE_EXHAUSTED", "the database has no capacity left"),
    Failure.UNAVAILABLE: ("DATABASE_UNAVAILABLE", "the database cannot be reached"),
}
# After these failures the session is of no use.
_SPOILS_SESSION = frozenset({Failure.READ_ONLY, Failure.EXHAUSTED, Failure.UNAVAILABLE})
# After these failures no session opened before is of use either. EXHAUSTED is not among them: a
# server without memory must not have to accept all connections anew at once.
_SPOILS_POOL = frozenset({Failure.READ_ONLY, Failure.UNAVAILABLE})


def classify(error: BaseException) -> ServiceError:
    """Return our error for one of SQLAlchemy, a driver or the network, and count it.

    An Unavailable carries the seconds after which to try again.
    """
    failure, code = failure_of(error), code_of(error)
    metadata = {"database_code": code} if code else {}
    ours: ServiceError
    if isinstance(error, PoolTimeoutError):
        database_telemetry.pool_timed_out()
        ours = Unavailable(
            "DATABASE_BUSY",
            "no database connection became free",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    elif failure is None:
        ours = Internal(
            "DATABASE_ERROR", f"unexpected {type(error).__name__}", database_code=code or "none"
        )
    elif failure is Failure.TIMEOUT:
        reason, message = _REASONS[failure]
        ours = DeadlineExceeded(reason, message, retry_after_seconds=None, **metadata)
    else:
        reason, message = _REASONS[failure]
        kind = Contention if failure is Failure.CONTENTION else Unavailable
        ours = kind(reason, message, retry_after_seconds=RETRY_AFTER_SECONDS, **metadata)
    database_telemetry.failed(ours.reason)
    return ours


def failure_of(error: BaseException) -> Failure | None:
    """Return the kind of a failure; None for a possible defect or a fault of the request."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    while cause is not None:
        if isinstance(cause, TimeoutError):
            return Failure.TIMEOUT
        cause = cause.__cause__
    code = code_of(error)
    failure = _BY_CODE.get(code) or (_BY_CLASS.get(code[:2]) if len(code) == 5 else None)
    if failure is not None:
        return failure
    if isinstance(error, DBAPIError):
        return Failure.UNAVAILABLE if error.connection_invalidated else None
    if isinstance(error, asyncpg.InterfaceError):
        # Other errors of this class are misuse; they have no code either.
        return Failure.UNAVAILABLE if "connection is closed" in str(error) else None
    is_unavailable = isinstance(error, OSError | PendingRollbackError | asyncpg.InternalClientError)
    return Failure.UNAVAILABLE if is_unavailable else None


def spoils_session(error: BaseException) -> bool:
    """Whether the session that raised the error is of no use any more."""
    return failure_of(error) in _SPOILS_SESSION


def spoils_pool(error: BaseException) -> bool:
    """Whether other sessions opened before the error are of no use any more either."""
    return failure_of(error) in _SPOILS_POOL


def code_of(error: BaseException) -> str:
    """Return the SQLSTATE, or MySQL's error number; empty if the server gave none."""
    original = error.orig if isinstance(error, DBAPIError) else error
    first = original.args[0] if original is not None and original.args else None
    if isinstance(first, int):
        # An OSError's first argument is a number of the operating system.
        return str(first) if first and not isinstance(original, OSError) else ""
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else ""
