"""Examines the MySQL or MariaDB server: can its binlog be followed, and where does it end."""

import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from pymysql.constants import ER

from servicekit.errors import FailedPrecondition
from services.binlog_relay.domain.positions import (
    BinlogPosition,
    GtidSet,
    MariadbGtids,
    MysqlGtids,
    NoGtids,
)

_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class MySqlSource:
    """The address and account from which the binlog is read."""

    host: str
    port: int
    user: str
    password: str
    database: str
    ssl_ca: str | None

    @classmethod
    def parse(cls, url: str) -> "MySqlSource":
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
    """The state of the server; `position` is the end of its binlog at that moment.

    `standstill` says why no change can come into its binlog, as on a demoted primary. `doubt` says
    what is wrong although changes may come. A replica is `behind_seconds` behind its source.
    """

    identity: str
    is_mariadb: bool
    has_gtids: bool
    has_lower_case_names: bool
    position: BinlogPosition
    standstill: str | None = None
    behind_seconds: float = 0.0
    doubt: str | None = None

    def gtids(self, executed: str) -> GtidSet:
        """Return the executed set in this server's format."""
        if not self.has_gtids:
            return NoGtids()
        return MariadbGtids(executed) if self.is_mariadb else MysqlGtids(executed)

    def stored_name(self, name: str) -> str:
        """Return a schema's or a table's name as the server writes it into its binlog."""
        return name.lower() if self.has_lower_case_names else name


def examine(source: MySqlSource, tables: Collection[str]) -> ServerState:
    """Return the state of the server, asked on a new connection; blocks.

    Raises:
        FailedPrecondition: BINLOG_SETTINGS_INSUFFICIENT, naming each setting to change.
        pymysql.err.MySQLError: the server cannot be asked.
    """
    with (
        pymysql.connect(**source.connect_arguments(_ANSWER_SECONDS)) as connection,
        connection.cursor() as cursor,
    ):
        names = ", ".join(["%s"] * len(_NAMES))
        cursor.execute(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})", _NAMES)
        variables = {str(name).lower(): str(value) for name, value in cursor.fetchall()}
        is_mariadb = "mariadb" in variables["version"].lower()
        replication = _replication(cursor, variables, is_mariadb=is_mariadb)
        # Before MySQL 8.2 and on MariaDB the statement has the old name.
        _execute_first_understood(cursor, "SHOW BINARY LOG STATUS", "SHOW MASTER STATUS")
        end = cursor.fetchone()
        do_schemas, ignore_schemas = (str(end[2]), str(end[3])) if end else ("", "")
        wrong = [
            *wrong_settings(variables),
            *wrong_updates(variables, is_replica=replication.is_replica),
            *wrong_filters(source.database, do_schemas, ignore_schemas, variables),
        ]
        if wrong or end is None:
            raise FailedPrecondition("BINLOG_SETTINGS_INSUFFICIENT", "; ".join(wrong))
        has_lower_case_names = variables.get("lower_case_table_names") == "1"
        if not has_lower_case_names:
            _check_names(cursor, source.database, tables)
        file, offset = str(end[0]), int(end[1])
        gtid = str(end[4]).replace("\n", "") if len(end) > 4 else ""
        if is_mariadb:
            cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", (file, offset))
            found = cursor.fetchone()
            gtid = str(found[0]) if found and found[0] else ""
    # MariaDB has no UUID of its own; a copy of a MySQL server's files keeps the UUID.
    named = variables.get("server_uuid") or f"{variables['hostname']}:{variables['port']}"
    domain = variables.get("gtid_domain_id", "")
    identity = f"{named}:{variables['server_id']}:{domain}".rstrip(":")
    has_gtids = is_mariadb or variables.get("gtid_mode", "").startswith("ON")
    return ServerState(
        identity=identity,
        is_mariadb=is_mariadb,
        has_gtids=has_gtids,
        has_lower_case_names=has_lower_case_names,
        position=BinlogPosition(identity, file, offset, gtid if has_gtids else ""),
        standstill=replication.standstill,
        behind_seconds=replication.behind_seconds,
        doubt=replication.doubt,
    )


