"""Debezium's change events of MySQL and MariaDB, with the schema wrapper or without it.

The format is described in Debezium's documentation of these connectors.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from services.cdc_ingest.domain.formats.fields import (
    epoch_moment,
    image,
    mapping,
    text,
    transaction,
)
from services.cdc_ingest.domain.records import (
    Ignored,
    Image,
    Kind,
    LostTrack,
    Operation,
    Record,
    RowChange,
    UnreadableError,
)

_FORMAT = "debezium"
_OPERATIONS = {
    "c": Operation.INSERT,
    "u": Operation.UPDATE,
    "d": Operation.DELETE,
    "r": Operation.LOAD,
}
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_MAX_DECIMAL_CHARACTERS: Final = 64
# The SQL of a schema change that names no table, by its first words.
_LOSING_TRACK = {
    ("DROP", "DATABASE"): "drop-database",
    ("DROP", "SCHEMA"): "drop-database",
    ("DROP", "TABLE"): "drop-table",
    ("RENAME", "TABLE"): "rename-table",
    ("ALTER", "TABLE"): "alter-table",
    ("TRUNCATE", "TABLE"): "truncate-table",
}


class DebeziumDecoder:
    """Understands the value of one event; what `null` stands for is the tombstone of a key."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is an event, wrapped or not, or a tombstone."""
        if document is None:
            return True
        if not isinstance(document, dict):
            return False
        if "payload" in document and "schema" in document:
            return True
        return any(has(document) for has in (_is_row, _is_schema, _is_transaction, _is_flat)) or (
            _is_heartbeat(document)
        )

    def decode(self, document: object) -> tuple[Record, ...]:
        """Return the records of an event: one, or one for each table a schema change concerns.

        Raises:
            UnreadableError: an image is not of the form it must have, or the payload is unknown.
        """
        event = mapping(document)
        payload: object = document
        decimals: frozenset[str] = frozenset()
        if "payload" in event:
            payload, decimals = event["payload"], _decimal_columns(event.get("schema"))
        if payload is None:
            return (Ignored(Kind.TOMBSTONE, _FORMAT),)
        if not isinstance(payload, dict):
            raise UnreadableError("DEBEZIUM_PAYLOAD_UNKNOWN")
        return _records(payload, decimals)


def _is_row(event: Mapping[str, object]) -> bool:
    return isinstance(event.get("op"), str) and isinstance(event.get("source"), dict)


def _is_schema(event: Mapping[str, object]) -> bool:
    return "ddl" in event and isinstance(event.get("source"), dict)


def _is_transaction(event: Mapping[str, object]) -> bool:
    return event.get("status") in ("BEGIN", "END") and "event_count" in event


def _is_flat(event: Mapping[str, object]) -> bool:
    """The transformation that leaves the row alone, told to add the table and what was done."""
    return isinstance(event.get("__table"), str) and ("__op" in event or "__deleted" in event)


def _is_heartbeat(event: Mapping[str, object]) -> bool:
    return event.keys() == {"ts_ms"}


def _records(event: Mapping[str, object], decimals: frozenset[str]) -> tuple[Record, ...]:
    if _is_row(event):
        return (_row(event, decimals),)
    if _is_schema(event):
        return tuple(_schema_change(event))
    if _is_transaction(event):
        return (Ignored(Kind.TRANSACTION, _FORMAT),)
    if _is_flat(event):
        return (_flat_row(event, decimals),)
    if _is_heartbeat(event):
        return (Ignored(Kind.HEARTBEAT, _FORMAT, epoch_moment(event["ts_ms"], 1_000)),)
    raise UnreadableError("DEBEZIUM_PAYLOAD_UNKNOWN")


def _row(event: Mapping[str, object], decimals: frozenset[str]) -> Record:
    source = mapping(event.get("source"))
    table = text(source.get("table"))
    operation = text(event.get("op"))
    if operation == "t":
        return LostTrack(table, "truncate-table", _FORMAT)
    if operation == "m":
        return Ignored(Kind.CONTROL, _FORMAT)
    if not table:
        raise UnreadableError("DEBEZIUM_TABLE_MISSING")
    found = (image(event.get(side), "DEBEZIUM_IMAGE_NOT_AN_OBJECT") for side in _SIDES)
    return RowChange(
        table=table,
        operation=_OPERATIONS.get(operation, Operation.OTHER),
        images=tuple(_plain(each, decimals) for each in found if each),
        # A row of a snapshot was committed at some time before.
        committed_at=None if operation == "r" else _committed_at(source),
        captured_at=epoch_moment(event.get("ts_ms"), 1_000),
        transaction=_transaction(event, source),
        format=_FORMAT,
        wraps_unsigned=True,
    )


