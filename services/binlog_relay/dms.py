"""The record format of AWS DMS with Kinesis or Kafka targets, as single-line JSON.

Like DMS with IncludeNullAndEmpty, IncludeTransactionDetails and a before-image of all columns.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.binlog_relay.rows import Image

MAX_RECORD_BYTES: Final = 180_000
"""Longer records are cut down to the columns that lead to the person: consumers re-read anyway."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where in the binlog a record comes from; `committed_at_us` is microseconds of the epoch."""

    schema: str
    table: str
    committed_at_us: int
    transaction_id: int
    stream_position: str


class RecordWriter:
    """Writes the records of one row event; they share their metadata."""

    def __init__(self, origin: Origin, operation: str, captured_at_us: int) -> None:
        self._metadata = orjson.Fragment(
            orjson.dumps(
                {
                    "timestamp": iso_moment(captured_at_us),
                    "record-type": "data",
                    "operation": operation,
                    "partition-key-type": "schema-table",
                    "schema-name": origin.schema,
                    "table-name": origin.table,
                    "transaction-id": origin.transaction_id,
                    "commit-timestamp": iso_moment(origin.committed_at_us),
                    "stream-position": origin.stream_position,
                }
            )
        )

    def write(self, data: Image, before: Image | None, leading: Collection[str]) -> bytes:
        """Return one record; a very long one keeps only the `leading` columns."""
        record = self._write(data, before)
        if len(record) <= MAX_RECORD_BYTES:
            return record
        kept = _only(before, leading) if before is not None else None
        return self._write(_only(data, leading), kept)

    def _write(self, data: Image, before: Image | None) -> bytes:
        document: dict[str, Any] = {"data": data}
        if before is not None:
            document["before-image"] = before
        document["metadata"] = self._metadata
        return _acceptable(orjson.dumps(document))


def control_record(origin: Origin, operation: str, captured_at_us: int) -> bytes:
    """Return the record of a change of the table itself; its new definition is not included."""
    return orjson.dumps(
        {
            "control": {},
            "metadata": {
                "timestamp": iso_moment(captured_at_us),
                "record-type": "control",
                "operation": operation,
                "partition-key-type": "task-id",
                "schema-name": origin.schema,
                "table-name": origin.table,
                "transaction-id": origin.transaction_id,
                "commit-timestamp": iso_moment(origin.committed_at_us),
                "stream-position": origin.stream_position,
            },
        }
    )


def heartbeat_record(schema: str, heard_at_us: int, committed_at_us: int) -> bytes:
    """Return the record that says the capture is alive, and how far it has published."""
    return orjson.dumps(
        {
            "metadata": {
                "timestamp": iso_moment(heard_at_us),
                "record-type": "control",
                "operation": "heartbeat",
                "partition-key-type": "task-id",
                "schema-name": schema,
                "commit-timestamp": iso_moment(committed_at_us),
            }
        }
    )


def iso_moment(microseconds: int) -> str:
    """Return the UTC time in ISO 8601 with six digits of fraction and a Z."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:06d}Z"


def _only(image: Image, columns: Collection[str]) -> Image:
    return {name: value for name, value in image.items() if name in columns}


def _acceptable(document: bytes) -> bytes:
    """Escape the two characters that JSON allows and SQS refuses, U+FFFE and U+FFFF."""
    if b"\xef\xbf\xbe" not in document and b"\xef\xbf\xbf" not in document:
        return document
    return document.replace(b"\xef\xbf\xbe", b"\\ufffe").replace(b"\xef\xbf\xbf", b"\\uffff")
