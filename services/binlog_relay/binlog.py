"""One connection's worth of the binlog, read in a thread of its own and turned into items.

pymysqlreplication speaks the protocol. Three of its habits would lose changes and are taken from
it: it reconnects by itself in the middle of a statement, it trusts table ids across files, and it
passes over events it does not know.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.event import (
    GtidEvent,
    HeartbeatLogEvent,
    MariadbBinLogCheckPointEvent,
    MariadbGtidEvent,
    NotImplementedEvent,
    QueryEvent,
    RotateEvent,
    XAPrepareEvent,
    XidEvent,
)
from pymysqlreplication.row_event import (
    DeleteRowsEvent,
    PartialUpdateRowsEvent,
    UpdateRowsEvent,
    WriteRowsEvent,
)

from mainapp.description import Description
from services.binlog_relay.dms import Origin, RecordWriter, control_record
from services.binlog_relay.domain.packing import BlindSpot, Change, Item, Mark
from services.binlog_relay.domain.positions import Position, Resume
from services.binlog_relay.domain.transactions import Boundary, definitions_of, loss_of
from services.binlog_relay.mysql_server import ServerState, Source
from services.binlog_relay.rows import Image, Plan, plan

_log = logging.getLogger(__name__)

_EVENTS = (
    DeleteRowsEvent,
    GtidEvent,
    HeartbeatLogEvent,
    MariadbBinLogCheckPointEvent,
    MariadbGtidEvent,
    NotImplementedEvent,
    PartialUpdateRowsEvent,
    QueryEvent,
    RotateEvent,
    UpdateRowsEvent,
    WriteRowsEvent,
    XAPrepareEvent,
    XidEvent,
)
# Event types of MySQL and MariaDB that hold changes the library cannot read, and by what name
# they are counted.
_UNREADABLE: Mapping[int, str] = {
    26: "incident",
    40: "compressed_transaction",
    165: "compressed_query",
    **dict.fromkeys(range(166, 172), "compressed_rows"),
}
_ANONYMOUS_GTID: Final = 34
_STANDALONE_FLAG: Final = 1
_HEADER_BYTES: Final = 20  # with the protocol's OK byte in front
_GTID_BYTES: Final = 49  # flags, source, number, logical clock, and the commit's time
_SILENT_HEARTBEATS: Final = 5
CAUGHT_UP: Final = -1
_READ_FATAL: Final = 1236


class PositionLostError(Exception):
    """The server cannot continue from the position: purged, or not a place in its binlog."""


class StreamEndedError(Exception):
    """The connection has ended or fallen silent; reading goes on from the last mark."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where and how to begin to read."""

    position: Position
    resume: Resume
    server: ServerState


class BinlogReader:
    """Reads until `stop`, an error or the connection's end; `deliver` may block it.

    When `last_event_at` (of the monotonic clock) shows an event, all before it has been delivered.
    `last_event_seconds` is when the server wrote that event; 0 before the first that tells, and
    `CAUGHT_UP` while there is nothing to read.
    """

    def __init__(
        self,
        source: Source,
        start: Start,
        description: Description,
        deliver: Callable[[Sequence[Item]], None],
        *,
        server_id: int,
        heartbeat_seconds: float,
    ) -> None:
        self.last_event_at: float | None = None
        self.last_event_seconds = 0
        self._start = start
        self._deliver = deliver
        self._schema = source.database
        self._connections = _Connections()
        self._stream = _stream(
            source, start, description, self._connections, server_id, heartbeat_seconds
        )
        self._translator = _Translator(source.database, description, start)

    def run(self) -> None:
        """Read on the calling thread.

        Raises:
            PositionLostError: nothing can be read from where it was to begin.
            StreamEndedError: the connection is gone, or `stop` was called.
            pymysql.err.MySQLError: it was refused, such as for missing privileges.
        """
        try:
            while True:
                items = self._translator.items(self._next(), self._file, self._stream.log_pos)
                if items:
                    self._deliver(items)
        finally:
            # Closing says goodbye to a server that may not listen any more.
            with contextlib.suppress(Exception):
                self._stream.close()

    def stop(self) -> None:
        """Make `run` return soon, from any thread."""
        self._connections.shut()

    @property
    def _file(self) -> str:
        return self._stream.log_file or self._start.position.file

    def _next(self) -> Any:
        try:
            event = self._stream.fetchone()
        except pymysql.err.MySQLError as error:
            raise _meaning(error) from error
        if event is None:
            raise StreamEndedError("the server has ended the stream")
        self.last_event_at = time.monotonic()
        if isinstance(event, HeartbeatLogEvent):
            self.last_event_seconds = CAUGHT_UP
        elif event.timestamp:
            self.last_event_seconds = event.timestamp
        if isinstance(event, RotateEvent):
            # Table ids begin anew with a restart of the server, which begins a file.
            self._stream.table_map = {}
        return event