_SIDES = ("before", "after")


def _flat_row(event: Mapping[str, object], decimals: frozenset[str]) -> Record:
    is_deleted = str(event.get("__deleted")).lower() == "true"
    operation = _OPERATIONS.get(text(event.get("__op")), Operation.OTHER)
    row = {name: event[name] for name in event if not name.startswith("__")}
    return RowChange(
        table=text(event["__table"]),
        operation=Operation.DELETE if is_deleted else operation,
        images=(_plain(row, decimals),),
        committed_at=epoch_moment(event.get("__source_ts_ms"), 1_000),
        captured_at=epoch_moment(event.get("__ts_ms"), 1_000),
        format=_FORMAT,
        wraps_unsigned=True,
    )


def _committed_at(source: Mapping[str, object]) -> datetime | None:
    # Before 1.0 only seconds were told.
    return epoch_moment(source.get("ts_ms"), 1_000) or epoch_moment(source.get("ts_sec"), 1)


def _transaction(event: Mapping[str, object], source: Mapping[str, object]) -> str:
    told = mapping(event.get("transaction")).get("id")
    return transaction(told) or transaction(source.get("gtid"))


def _schema_change(event: Mapping[str, object]) -> Iterator[Record]:
    """A snapshot only announces the tables it is about to read."""
    source = mapping(event.get("source"))
    if str(source.get("snapshot")).lower() not in ("false", "none"):
        yield Ignored(Kind.SCHEMA, _FORMAT)
        return
    changes = event.get("tableChanges")
    found = dict(_table_changes(changes if isinstance(changes, list) else []))
    if not found:
        cause = _cause_of_sql(text(event.get("ddl")))
        tables = text(source.get("table")).split(",")
        found = {table.strip(): cause for table in tables}
    for table, cause in found.items():
        if cause is None:
            yield Ignored(Kind.SCHEMA, _FORMAT)
        else:
            yield LostTrack(table, cause, _FORMAT)


def _table_changes(changes: list[object]) -> Iterator[tuple[str, str | None]]:
    for change in map(mapping, changes):
        kind = text(change.get("type")).lower()
        for name in ("previousId", "id"):
            # "schema"."table", quotes included.
            table = text(change.get(name)).rpartition(".")[2].strip('"`')
            if table:
                yield table, None if kind == "create" else f"{kind or 'alter'}-table"


def _cause_of_sql(sql: str) -> str | None:
    first, second = [*sql.upper().split(None, 2), "", ""][:2]
    return _LOSING_TRACK.get((first, second))


def _decimal_columns(schema: object) -> frozenset[str]:
    """Return the whole-number columns that are written as base64 of their big-endian bytes."""
    fields = _fields(schema)
    sides = [side for side in fields if side.get("field") in _SIDES]
    # A flattened event has its columns where others have the sides.
    columns = [column for side in sides for column in _fields(side)] or fields
    return frozenset(
        text(column.get("field"))
        for column in columns
        if column.get("name") == _DECIMAL
        and text(mapping(column.get("parameters")).get("scale")) in ("", "0")
    )


def _fields(schema: object) -> list[Mapping[str, object]]:
    fields = mapping(schema).get("fields")
    return [mapping(each) for each in fields] if isinstance(fields, list) else []


def _plain(row: Image, decimals: frozenset[str]) -> Image:
    if not decimals:
        return row
    return {name: _number(row[name]) if name in decimals else row[name] for name in row}


def _number(value: object) -> object:
    if not isinstance(value, str) or len(value) > _MAX_DECIMAL_CHARACTERS:
        return value
    try:
        return int.from_bytes(base64.b64decode(value, validate=True), "big", signed=True)
    except binascii.Error:
        return value