def wrong_settings(variables: Mapping[str, str]) -> list[str]:
    """Return the global variables to change so that every change can be followed."""
    return [
        f"{name} is {variables.get(name) or 'not there'}: {remedy}"
        for name, allowed, is_optional, remedy in _REQUIRED
        if not (is_optional and name not in variables)
        and variables.get(name, "").upper() not in allowed
    ]


def wrong_updates(variables: Mapping[str, str], *, is_replica: bool) -> list[str]:
    """Return the variable to change on a replica that does not log what it applies."""
    name = next((each for each in _UPDATES if each in variables), _UPDATES[0])
    if not is_replica or variables.get(name, "").upper() in _ON:
        return []
    return [
        f"{name} is {variables.get(name) or 'not there'} on a replica, whose binlog then lacks"
        f" what comes from its source: start the server with {name}, or read from its source"
    ]


def wrong_filters(
    schema: str, do_schemas: str, ignore_schemas: str, variables: Mapping[str, str]
) -> list[str]:
    """Return which filter keeps the schema's changes out of the binlog."""
    has_case = variables.get("lower_case_table_names", "0") == "0"

    def lists(schemas: str) -> bool:
        names = [name.strip() for name in schemas.split(",")]
        return schema in names if has_case else schema.lower() in map(str.lower, names)

    found = []
    if do_schemas and not lists(do_schemas):
        found.append(f"Binlog_Do_DB is {do_schemas}: add {schema} to binlog_do_db, or remove it")
    if lists(ignore_schemas):
        found.append(f"Binlog_Ignore_DB is {ignore_schemas}: take {schema} out of binlog_ignore_db")
    return found


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
    (
        "lower_case_table_names",
        {"0", "1"},
        True,
        "its binlog has names in either case: read from a server that has 0 or 1",
    ),
)
_ON = frozenset({"ON", "1"})
_OFF = frozenset({"OFF", "0"})
_UPDATES = ("log_replica_updates", "log_slave_updates")
_NAMES = (
    *(name for name, *_ in _REQUIRED),
    "version",
    "server_uuid",
    "server_id",
    "hostname",
    "port",
    "gtid_mode",
    "gtid_domain_id",
    "group_replication_group_name",
    "read_only",
    *_UPDATES,
)


@dataclass(frozen=True, slots=True)
class _Replication:
    is_replica: bool
    standstill: str | None = None
    behind_seconds: float = 0.0
    doubt: str | None = None


def _replication(cursor: Any, variables: Mapping[str, str], *, is_mariadb: bool) -> _Replication:
    is_read_only = variables.get("read_only", "OFF").upper() not in _OFF
    try:
        rows = _replicas(cursor, is_mariadb=is_mariadb)
    except pymysql.err.OperationalError as error:
        if error.args[0] not in _DENIED:
            raise
        # MariaDB tells every account how many replication threads it has.
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Slaves_running'")
        row = cursor.fetchone()
        if row is not None and int(row[1]) > 0:
            raise FailedPrecondition("BINLOG_SETTINGS_INSUFFICIENT", _MONITOR) from error
        rows = []
    if rows and not is_read_only and not any(_runs(row, partly=True) for row in rows):
        # A promotion leaves a server so when it does not reset the replica's configuration.
        return _Replication(False, doubt=_PROMOTED)
    if not rows and variables.get("group_replication_group_name"):
        return _member_of_group(cursor, is_read_only=is_read_only)
    if not rows:
        return _Replication(False, _FENCED if is_read_only else None)
    if not all(_runs(row) for row in rows):
        return _Replication(True, _STOPPED)
    return _Replication(True, None, max(float(row.get("Seconds_Behind") or 0) for row in rows))


def _runs(row: Mapping[str, Any], *, partly: bool = False) -> bool:
    """Return whether both threads of a channel run; `partly`: whether one at least begins to."""
    threads = (row.get("IO_Running"), row.get("SQL_Running"))
    return threads != ("No", "No") if partly else threads == ("Yes", "Yes")


