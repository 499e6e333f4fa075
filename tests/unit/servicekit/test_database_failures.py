"""What codes of PostgreSQL and MySQL come to, and what becomes of the session."""

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from servicekit.database_failures import Contention, classify, spoils_pool, spoils_session
from servicekit.errors import DeadlineExceeded, Internal, Unavailable


class _Asyncpg(Exception):
    """As SQLAlchemy's dialect hands on an error of asyncpg's."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("the text may quote a row")
        self.sqlstate = sqlstate


def _postgres(sqlstate: str) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, _Asyncpg(sqlstate))


def _mysql(number: int) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, Exception(number, "the text may quote a row"))


READ_ONLY = [_postgres("25006"), _mysql(1290), _mysql(1792), _mysql(1836)]
AWAY = [
    *map(_postgres, ("57P01", "57P02", "57P03", "57P04", "57P05", "08000", "08003", "08006")),
    *map(_postgres, ("08001", "08004", "08P01", "58030")),
    *map(_mysql, (1053, 2003, 2006, 2013, 2014, 3100, 1047, 1927, 4031)),
]
EXHAUSTED = [
    *map(_postgres, ("53000", "53100", "53200", "53300", "53400")),
    *map(_mysql, (1040, 1203, 1226)),
]
CONTENTION = [
    *map(_postgres, ("40001", "40P01", "40003", "55P03")),
    *map(_mysql, (1205, 1213, 3101)),
]
DEFECTS = [*map(_postgres, ("42P01", "22P02", "23505", "XX000")), _mysql(1054), _mysql(1064)]
REASONS = [
    *((it, "DATABASE_READ_ONLY") for it in READ_ONLY),
    *((it, "DATABASE_UNAVAILABLE") for it in AWAY),
    *((it, "DATABASE_EXHAUSTED") for it in EXHAUSTED),
    *((it, "DATABASE_CONTENTION") for it in CONTENTION),
]


@pytest.mark.parametrize(("error", "reason"), REASONS)
def test_a_failure_that_is_no_fault_of_the_request_says_when_to_ask_again(
    error: DBAPIError, reason: str
) -> None:
    ours = classify(error)
    assert isinstance(ours, Unavailable)
    assert ours.reason == reason
    assert ours.retry_after_seconds is not None
    assert ours.metadata["database_code"]
    assert "quote" not in repr(ours)


@pytest.mark.parametrize("error", DEFECTS)
def test_a_defect_stays_one(error: DBAPIError) -> None:
    assert isinstance(classify(error), Internal)
    assert not spoils_session(error)


@pytest.mark.parametrize("error", [_postgres("57014"), _postgres("25P03"), _mysql(3024)])
def test_a_time_limit_is_a_deadline(error: DBAPIError) -> None:
    assert isinstance(classify(error), DeadlineExceeded)
    assert not spoils_session(error)


@pytest.mark.parametrize("error", [*READ_ONLY, *AWAY])
def test_a_server_that_is_of_no_use_costs_all_its_sessions(error: DBAPIError) -> None:
    assert spoils_session(error)
    assert spoils_pool(error)


@pytest.mark.parametrize("error", EXHAUSTED)
def test_a_server_at_its_limits_is_not_asked_for_many_new_sessions(error: DBAPIError) -> None:
    assert spoils_session(error)
    assert not spoils_pool(error)


@pytest.mark.parametrize("error", CONTENTION)
def test_contention_costs_no_session(error: DBAPIError) -> None:
    assert isinstance(classify(error), Contention)
    assert not spoils_session(error)


def test_errors_of_the_network_and_of_the_driver_itself_are_known_too() -> None:
    assert classify(ConnectionRefusedError(111, "refused")).reason == "DATABASE_UNAVAILABLE"
    assert classify(TimeoutError()).reason == "DATABASE_TIMEOUT"
    assert classify(asyncpg.CannotConnectNowError("starting")).reason == "DATABASE_UNAVAILABLE"
    told = asyncpg.ReadOnlySQLTransactionError("read-only")
    assert classify(told).reason == "DATABASE_READ_ONLY"


def test_asyncpg_itself_says_that_its_connection_is_closed_without_a_code() -> None:
    closed = asyncpg.InterfaceError("connection is closed")
    assert classify(closed).reason == "DATABASE_UNAVAILABLE"
    assert spoils_session(closed)
    assert classify(asyncpg.InternalClientError("state")).reason == "DATABASE_UNAVAILABLE"
    assert spoils_session(asyncpg.InternalClientError("state"))
    misuse = asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
    assert isinstance(classify(misuse), Internal)
    assert not spoils_session(misuse)
