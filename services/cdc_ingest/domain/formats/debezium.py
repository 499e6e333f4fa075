"""Debezium's change events of MySQL and MariaDB, with the schema wrapper or without it.

The format is described in Debezium's documentation of these connectors.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from services.cdc_ingest.domain.formats.fields import (
    epoch_moment,
    image,
    mapping,
    opened,
    text,
    transaction,
)
from services.cdc_ingest.domain.formats.records import (
    ChangeRecord,
    Ignored,
    Image,
    Kind,
    LostTrack,
    Operation,
    Record,
    UnreadableError,
)
from services.cdc_ingest.domain.gtids import gtid_of
from services.cdc_ingest.domain.ordering import file_position, gtid_position

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
    """Decodes the value of one event; `null` is the tombstone of a key."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is an event, wrapped or not, or a tombstone."""
        if document is None:
            return True
        if not isinstance(document, dict):
            return False
        if "payload" in document:
            # The schema may be missing, and the payload may be a JSON text.
            payload = opened(document["payload"])
            if "schema" in document or (isinstance(payload, dict) and _kind(payload)):
                return True
            return payload is None and document.keys() <= _WRAPPER
        return _kind(document) is not None

    def decode(self, document: object) -> tuple[Record, ...]:
        """Return the records of an event: one, or one for each table a schema change concerns.

        Raises:
            UnreadableError: an image is malformed, or the payload is unknown.
        """
        event = mapping(document)
        payload: object = document
        decimals: frozenset[str] = frozenset()
        if "payload" in event:
            payload, decimals = opened(event["payload"]), _decimal_columns(event.get("schema"))
        if payload is None:
            return (Ignored(Kind.TOMBSTONE, _FORMAT),)
        if not isinstance(payload, dict):
            raise UnreadableError("DEBEZIUM_PAYLOAD_UNKNOWN")
        kind = _kind(payload)
        if kind == "row":
            return (_row(payload, decimals),)
        if kind == "schema":
            return tuple(_schema_change(payload))
        if kind == "transaction":
            return (Ignored(Kind.TRANSACTION, _FORMAT),)
        if kind == "flat":
            return (_flat_row(payload, decimals),)
        if kind == "heartbeat":
            return (Ignored(Kind.HEARTBEAT, _FORMAT, epoch_moment(payload["ts_ms"], 1_000)),)
        raise UnreadableError("DEBEZIUM_PAYLOAD_UNKNOWN")


_WRAPPER = frozenset({"payload", "schema", "key", "headers", "topic"})


def _kind(event: Mapping[str, object]) -> str | None:
    """Return the kind of the event; None if it is not one of Debezium.

    A flat event is the row itself, with the table and operation added.
    """
    if isinstance(event.get("op"), str) and isinstance(opened(event.get("source")), dict):
        return "row"
    if "ddl" in event and isinstance(event.get("source"), dict):
        return "schema"
    if event.get("status") in ("BEGIN", "END") and "event_count" in event:
        return "transaction"
    if isinstance(event.get("__table"), str) and ("__op" in event or "__deleted" in event):
        return "flat"
    return "heartbeat" if event.keys() == {"ts_ms"} else None


def _row(event: Mapping[str, object], decimals: frozenset[str]) -> Record:
    source = mapping(opened(event.get("source")))
    table = text(source.get("table"))
    operation = text(event.get("op"))
    if operation == "t":
        return LostTrack(table, "truncate-table", _FORMAT)
    if operation == "m":
        return Ignored(Kind.CONTROL, _FORMAT)
    if not table:
        raise UnreadableError("DEBEZIUM_TABLE_MISSING")
    found = (image(event.get(side), "DEBEZIUM_IMAGE_NOT_AN_OBJECT") for side in _SIDES)
    committed_at = None
    if operation != "r":
        # The commit time of a row in a snapshot is unknown. Before 1.0 there were only seconds.
        committed_at = epoch_moment(source.get("ts_ms"), 1_000)
        committed_at = committed_at or epoch_moment(source.get("ts_sec"), 1)
    transaction_id = mapping(event.get("transaction")).get("id")
    return ChangeRecord(
        table=table,
        operation=_OPERATIONS.get(operation, Operation.OTHER),
        images=tuple(_plain(each, decimals) for each in found if each),
        committed_at=committed_at,
        captured_at=epoch_moment(event.get("ts_ms"), 1_000),
        transaction=transaction(transaction_id) or transaction(source.get("gtid")),
        format=_FORMAT,
        wraps_unsigned=True,
        position=file_position(
            source.get("server_id"), source.get("file"), source.get("pos"), source.get("row")
        )
        or gtid_position(source.get("gtid")),
        gtid=gtid_of(source.get("gtid")),
    )


_SIDES = ("before", "after")


def _flat_row(event: Mapping[str, object], decimals: frozenset[str]) -> Record:
    is_deleted = str(event.get("__deleted")).lower() == "true"
    operation = _OPERATIONS.get(text(event.get("__op")), Operation.OTHER)
    row = {name: event[name] for name in event if not name.startswith("__")}
    return ChangeRecord(
        table=text(event["__table"]),
        operation=Operation.DELETE if is_deleted else operation,
        images=(_plain(row, decimals),),
        committed_at=epoch_moment(event.get("__source_ts_ms"), 1_000),
        captured_at=epoch_moment(event.get("__ts_ms"), 1_000),
        format=_FORMAT,
        wraps_unsigned=True,
        position=file_position(
            event.get("__source_server_id"),
            event.get("__source_file"),
            event.get("__source_pos"),
            event.get("__source_row"),
        )
        or gtid_position(event.get("__source_gtid")),
        gtid=gtid_of(event.get("__source_gtid")),
    )


def _schema_change(event: Mapping[str, object]) -> Iterator[Record]:
    """Yield the records of a schema change; in a snapshot it only describes the tables."""
    source = mapping(event.get("source"))
    if str(source.get("snapshot")).lower() not in ("false", "none"):
        yield Ignored(Kind.SCHEMA, _FORMAT)
        return
    found: dict[str, str | None] = {}
    changes = event.get("tableChanges")
    for change in map(mapping, changes if isinstance(changes, list) else ()):
        kind = text(change.get("type")).lower()
        for name in ("previousId", "id"):
            # "schema"."table", quotes included.
            table = text(change.get(name)).rpartition(".")[2].strip('"`')
            if table:
                found[table] = None if kind == "create" else f"{kind or 'alter'}-table"
    if not found:
        first, second = [*text(event.get("ddl")).upper().split(None, 2), "", ""][:2]
        cause = _LOSING_TRACK.get((first, second))
        found = {name.strip(): cause for name in text(source.get("table")).split(",")}
    for table, cause in found.items():
        if cause is None:
            yield Ignored(Kind.SCHEMA, _FORMAT)
        else:
            yield LostTrack(table, cause, _FORMAT)


def _decimal_columns(schema: object) -> frozenset[str]:
    """Return the integer columns that are written as base64 of their big-endian bytes."""
    fields = _fields(schema)
    sides = [side for side in fields if side.get("field") in _SIDES]
    # A flattened event has the columns in place of the images.
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
    """Return the row with its decimal columns as numbers; a value that is not base64 stays."""
    numbers: dict[str, int] = {}
    for name in decimals & row.keys():
        value = row[name]
        if isinstance(value, str) and len(value) <= _MAX_DECIMAL_CHARACTERS:
            with suppress(binascii.Error):
                content = base64.b64decode(value, validate=True)
                numbers[name] = int.from_bytes(content, "big", signed=True)
    return {**row, **numbers} if numbers else row