def _member_of_group(cursor: Any, *, is_read_only: bool) -> _Replication:
    """Return the state of a member of MySQL's group replication; a minority gets no changes."""
    try:
        cursor.execute(
            "SELECT MEMBER_ID = @@server_uuid, MEMBER_STATE"
            " FROM performance_schema.replication_group_members"
        )
    except pymysql.err.OperationalError as error:
        if error.args[0] != ER.TABLEACCESS_DENIED_ERROR:
            raise
        if is_read_only:
            raise FailedPrecondition("BINLOG_SETTINGS_INSUFFICIENT", _GROUP) from error
        return _Replication(False)
    rows = cursor.fetchall()
    online = [bool(is_own) for is_own, state in rows if state == "ONLINE"]
    is_heard = any(online) and 2 * len(online) > len(rows)
    return _Replication(is_read_only, None if is_heard else _APART)


_DENIED = frozenset({ER.SPECIFIC_ACCESS_DENIED_ERROR, ER.ACCESS_DENIED_ERROR})
_MONITOR = (
    "the server is a replica and does not say how it replicates: GRANT REPLICATION CLIENT"
    " (on MariaDB 10.5 and later REPLICA MONITOR) ON *.* to the relay's account"
)
_GROUP = (
    "the server is read-only in a group of servers and does not say how that stands:"
    " GRANT SELECT ON performance_schema.replication_group_members to the relay's account"
)
_APART = "the server is not online in its group, or only a minority of the group is"
_FENCED = "the server is read-only, and no replication from another server runs"
_STOPPED = "the server is a replica, and its replication does not run"
_PROMOTED = (
    "the server is writable and configured as a replica whose replication is stopped: if it was"
    " promoted, RESET REPLICA ALL (RESET SLAVE ALL) on it; if not, it lacks what its source changes"
)


def _replicas(cursor: Any, *, is_mariadb: bool) -> list[dict[str, Any]]:
    """Return the server's replication channels, with column names that both families share."""
    if is_mariadb:
        cursor.execute("SHOW ALL SLAVES STATUS")
    else:
        _execute_first_understood(cursor, "SHOW REPLICA STATUS", "SHOW SLAVE STATUS")
    names = [
        column[0]
        .removeprefix("Replica_")
        .removeprefix("Slave_")
        .removesuffix("_Source")
        .removesuffix("_Master")
        for column in cursor.description
    ]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _check_names(cursor: Any, schema: str, tables: Collection[str]) -> None:
    """Raise FailedPrecondition where a name here differs from the server's in case alone.

    What the account may not see cannot be compared.
    """
    quoted = schema.replace("`", "``")
    wrong = [
        *_in_another_case([schema], _shown(cursor, "SHOW DATABASES")),
        *_in_another_case(tables, _shown(cursor, f"SHOW TABLES FROM `{quoted}`")),
    ]
    if wrong:
        raise FailedPrecondition(
            "BINLOG_SETTINGS_INSUFFICIENT",
            "lower_case_table_names is 0, so that case matters: " + "; ".join(wrong),
        )


def _shown(cursor: Any, statement: str) -> list[str]:
    try:
        cursor.execute(statement)
    except pymysql.err.OperationalError:
        return []
    return [str(row[0]) for row in cursor.fetchall()]


def _in_another_case(names: Collection[str], there: Collection[str]) -> list[str]:
    by_lower = {name.lower(): name for name in there}
    return [
        f"{name} is called {by_lower[name.lower()]} there"
        for name in names
        if name not in there and name.lower() in by_lower
    ]


def _execute_first_understood(cursor: Any, statement: str, *others: str) -> None:
    try:
        cursor.execute(statement)
    except pymysql.err.ProgrammingError as error:
        if error.args[0] != ER.PARSE_ERROR or not others:
            raise
        _execute_first_understood(cursor, *others)
