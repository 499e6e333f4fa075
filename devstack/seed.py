"""Fills a main app with people, always the same for the same number and seed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

import pymysql

from devstack.mysql_connection import Connection, connect
from devstack.people import UNTIL, Population, Row, Value

Progress = Callable[[int, int], None]

_PEOPLE_AT_ONCE = 500
_STATEMENT_CHARACTERS = 1_000_000
_ORDER = (
    "users",
    "claims",
    "claim_requirements",
    "claim_vehicle_packages",
    "user_addresses",
    "user_logs",
)
_ACCESS_DENIED = 1227


def seed(
    url: str,
    users: int = 50_000,
    seed: int = 1,
    progress: Progress | None = None,
    *,
    until: datetime = UNTIL,
) -> None:
    """Puts people 1 to `users` into empty tables; the newest rows are just older than `until`.

    `progress` gets the people done and the total. Memory stays the same for any number. Stays out
    of the binlog when the account may switch that off. Raises `pymysql.Error`.
    """
    population = Population(seed, until)
    with connect(url) as connection, ThreadPoolExecutor(1, "seed") as loader:
        _prepare(connection)
        done = 0
        pending: Future[None] | None = None
        while done < users:
            last = min(done + _PEOPLE_AT_ONCE, users)
            # Python makes the next people while the server stores these.
            statements = list(_statements(population.rows(done + 1, last)))
            if pending is not None:
                pending.result()
            pending = loader.submit(_load, connection, statements)
            done = last
            if progress is not None:
                progress(done, users)
        if pending is not None:
            pending.result()


def _prepare(connection: Connection) -> None:
    with connection.cursor() as cursor:
        # The rows are consistent by construction.
        cursor.execute("SET SESSION foreign_key_checks = 0, unique_checks = 0")
        try:
            cursor.execute("SET SESSION sql_log_bin = 0")
        except pymysql.err.OperationalError as error:
            if error.args[0] != _ACCESS_DENIED:
                raise


def _load(connection: Connection, statements: Iterable[str]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.commit()


def _statements(tables: dict[str, list[Row]]) -> Iterator[str]:
    for table in _ORDER:
        if rows := tables.get(table):
            yield from _inserts(table, rows)


def _inserts(table: str, rows: Sequence[Row]) -> Iterator[str]:
    """INSERTs of many rows each, well below the packet size any server accepts."""
    names = tuple(rows[0])
    head = f"INSERT INTO {table} ({', '.join(names)}) VALUES "
    part: list[str] = []
    size = 0
    for row in rows:
        text = f"({','.join([_literal(row[name]) for name in names])})"
        if part and size + len(text) > _STATEMENT_CHARACTERS:
            yield head + ",".join(part)
            part, size = [], 0
        part.append(text)
        size += len(text)
    yield head + ",".join(part)


def _literal(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
