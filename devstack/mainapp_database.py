"""The main app's database on a local MariaDB."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from devstack.accounts import MAINAPP_PREFIX
from devstack.servers import MariaDB
from devstack.sql_grants import reader, relay
from mainapp.description import load

SCHEMA_FILE = Path(__file__).with_name("mainapp_schema.sql")


def schema_statements() -> list[str]:
    """The main app's schema, a statement each."""
    return statements_of(SCHEMA_FILE.read_text())


def statements_of(sql: str) -> list[str]:
    """The statements of an SQL file in which no text holds a semicolon."""
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]


@dataclass(frozen=True)
class MainAppDatabase:
    """A MariaDB database with the main app's schema."""

    server: MariaDB
    name: str

    @classmethod
    def create(cls, server: MariaDB, name: str | None = None) -> "MainAppDatabase":
        """A new database, under a unique name unless one is given.

        The readers' accounts may do in it what deploy/sql grants, and no more; what it grants on
        the whole server is left to `devstack.accounts`.
        """
        database = cls(server, name or f"{MAINAPP_PREFIX}_{uuid.uuid4().hex}")
        with server.connect("laravel") as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{database.name}`")
            cursor.execute(f"USE `{database.name}`")
            for statement in schema_statements():
                cursor.execute(statement)
        grants = statements_of(reader(load()) + relay(load()))
        with server.connect(database=database.name) as connection, connection.cursor() as cursor:
            for statement in grants:
                if "ON *.*" not in statement:
                    cursor.execute(statement)
        return database

    def drop(self) -> None:
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{self.name}`")

    @property
    def url(self) -> str:
        """For the account that may only read: the dialler's."""
        return self.server.url(self.name)

    @property
    def writer_url(self) -> str:
        """For the main app's own account."""
        return self.server.url(self.name, user="laravel", driver="mysql+pymysql")

    @property
    def relay_url(self) -> str:
        """For the account that reads the binlog."""
        return self.server.url(self.name, user="dialler_relay", driver="mysql")

    def connect(self, user: str = "laravel") -> "pymysql.Connection[pymysql.cursors.Cursor]":
        """A connection of its own, in autocommit, as the main app unless told otherwise."""
        return self.server.connect(user, self.name)

    def execute(self, statement: str, arguments: Sequence[object] = ()) -> int:
        """Runs one statement as the main app and commits; returns the number of rows affected."""
        with self.connect() as connection, connection.cursor() as cursor:
            return cursor.execute(statement, arguments or None)

    def rows(self, query: str, arguments: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows a query gives, read as the main app."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(query, arguments or None)
            return list(cursor.fetchall())
