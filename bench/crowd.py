"""A main app of any size, made inside MySQL out of the people who are there."""

from __future__ import annotations

import pymysql
from sqlalchemy import make_url

from devstack.mysql_connection import Connection
from devstack.stack import MAIN_APP, Stack

_CLAIMS_PER_PERSON = 10


def grow(stack: Stack, people: int) -> None:
    """Copy the first people, with their claims and requirements, until there are ``people``.

    Copies keep all but ids and e-mail addresses, wide columns too, and stay out of the binlog:
    no service should follow them as changes. Rows of tables without facts are not copied.
    """
    url = make_url(stack.mariadb.url(MAIN_APP, user="admin"))
    with pymysql.connect(
        host=url.host or "",
        port=url.port or 0,
        user=url.username,
        password=url.password or "",
        database=url.database,
    ) as connection:
        _execute(connection, "SET sql_log_bin = 0, foreign_key_checks = 0, unique_checks = 0")
        there = _count(connection)
        for offset in range(there, people, stack.users):
            _copy(connection, offset, min(stack.users, people - offset))
        _execute(connection, "ANALYZE TABLE users, claims, claim_requirements")
        if _count(connection) != people:
            raise RuntimeError("there are more people than asked for: remove .stack and try again")


def _copy(connection: Connection, offset: int, people: int) -> None:
    claims = offset * _CLAIMS_PER_PERSON
    email = f"CONCAT('{offset}.', email_address)"
    changed = {"id": f"id + {offset}", "email_address": email}
    _copy_rows(connection, "users", changed, f"id <= {people}")
    _copy_rows(
        connection,
        "claims",
        {"id": f"id + {claims}", "user_id": f"user_id + {offset}"},
        f"user_id <= {people}",
    )
    _copy_rows(
        connection,
        "claim_requirements",
        {"id": "UUID()", "claim_id": f"claim_id + {claims}"},
        f"claim_id < {(people + 1) * _CLAIMS_PER_PERSON}",
    )
    connection.commit()


def _copy_rows(connection: Connection, table: str, changed: dict[str, str], where: str) -> None:
    names = [
        row[0]
        for row in _execute(
            connection,
            "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
            f" AND table_name = '{table}' AND generation_expression IS NULL",
        )
    ]
    values = ", ".join(changed.get(name, name) for name in names)
    columns = ", ".join(names)
    _execute(
        connection, f"INSERT INTO {table} ({columns}) SELECT {values} FROM {table} WHERE {where}"
    )


def _count(connection: Connection) -> int:
    return int(_execute(connection, "SELECT COUNT(*) FROM users")[0][0])


def _execute(connection: Connection, sql: str) -> list[tuple[str, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
