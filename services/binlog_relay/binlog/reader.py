"""Reads one connection's worth of the binlog in a thread of its own.

pymysqlreplication speaks the protocol. Four of its habits would lose changes and are replaced: it
reconnects by itself in the middle of a statement, it trusts table ids across files, it skips events
it does not know, and it cannot read a statement with settings it does not know.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.constants.BINLOG import QUERY_EVENT, TABLE_MAP_EVENT
from pymysqlreplication.event import (
    ExecuteLoadQueryEvent,
    FormatDescriptionEvent,
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
from pymysqlreplication.exceptions import StatusVariableMismatch
from pymysqlreplication.packet import BinLogPacketWrapper
from pymysqlreplication.row_event import (
    DeleteRowsEvent,
    PartialUpdateRowsEvent,
    UpdateRowsEvent,
    WriteRowsEvent,
)

from mainapp.description import Description
from services.binlog_relay.binlog.server import MySqlSource, ServerState
from services.binlog_relay.binlog.table_maps import ReadableTableMapEvent
from services.binlog_relay.binlog.translator import EventTranslator
from services.binlog_relay.domain.packing import Item
from services.binlog_relay.domain.positions import BinlogPosition, PositionLostError, Resume


class _StatementEvent(QueryEvent):  # type: ignore[misc]
    """A statement whose settings are read up to the first that is newer than the library."""

    _settings_end: int | None = None

    def _read_status_vars_value_for_key(self, key: int) -> None:
        if self._settings_end is None:
            # The key's own byte has been read.
            self._settings_end = self.packet.read_bytes - 1 + self.status_vars_length
        try:
            super()._read_status_vars_value_for_key(key)
        except StatusVariableMismatch:
            self.packet.advance(self._settings_end - self.packet.read_bytes)


_EVENTS = (
    DeleteRowsEvent,
    ExecuteLoadQueryEvent,
    FormatDescriptionEvent,
    GtidEvent,
    HeartbeatLogEvent,
    MariadbBinLogCheckPointEvent,
    MariadbGtidEvent,
    NotImplementedEvent,
    PartialUpdateRowsEvent,
    ReadableTableMapEvent,
    RotateEvent,
    UpdateRowsEvent,
    WriteRowsEvent,
    XAPrepareEvent,
    XidEvent,
    _StatementEvent,
)
_CHECKSUM_BYTE: Final = -5  # a format description ends with the algorithm and four bytes
_CRC32: Final = 1
_SILENT_HEARTBEATS: Final = 5
CAUGHT_UP: Final = -1
_READ_FATAL: Final = 1236


class StreamEndedError(Exception):
    """The connection has ended or is silent; reading continues from the last transaction end."""


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where and how to begin to read."""

    position: BinlogPosition
    resume: Resume
    server: ServerState


class BinlogReader:
    """Reads until `stop`, an error or the connection's end; `deliver` may block it.

    When `last_event_at` (of the monotonic clock) shows an event, all before it has been delivered.
    `last_event_seconds` is when the server wrote that event; 0 before the first event with a time,
    and `CAUGHT_UP` while there is nothing to read. `read_to` is the file and offset behind it.
    """

    def __init__(
        self,
        source: MySqlSource,
        start: StreamStart,
        description: Description,
        deliver: Callable[[Sequence[Item]], None],
        *,
        server_id: int,
        heartbeat_seconds: float,
        max_record_bytes: int,
        bulk_above_bytes: int,
    ) -> None:
        self.last_event_at: float | None = None
        self.last_event_seconds = 0
        self.read_to: tuple[str, int] | None = None
        self._start = start
        self._deliver = deliver
        self._connections = _Connections()
        by_gtid = start.resume is Resume.BY_GTID
        # The library has no other place to say which class reads an event.
        classes = {QUERY_EVENT: _StatementEvent, TABLE_MAP_EVENT: ReadableTableMapEvent}
        BinLogPacketWrapper._BinLogPacketWrapper__event_map.update(classes)
        self._stream = BinLogStreamReader(
            connection_settings=source.connect_arguments(heartbeat_seconds * _SILENT_HEARTBEATS),
            pymysql_wrapper=self._connections,
            server_id=server_id,
            blocking=True,
            resume_stream=True,
            log_file=None if by_gtid else start.position.file,
            log_pos=None if by_gtid else start.position.offset,
            auto_position=start.position.gtid if by_gtid else None,
            # To the library it means "begin by GTID as MariaDB does", not what the server is.
            is_mariadb=by_gtid and start.server.is_mariadb,
            only_events=_EVENTS,
            filter_non_implemented_events=False,
            only_schemas=[start.server.stored_name(source.database)],
            only_tables=[start.server.stored_name(table) for table in description.tables],
            freeze_schema=True,
            slave_heartbeat=heartbeat_seconds,
            enable_logging=False,
        )
        self._translator = EventTranslator(
            source.database,
            description,
            start.server,
            start.position,
            max_record_bytes=max_record_bytes,
            bulk_above_bytes=bulk_above_bytes,
        )

    def run(self) -> None:
        """Read on the calling thread.

        Raises:
            PositionLostError: nothing can be read from where it was to begin.
            StreamEndedError: the connection is gone, or `stop` was called.
            pymysql.err.MySQLError: the server refused, such as for missing privileges.
        """
        try:
            while True:
                event = self._next_event()
                file = self._stream.log_file or self._start.position.file
                offset = self._stream.log_pos
                self.read_to = file, offset
                items = self._translator.items(event, file, offset)
                if items:
                    self._deliver(items)
        finally:
            # Closing sends a last packet, to a server that may not answer any more.
            with contextlib.suppress(Exception):
                self._stream.close()

    def stop(self) -> None:
        """Make `run` return soon, from any thread."""
        self._connections.shut()

    def _next_event(self) -> Any:
        try:
            event = self._stream.fetchone()
        except pymysql.err.MySQLError as error:
            code = error.args[0] if error.args else None
            text = str(error.args[1]) if len(error.args) > 1 else ""
            if code == _READ_FATAL and "same server_" not in text:
                raise PositionLostError(text) from error
            if code == _READ_FATAL or isinstance(error, pymysql.err.InterfaceError):
                raise StreamEndedError(text) from error
            raise
        if event is None:
            raise StreamEndedError("the server has ended the stream")
        self.last_event_at = time.monotonic()
        if isinstance(event, HeartbeatLogEvent):
            self.last_event_seconds = CAUGHT_UP
        elif event.timestamp:
            self.last_event_seconds = event.timestamp
        if isinstance(event, FormatDescriptionEvent):
            # The file says whether its events end with checksums, whatever was agreed with the
            # server, where binlog_checksum may have been changed since.
            has_checksums = event.packet.packet._data[_CHECKSUM_BYTE] == _CRC32
            self._stream._BinLogStreamReader__use_checksum = has_checksums
        if isinstance(event, RotateEvent):
            # Table ids begin anew with a restart of the server, which begins a file.
            self._stream.table_map = {}
        return event


class _Connections:
    """Opens the library's two connections, and never a second one for the stream."""

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
