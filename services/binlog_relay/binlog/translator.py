"""Turns binlog events into items to be published."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pymysqlreplication.event import (
    ExecuteLoadQueryEvent,
    GtidEvent,
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

from mainapp.description import Description, Table
from services.binlog_relay.binlog.rows import DecodingPlan, Image, decoding_plan
from services.binlog_relay.binlog.server import ServerState
from services.binlog_relay.binlog.values import UnreadableColumnError
from services.binlog_relay.domain.packing import (
    BulkRows,
    Gap,
    Item,
    RowChange,
    TransactionEnd,
)
from services.binlog_relay.domain.positions import BINLOG_RESET, BinlogPosition, PositionLostError
from services.binlog_relay.domain.statements import Loss, Scope, meaning_of
from services.binlog_relay.domain.transactions import Boundary
from services.binlog_relay.publish.dms import Origin, RecordWriter, control_record, server_name

# Event types of MySQL and MariaDB with changes that the library cannot read, and the reason by
# which they are counted.
_UNREADABLE: Mapping[int, str] = {
    **dict.fromkeys((6, 8, 10, 12), Loss.STATEMENT_FORMAT),
    **dict.fromkeys((20, 21, 22), "old_rows"),
    26: "incident",
    40: "compressed_transaction",
    165: "compressed_query",
    **dict.fromkeys(range(166, 172), "compressed_rows"),
}
_ANONYMOUS_GTID: Final = 34
_TAGGED_GTID: Final = 42
# Types without changes that the library passes on unread: blocks of a file that LOAD DATA names
# later, ignorable events, group replication's notes, a heartbeat's second version.
_WITHOUT_CHANGES: Final = frozenset({1, 7, 9, 11, 28, _ANONYMOUS_GTID, 36, 37, 41, _TAGGED_GTID})
_IGNORABLE_FLAG: Final = 0x80
_NO_BACKSLASH_ESCAPES: Final = 1 << 20  # a bit of sql_mode
_STANDALONE_FLAG: Final = 1
_HEADER_BYTES: Final = 20  # with the protocol's OK byte in front
_GTID_BYTES: Final = 49  # flags, source, number, logical clock, and the commit's time

# A transaction of so many rows is no bulk change, however long their texts are: cdc_ingest, too,
# has small changes go first by the number of people.
_ROWS_BEFORE_BULK = 50

_log = logging.getLogger(__name__)


class EventTranslator:
    """Turns events into items; it keeps the transaction and its GTID from event to event."""

    def __init__(
        self,
        schema: str,
        description: Description,
        server: ServerState,
        start: BinlogPosition,
        *,
        max_record_bytes: int,
        bulk_above_bytes: int,
    ) -> None:
        self._schema = schema
        self._max_record_bytes = max_record_bytes
        self._bulk_above_bytes = bulk_above_bytes or math.inf
        self._tables = description.tables
        self._scope = Scope(schema, description.tables)
        self._server = server.identity
        self._server_name = server_name(self._server)
        self._gtids = server.gtids(start.gtid)
        self._boundary = Boundary()
        self._gtid: str | None = None
        self._committed_at_us = 0
        self._transaction_bytes = 0
        self._transaction_rows = 0
        self._is_bulk = False
        self._plans: dict[int, _Plans] = {}

    def items(self, event: Any, file: str, offset: int) -> list[Item]:
        """Return the items of one event that ends at `offset`; a branch for each kind."""
        if isinstance(event, (WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent)):
            return self._rows(event, file, offset)
        if isinstance(event, (XidEvent, XAPrepareEvent)):
            return [self._end(file, offset)]
        if isinstance(event, QueryEvent):
            return self._statement(event, file, offset)
        if isinstance(event, ExecuteLoadQueryEvent):
            # LOAD DATA in statement format; the event stands inside a transaction.
            return [Gap(Loss.STATEMENT_FORMAT)]
        if isinstance(event, MariadbGtidEvent):
            self._begin(event.gtid, event.timestamp * 1_000_000)
            if not event.flags & _STANDALONE_FLAG:
                self._boundary.begin()
        elif isinstance(event, GtidEvent):
            self._begin(event.gtid, _commit_microseconds(event))
        elif isinstance(event, RotateEvent):
            # The server also sends a rotation without a time, only to name the file.
            if event.timestamp and not self._boundary.is_inside:
                return [self._end(file, offset)]
        elif isinstance(event, MariadbBinLogCheckPointEvent):
            # Written between transactions, some time after a rotation.
            if not self._boundary.is_inside:
                return [self._end(file, offset)]
        elif isinstance(event, NotImplementedEvent):
            kind = event.event_type
            if kind == _ANONYMOUS_GTID:
                self._begin(None, _commit_microseconds(event))
            elif kind == _TAGGED_GTID:
                # Its layout differs; the header has the second, and the set goes on without it.
                self._begin(None, event.timestamp * 1_000_000)
            if kind not in _WITHOUT_CHANGES and not event.packet.flags & _IGNORABLE_FLAG:
                return [Gap(_UNREADABLE.get(kind, "unknown_event"))]
        return []

    def _begin(self, gtid: str | None, committed_at_us: int) -> None:
        self._gtid = gtid
        self._committed_at_us = committed_at_us

    def _end(self, file: str, offset: int) -> TransactionEnd:
        self._boundary.end()
        if self._gtid is not None:
            if not self._gtids.add(self._gtid):
                raise PositionLostError("a transaction's number comes again", BINLOG_RESET)
            self._gtid = None
        self._committed_at_us = self._transaction_bytes = self._transaction_rows = 0
        self._is_bulk = False
        return TransactionEnd(BinlogPosition(self._server, file, offset, str(self._gtids)))

    def _statement(self, event: Any, file: str, offset: int) -> list[Item]:
        meaning = meaning_of(
            event.query,
            self._scope,
            current_schema=event.schema.decode("utf-8", "replace"),
            # The schemas whose rows the statement writes: MySQL names them, MariaDB does not.
            written_schemas=[
                name.decode("utf-8", "replace")
                for name in getattr(event, "mts_accessed_db_names", [])
            ],
            has_backslash_escapes=not getattr(event, "sql_mode", 0) & _NO_BACKSLASH_ESCAPES,
        )
        items: list[Item] = []
        if meaning.loss is not None:
            items.append(Gap(meaning.loss))
        for found in meaning.definitions:
            self._plans.clear()
            captured_at_us = time.time_ns() // 1000
            origin = self._origin(event, found.table, file, offset)
            body = control_record(origin, found.operation, captured_at_us)
            items.append(RowChange(body, captured_at_us, origin.committed_at_us))
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
            server=self._server_name,
            gtid=self._gtid,
        )

    def _rows(self, event: Any, file: str, offset: int) -> list[Item]:
        self._boundary.begin()
        if isinstance(event, PartialUpdateRowsEvent):
            return [Gap("partial_json_update")]
        name = self._scope.described(event.schema, event.table)
        if name is None:
            return []
        table = self._tables[name]
        try:
            plans = self._plans_of(event, table)
        except UnreadableColumnError as error:
            _log.error("rows_unreadable", extra={"table": name, "error": str(error)})
            # The next description of the table may be complete.
            event.table_map.pop(event.table_id, None)
            return [Gap("unreadable_rows")]
        captured_at_us = time.time_ns() // 1000
        origin = self._origin(event, name, file, offset)
        rows = _RowEvent(
            plans=plans,
            data=event.packet.read(event.event_size - event.packet.read_bytes),
            bitmaps=[event.columns_present_bitmap],
            writer=RecordWriter(
                origin, _OPERATIONS[type(event)], captured_at_us, self._max_record_bytes
            ),
            identifying=_identifying(table),
            captured_at_us=captured_at_us,
            committed_at_us=origin.committed_at_us,
        )
        if isinstance(event, UpdateRowsEvent):
            rows.bitmaps.append(event.columns_present_bitmap2)
        is_old = not isinstance(event, WriteRowsEvent)
        if is_old and plans.full.lacks(event.columns_present_bitmap, rows.identifying):
            # A session that logs less than FULL does not say whose row it was before.
            return [Gap("partial_image"), *rows.changes()]
        self._transaction_bytes += len(rows.data)
        if not self._is_bulk and self._transaction_bytes > self._bulk_above_bytes:
            # A few rows are no bulk change, however long their texts are.
            left = _ROWS_BEFORE_BULK - self._transaction_rows
            self._is_bulk = rows.has_more_than(left)
        if self._is_bulk and rows.is_uniform:
            return [BulkRows(len(rows.data), origin.committed_at_us, rows.bulk_change)]
        changes: list[Item] = list(rows.changes())
        self._transaction_rows += len(changes)
        return changes

    def _plans_of(self, event: Any, table: Table) -> "_Plans":
        described = event.table_map[event.table_id]
        plans = self._plans.get(event.table_id)
        if plans is None or plans.described is not described:
            identifying = _identifying(table)
            full = decoding_plan(described.columns, table.columns, identifying)
            wanted = identifying.union(table.compared)
            compared = decoding_plan(described.columns, wanted, identifying)
            plans = self._plans[event.table_id] = _Plans(described, full, compared)
            if full.unread:
                extra = {"table": event.table, "columns": full.unread}
                _log.warning("columns_not_read", extra=extra)
        return plans


class _Plans(NamedTuple):
    """How to decode the rows that a table map describes: in full, and as far as bulk rows are."""

    described: Any
    full: DecodingPlan
    compared: DecodingPlan


@dataclass(frozen=True, slots=True)
class _RowEvent:
    """The rows of one event, not decoded yet; an update has two bitmaps of columns, two images."""

    plans: _Plans
    data: bytes
    bitmaps: list[bytes]
    writer: RecordWriter
    identifying: frozenset[str]
    captured_at_us: int
    committed_at_us: int

    @property
    def is_uniform(self) -> bool:
        """Whether all images have the same columns."""
        return len(set(self.bitmaps)) == 1

    def has_more_than(self, count: int) -> bool:
        """Return whether there are more than so many rows."""
        kinds = len(self.bitmaps)
        images = self.plans.compared.images(self.data, self.bitmaps, most=(count + 1) * kinds)
        return len(images) > count * kinds

    def changes(self) -> Iterator[RowChange]:
        """Yield a record for each row, with all described columns."""
        befores, afters = self._images(self.plans.full)
        for place, after in enumerate(afters):
            before = befores[place] if befores else None
            body = self.writer.write(after, before, self.identifying)
            yield RowChange(body, self.captured_at_us, self.committed_at_us)

    def bulk_change(self) -> RowChange:
        """Return one record of all rows, with the columns that consumers need of bulk changes."""
        befores, afters = self._images(self.plans.compared)
        body = self.writer.write_rows(afters, befores, self.identifying)
        return RowChange(body, self.captured_at_us, self.committed_at_us, len(afters))

    def _images(self, plan: DecodingPlan) -> tuple[Sequence[Image], Sequence[Image]]:
        """Return the images before, which only updates have, and those after."""
        images = plan.images(self.data, self.bitmaps)
        return (images[::2], images[1::2]) if len(self.bitmaps) == 2 else ([], images)


def _identifying(table: Table) -> frozenset[str]:
    return frozenset({table.key, table.user.column})


_OPERATIONS: Mapping[type[Any], str] = {
    WriteRowsEvent: "insert",
    UpdateRowsEvent: "update",
    DeleteRowsEvent: "delete",
}


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
    # The highest bit says that the commit time of the first server in a chain follows.
    return microseconds & ~(1 << 55)