class _Connections:
    """Opens the library's two connections, but never a second one for the stream."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._is_shut = False

    def __call__(self, **arguments: Any) -> Any:
        # The library still uses the name that PyMySQL has given up, and only for the other one.
        database = arguments.pop("db", None)
        is_stream = database is None
        if self._is_shut or (is_stream and self._stream is not None):
            raise StreamEndedError("the connection to the binlog has ended")
        connection = pymysql.connect(database=database, **arguments)
        if is_stream:
            self._stream = connection
        return connection

    def shut(self) -> None:
        self._is_shut = True
        sock = getattr(self._stream, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _stream(
    source: Source,
    start: Start,
    description: Description,
    connections: _Connections,
    server_id: int,
    heartbeat_seconds: float,
) -> Any:
    by_gtid = start.resume is Resume.BY_GTID
    return BinLogStreamReader(
        connection_settings=source.connect_arguments(heartbeat_seconds * _SILENT_HEARTBEATS),
        pymysql_wrapper=connections,
        server_id=server_id,
        blocking=True,
        resume_stream=True,
        log_file=None if by_gtid else start.position.file,
        log_pos=None if by_gtid else start.position.offset,
        auto_position=start.position.gtid if by_gtid else None,
        # The library takes this to mean "begin by GTID as MariaDB does", not what the server is.
        is_mariadb=by_gtid and start.server.is_mariadb,
        only_events=_EVENTS,
        filter_non_implemented_events=False,
        only_schemas=[source.database],
        only_tables=list(description.tables),
        freeze_schema=True,
        slave_heartbeat=heartbeat_seconds,
        enable_logging=False,
    )


def _meaning(error: pymysql.err.MySQLError) -> Exception:
    code = error.args[0] if error.args else None
    text = str(error.args[1]) if len(error.args) > 1 else ""
    if code == _READ_FATAL and "same server_" not in text:
        return PositionLostError(text)
    if code == _READ_FATAL or isinstance(error, pymysql.err.InterfaceError):
        return StreamEndedError(text)
    return error


class _Translator:
    """Turns events into items, keeping what spans events: the transaction and its GTID."""

    def __init__(self, schema: str, description: Description, start: Start) -> None:
        self._schema = schema
        self._tables = description.tables
        self._server = start.server.identity
        self._gtids = start.server.gtids(start.position.gtid)
        self._boundary = Boundary()
        self._gtid: str | None = None
        self._committed_at_us = 0
        self._plans: dict[int, tuple[object, Plan]] = {}

    def items(self, event: Any, file: str, offset: int) -> list[Item]:
        """Return what one event that ends at `offset` amounts to; a branch for each kind."""
        if isinstance(event, (WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent)):
            return self._rows(event, file, offset)
        if isinstance(event, (XidEvent, XAPrepareEvent)):
            return [self._end(file, offset)]
        if isinstance(event, QueryEvent):
            return self._statement(event, file, offset)
        if isinstance(event, MariadbGtidEvent):
            self._begin(event.gtid, event.timestamp * 1_000_000)
            if not event.flags & _STANDALONE_FLAG:
                self._boundary.begin()
        elif isinstance(event, GtidEvent):
            self._begin(event.gtid, _commit_microseconds(event))
        elif isinstance(event, RotateEvent):
            # A rotation the server makes up to name the file says nothing new.
            if event.timestamp and not self._boundary.is_inside:
                return [self._end(file, offset)]
        elif isinstance(event, MariadbBinLogCheckPointEvent):
            # Written between transactions, some time after a rotation.
            if not self._boundary.is_inside:
                return [self._end(file, offset)]
        elif isinstance(event, NotImplementedEvent):
            return self._unknown(event)
        return []

    def _begin(self, gtid: str | None, committed_at_us: int) -> None:
        self._gtid = gtid
        self._committed_at_us = committed_at_us

    def _end(self, file: str, offset: int) -> Mark:
        self._boundary.end()
        if self._gtid is not None:
            self._gtids.add(self._gtid)
            self._gtid = None
        self._committed_at_us = 0
        return Mark(Position(self._server, file, offset, str(self._gtids)))

    def _unknown(self, event: Any) -> list[Item]:
        if event.event_type == _ANONYMOUS_GTID:
            self._begin(None, _commit_microseconds(event))
        reason = _UNREADABLE.get(event.event_type)
        return [] if reason is None else [BlindSpot(reason)]

    def _statement(self, event: Any, file: str, offset: int) -> list[Item]:
        current_schema = event.schema.decode("utf-8", "replace")
        items: list[Item] = []
        loss = loss_of(event.query, current_schema, self._schema)
        if loss is not None:
            items.append(BlindSpot(loss))
        for found in definitions_of(event.query, current_schema, self._schema, self._tables):
            self._plans.clear()
            captured_at_us = time.time_ns() // 1000
            origin = self._origin(event, found.table, file, offset)
            body = control_record(origin, found.operation, captured_at_us)
            items.append(Change(body, captured_at_us, origin.committed_at_us))
        if self._boundary.pass_statement(event.query):
            items.append(self._end(file, offset))
        return items

    def _origin(self, event: Any, table: str, file: str, offset: int) -> Origin:
        number = self._gtid.replace("-", ":").rpartition(":")[2] if self._gtid else ""
        transaction_id = int(number) if number.isdigit() else offset
        return Origin(
            schema=self._schema,
            table=table,
            committed_at_us=self._committed_at_us or event.timestamp * 1_000_000,
            transaction_id=transaction_id,
            stream_position=f"{file}:{offset}:0:{offset}:{transaction_id}:{file}:{offset}",
        )

    def _rows(self, event: Any, file: str, offset: int) -> list[Item]:
        self._boundary.begin()
        if isinstance(event, PartialUpdateRowsEvent):
            return [BlindSpot("partial_json_update")]
        table = self._tables[event.table]
        captured_at_us = time.time_ns() // 1000
        origin = self._origin(event, event.table, file, offset)
        writer = RecordWriter(origin, _OPERATIONS[type(event)], captured_at_us)
        befores, afters = _paired(event, self._plan(event, table.columns))
        leading = {table.key, table.user.column}
        return [
            Change(writer.write(after, before, leading), captured_at_us, origin.committed_at_us)
            for before, after in zip(befores, afters, strict=True)
        ]

    def _plan(self, event: Any, wanted: Mapping[str, object]) -> Plan:
        described = event.table_map[event.table_id]
        known = self._plans.get(event.table_id)
        if known is not None and known[0] is described:
            return known[1]
        made = plan(described.columns, wanted)
        self._plans[event.table_id] = (described, made)
        return made


_OPERATIONS: Mapping[type[Any], str] = {
    WriteRowsEvent: "insert",
    UpdateRowsEvent: "update",
    DeleteRowsEvent: "delete",
}


def _paired(event: Any, rows: Plan) -> tuple[Sequence[Image | None], Sequence[Image]]:
    """Return the images before, which only updates have, and those that DMS calls the data."""
    rest = event.packet.read(event.event_size - event.packet.read_bytes)
    if not isinstance(event, UpdateRowsEvent):
        images = rows.images(rest, [event.columns_present_bitmap])
        return [None] * len(images), images
    images = rows.images(rest, [event.columns_present_bitmap, event.columns_present_bitmap2])
    return images[::2], images[1::2]


def _commit_microseconds(event: Any) -> int:
    body = event.packet.packet._data[_HEADER_BYTES : _HEADER_BYTES + _GTID_BYTES]
    return commit_microseconds(body, event.timestamp, event.mysql_version)


def commit_microseconds(body: bytes, header_seconds: int, version: tuple[int, ...]) -> int:
    """Return when a MySQL transaction was committed, from the body of its GTID event.

    Since MySQL 8.0.1 the time stands there in microseconds, which the library does not read.
    Older servers give the header's whole seconds.
    """
    if len(body) < _GTID_BYTES or version < (8, 0, 1):
        return header_seconds * 1_000_000
    microseconds = int.from_bytes(body[_GTID_BYTES - 7 : _GTID_BYTES], "little")
    # The highest bit only says that another time, of the first server in a chain, follows.
    return microseconds & ~(1 << 55)
