"""The record format of AWS DMS with Kinesis or Kafka targets, as single-line JSON.

Like DMS with IncludeNullAndEmpty, IncludeTransactionDetails and a before-image of all columns.
In addition, `source-server` in the metadata names the server that a `stream-position` is of, and
`source-gtid` the transaction where it has a GTID. The record of a bulk transaction is ours: it has
the rows of one row event, as lists of values.
"""

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

# The values of a row by column.
Image: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where in the binlog a record comes from; `committed_at_us` is microseconds of the epoch.

    `server` is different for each server and says nothing else about it. `gtid` is that of the
    transaction, if it has one.
    """

    schema: str
    table: str
    committed_at_us: int
    transaction_id: int
    stream_position: str
    server: str
    gtid: str | None = None


class RecordWriter:
    """Writes the records of one row event; they share their metadata.

    A record above `max_record_bytes` keeps only the columns that identify the user: consumers read
    the row again anyway.
    """

    def __init__(
        self, origin: Origin, operation: str, captured_at_us: int, max_record_bytes: int
    ) -> None:
        self._max_record_bytes = max_record_bytes
        metadata = {
            "timestamp": iso_moment(captured_at_us),
            "record-type": "data",
            "operation": operation,
            "partition-key-type": "schema-table",
            "schema-name": origin.schema,
            "table-name": origin.table,
            "transaction-id": origin.transaction_id,
            "commit-timestamp": iso_moment(origin.committed_at_us),
            "stream-position": origin.stream_position,
            "source-server": origin.server,
        }
        if origin.gtid is not None:
            metadata["source-gtid"] = origin.gtid
        self._metadata = orjson.Fragment(orjson.dumps(metadata))

    def write(self, data: Image, before: Image | None, identifying: Collection[str]) -> bytes:
        """Return one record; a too long one keeps only the `identifying` columns."""
        record = self._write(data, before)
        if len(record) <= self._max_record_bytes:
            return record
        kept = _only(before, identifying) if before is not None else None
        return self._write(_only(data, identifying), kept)

    def write_rows(
        self, rows: Sequence[Image], befores: Sequence[Image], identifying: Collection[str]
    ) -> bytes:
        """Return one record of all these rows, which have the same columns.

        `befores` is empty unless each has an image before. A too long record keeps only the
        `identifying` columns.
        """
        record = self._write_rows(rows, befores)
        if len(record) <= self._max_record_bytes:
            return record
        return self._write_rows(
            [_only(row, identifying) for row in rows], [_only(row, identifying) for row in befores]
        )

    def _write_rows(self, rows: Sequence[Image], befores: Sequence[Image]) -> bytes:
        document: dict[str, Any] = {
            "columns": list(rows[0]) if rows else [],
            "rows": [list(row.values()) for row in rows],
        }
        if befores:
            document["before-rows"] = [list(row.values()) for row in befores]
        return self._dumped(document)

    def _write(self, data: Image, before: Image | None) -> bytes:
        document: dict[str, Any] = {"data": data}
        if before is not None:
            document["before-image"] = before
        return self._dumped(document)

    def _dumped(self, document: dict[str, Any]) -> bytes:
        document["metadata"] = self._metadata
        record = orjson.dumps(document)
        # JSON allows U+FFFE and U+FFFF, and SQS refuses them.
        if b"\xef\xbf\xbe" not in record and b"\xef\xbf\xbf" not in record:
            return record
        return record.replace(b"\xef\xbf\xbe", b"\\ufffe").replace(b"\xef\xbf\xbf", b"\\uffff")


def control_record(origin: Origin, operation: str, captured_at_us: int) -> bytes:
    """Return the record of a change of the table itself; its new definition is not included."""
    metadata = _control_metadata(operation, captured_at_us) | {
        "schema-name": origin.schema,
        "table-name": origin.table,
        "transaction-id": origin.transaction_id,
        "commit-timestamp": iso_moment(origin.committed_at_us),
        "stream-position": origin.stream_position,
        "source-server": origin.server,
    }
    return orjson.dumps({"control": {}, "metadata": metadata})


def server_name(identity: str) -> str:
    """Return the name of a server in records: a hash, since the identity may name a host."""
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


def heartbeat_record(schema: str, heard_at_us: int, committed_at_us: int) -> bytes:
    """Return a record that says that the capture is alive and how far it has published."""
    metadata = _control_metadata("heartbeat", heard_at_us) | {
        "schema-name": schema,
        "commit-timestamp": iso_moment(committed_at_us),
    }
    return orjson.dumps({"metadata": metadata})


def probe_record(captured_at_us: int) -> bytes:
    """Return a record without meaning; the consumer ignores its operation."""
    return orjson.dumps({"metadata": _control_metadata("probe", captured_at_us)})


def _control_metadata(operation: str, timestamp_us: int) -> dict[str, Any]:
    return {
        "timestamp": iso_moment(timestamp_us),
        "record-type": "control",
        "operation": operation,
        "partition-key-type": "task-id",
    }


def iso_moment(microseconds: int) -> str:
    """Return the UTC time in ISO 8601 with six digits of fraction and a Z."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:06d}Z"


def _only(image: Image, columns: Collection[str]) -> Image:
    return {name: value for name, value in image.items() if name in columns}
