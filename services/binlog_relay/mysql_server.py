"""What the MySQL or MariaDB server is, whether its binlog can be followed, and where it ends."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from pymysql.constants import ER

from servicekit.errors import FailedPrecondition
from services.binlog_relay.domain.positions import (
    GtidSet,
    MariadbGtids,
    MysqlGtids,
    NoGtids,
    Position,
)

_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where the binlog is read from."""

    host: str
    port: int
    user: str
    password: str
    database: str
    ssl_ca: str | None

    @classmethod
    def parse(cls, url: str) -> "Source":
        """Read a mysql:// URL; raises ValueError for one without a host or a database."""
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if parts.hostname is None or not database:
            raise ValueError("the MySQL URL needs a host and a database")
        return cls(
            host=parts.hostname,
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(database),
            ssl_ca=parse_qs(parts.query).get("ssl_ca", [None])[0],
        )

    def connect_arguments(self, read_timeout_seconds: float) -> dict[str, Any]:
        """Return PyMySQL's connection arguments."""
        arguments: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "charset": "utf8mb4",
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": read_timeout_seconds,
        }
        if self.ssl_ca is not None:
            arguments["ssl"] = ssl.create_default_context(cafile=self.ssl_ca)
        return arguments


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server as it answered; `position` is the end of its binlog at that moment."""

    identity: str
    is_mariadb: bool
    has_gtids: bool
    position: Position

    def gtids(self, executed: str) -> GtidSet:
        """Return the set in this server's format, beginning with what is executed already."""
        if not self.has_gtids:
            return NoGtids()
        return MariadbGtids(executed) if self.is_mariadb else MysqlGtids(executed)


def examine(source: Source) -> ServerState:
    """Ask the server; blocks.

    Raises:
        FailedPrecondition: BINLOG_SETTINGS_INSUFFICIENT, naming each setting to change.
        pymysql.err.MySQLError: it cannot be asked.
    """
    with (
        pymysql.connect(**source.connect_arguments(_ANSWER_SECONDS)) as connection,
        connection.cursor() as cursor,
    ):
        variables = _variables(cursor)
        check_settings(variables)
        is_mariadb = "mariadb" in variables["version"].lower()
        file, offset, gtid = _binlog_end(cursor, is_mariadb=is_mariadb)
    identity = _identity(variables)
    has_gtids = is_mariadb or variables.get("gtid_mode", "").startswith("ON")
    position = Position(identity, file, offset, gtid if has_gtids else "")
    return ServerState(identity, is_mariadb, has_gtids, position)


def check_settings(variables: Mapping[str, str]) -> None:
    """Raise FailedPrecondition unless every change can be followed with these global variables."""
    wrong = [
        f"{name} is {variables.get(name) or 'not there'}: {remedy}"
        for name, allowed, is_optional, remedy in _REQUIRED
        if not (is_optional and name not in variables)
        and variables.get(name, "").upper() not in allowed
    ]
    if wrong:
        raise FailedPrecondition("BINLOG_SETTINGS_INSUFFICIENT", "; ".join(wrong))


_SET = "SET GLOBAL {0} = '{1}', and keep it in the server's configuration"
_REQUIRED = (
    ("log_bin", {"ON", "1"}, False, "start the server with log_bin"),
    ("binlog_format", {"ROW"}, False, _SET.format("binlog_format", "ROW")),
    ("binlog_row_image", {"FULL"}, False, _SET.format("binlog_row_image", "FULL")),
    ("binlog_row_metadata", {"FULL"}, False, _SET.format("binlog_row_metadata", "FULL")),
    ("binlog_row_value_options", {""}, True, _SET.format("binlog_row_value_options", "")),
    (
        "binlog_transaction_compression",
        {"OFF", "0"},
        True,
        "SET GLOBAL binlog_transaction_compression = OFF, and keep it so",
    ),
    ("log_bin_compress", {"OFF", "0"}, True, "SET GLOBAL log_bin_compress = OFF, and keep it so"),
)
_NAMES = (
    *(name for name, *_ in _REQUIRED),
    "version",
    "server_uuid",
    "server_id",
    "hostname",
    "port",
    "gtid_mode",
)


def _variables(cursor: Any) -> dict[str, str]:
    names = ", ".join(["%s"] * len(_NAMES))
    cursor.execute(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})", _NAMES)
    return {str(name).lower(): str(value) for name, value in cursor.fetchall()}


def _identity(variables: Mapping[str, str]) -> str:
    # MariaDB has no UUID of its own.
    uuid = variables.get("server_uuid")
    return uuid or f"{variables['hostname']}:{variables['port']}:{variables['server_id']}"


def _binlog_end(cursor: Any, *, is_mariadb: bool) -> tuple[str, int, str]:
    try:
        cursor.execute("SHOW BINARY LOG STATUS")
    except pymysql.err.ProgrammingError as error:
        if error.args[0] != ER.PARSE_ERROR:
            raise
        # Before MySQL 8.2 and on MariaDB it has the old name.
        cursor.execute("SHOW MASTER STATUS")
    row = cursor.fetchone()
    if row is None:
        raise FailedPrecondition(
            "BINLOG_SETTINGS_INSUFFICIENT", "log_bin is OFF: start the server with log_bin"
        )
    file, offset = str(row[0]), int(row[1])
    if not is_mariadb:
        return file, offset, str(row[4]).replace("\n", "") if len(row) > 4 else ""
    cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", (file, offset))
    found = cursor.fetchone()
    return file, offset, str(found[0]) if found and found[0] else ""
