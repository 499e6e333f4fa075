"""Connections to MySQL or MariaDB by address."""

from typing import TypeAlias
from urllib.parse import unquote, urlsplit

import pymysql

Connection: TypeAlias = "pymysql.Connection[pymysql.cursors.Cursor]"


def connect(url: str) -> Connection:
    """A connection in UTC and without autocommit to `scheme://user:password@host:port/database`."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path.removeprefix("/"),
        charset="utf8mb4",
        init_command="SET time_zone = '+00:00'",
    )
