"""One change of a row in MariaDB, as each format writes it."""

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, cast

import pyarrow as arrow
import pyarrow.parquet

from mainapp import description
from services.cdc_ingest.domain.formats.records import ChangeFile
from services.cdc_ingest.domain.staleness import Observations, RowObserver
from services.cdc_ingest.files.file_reader import FileReader
from services.cdc_ingest.files.object_store import ObjectStore
from services.cdc_ingest.sqs.message_reader import read_message
from tests.unit.cdc_ingest.bodies import (
    PEOPLE,
    arrival,
    debezium,
    dms,
    kinesis,
    maxwell,
    message,
    s3_record,
)

Row = Mapping[str, Any]
OBSERVER: Final = RowObserver(description.load())
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"


class Zero(Enum):
    """The zero date of MySQL."""

    DATE = "0000-00-00"
    DATETIME = "0000-00-00 00:00:00"


@dataclass(frozen=True)
class Change:
    """A row before and after; None where there is none."""

    table: str
    before: Row | None
    after: Row | None

    @property
    def operation(self) -> str:
        """As DMS and Maxwell call it."""
        if self.before is None:
            return "insert"
        return "delete" if self.after is None else "update"


Tell = Callable[[Change], Observations]


def _read(body: object) -> Observations:
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    found = read_message(message(text), PEOPLE, OBSERVER)
    assert found.demand.fault is None
    return found.observations


def _spelt(row: Row | None, spell: Callable[[Any], object]) -> dict[str, object] | None:
    return None if row is None else {name: spell(value) for name, value in row.items()}


def _without(row: dict[str, object] | None, *values: object) -> dict[str, object] | None:
    return row and {n: v for n, v in row.items() if not any(v is x or v == x for x in values)}


def _zulu(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _dms(value: Any) -> object:
    if isinstance(value, datetime):
        return _zulu(value)
    if isinstance(value, Zero):
        return None
    if isinstance(value, Decimal):
        return float(value)
    return json.dumps(value) if isinstance(value, dict) else _iso(value)


def _iso(value: Any) -> object:
    return value.isoformat() if isinstance(value, date) else value


def _dms_record(change: Change, spell: Callable[[Any], object] = _dms) -> dict[str, Any]:
    before, after = _spelt(change.before, spell), _spelt(change.after, spell)
    if after is None:
        return dms(change.table, "delete", data=before)
    return dms(change.table, change.operation, data=after, before=before)


def _dms_formatted(change: Change) -> Observations:
    return _read(json.dumps(_dms_record(change), indent=4))


def _dms_without_nulls(change: Change) -> Observations:
    record = _dms_record(change)
    for side in ("data", "before-image"):
        if side in record:
            record[side] = _without(record[side], None, "")
    return _read(record)


def _dms_texts(change: Change) -> Observations:
    """As services that forward DMS's records write them: every scalar a text."""

    def spell(value: Any) -> object:
        plain = _dms(value)
        return plain if plain is None else str(plain)

    return _read(_dms_record(change, spell))


def _dms_scientific(change: Change) -> Observations:
    def spell(value: Any) -> object:
        is_large = isinstance(value, int) and value >= 10**16
        return f"{Decimal(value):.20E}" if is_large else _dms(value)

    return _read(_dms_record(change, spell))


def _dms_spread(change: Change) -> Observations:
    """By the rule that puts before-images among the columns."""
    record = _dms_record(change)
    if change.operation == "update":
        record["data"] |= {f"BI_{n}": v for n, v in record.pop("before-image").items()}
    return _read(record)


def _debezium(
    change: Change, spell: Callable[[Any], object], schema: object = None
) -> Observations:
    op = {"insert": "c", "update": "u", "delete": "d"}[change.operation]
    event = debezium(change.table, op, _spelt(change.after, spell), _spelt(change.before, spell))
    return _read(event if schema is None else {"schema": schema, "payload": event})


def _debezium_plain(value: Any) -> object:
    """MicroTimestamp, Date in days, bigints that wrap, decimals as texts, zero dates as NULL."""
    if isinstance(value, datetime):
        return (value - _EPOCH) // (datetime.resolution)
    if isinstance(value, date):
        return (value - _EPOCH.date()).days
    if isinstance(value, Zero):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**63:
        return value - 2**64
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value) if isinstance(value, Decimal) else value


def _debezium_zoned(value: Any) -> object:
    """ZonedTimestamp, decimals as doubles, zero dates as the epoch, bigints as texts."""
    if isinstance(value, datetime):
        return _zulu(value)
    if isinstance(value, Zero):
        return 0
    if isinstance(value, int) and value > 127:
        return str(value)
    return float(value) if isinstance(value, Decimal) else _debezium_plain(value)


def _debezium_milliseconds(value: Any) -> object:
    """Connect's own types: whole milliseconds."""
    plain = _debezium_plain(value)
    return plain // 1_000 if isinstance(value, datetime) and isinstance(plain, int) else plain


def _debezium_precise(change: Change) -> Observations:
    """Unsigned bigints and decimals as the bytes of a number, which only the schema shows."""

    def spell(value: Any) -> object:
        if isinstance(value, Decimal):
            return _bytes(int(value.scaleb(2)))
        is_id = isinstance(value, int) and not -128 <= value <= 127
        return _bytes(value) if is_id else _debezium_plain(value)

    row = change.after or change.before or {}
    numbers = [n for n, v in row.items() if isinstance(spell(v), str) and isinstance(v, int)]
    columns = [{"field": n, "name": _DECIMAL, "parameters": {"scale": "0"}} for n in numbers]
    sides = [{"field": side, "type": "struct", "fields": columns} for side in ("before", "after")]
    return _debezium(change, spell, {"type": "struct", "fields": sides})


def _bytes(number: int) -> str:
    size = number.bit_length() // 8 + 1
    return base64.b64encode(number.to_bytes(size, "big", signed=True)).decode()


def _debezium_converted(change: Change) -> Observations:
    """By the converter that makes booleans of tinyint(1)."""

    def converted(row: Row | None) -> Row | None:
        if row is None or "is_enabled" not in row:
            return row
        return {**row, "is_enabled": row["is_enabled"] != 0}

    told = Change(change.table, converted(change.before), converted(change.after))
    return _debezium(told, _debezium_plain)


def _maxwell(change: Change, *, is_null_left_out: bool = False) -> Observations:
    before, after = _spelt(change.before, _maxwell_value), _spelt(change.after, _maxwell_value)
    old = None
    if before is not None and after is not None:
        old = {n: v for n, v in before.items() if v != after[n]}
    data = after or before
    if is_null_left_out:
        data = _without(data, None)
    return _read(maxwell(change.table, change.operation, data, old))


def _maxwell_value(value: Any) -> object:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, Zero):
        return value.value
    return float(value) if isinstance(value, Decimal) else _iso(value)


class _OneFile:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def fetch(self, _: ChangeFile, __: int) -> bytes:
        return self._content


def _read_file(key: str, content: bytes) -> Observations:
    reader = FileReader(
        cast(ObjectStore, _OneFile(content)), PEOPLE, OBSERVER, buckets={"changes"}, max_bytes=10**9
    )
    found = reader.read(arrival({"Records": [s3_record(key)]}))
    assert found.demand.fault is None
    return found.observations


def _file_row(change: Change, spell: Callable[[Any], object]) -> dict[str, object]:
    after = _spelt(change.after or change.before, spell) or {}
    before = _spelt(change.before, spell) if change.operation == "update" else None
    told = {"Op": change.operation[0].upper(), **after}
    return told | {f"BI_{name}": None if before is None else before[name] for name in after}


def _csv(change: Change, null: str) -> Observations:
    row = _file_row(change, _dms)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(row)
    writer.writerow([null if value is None else value for value in row.values()])
    return _read_file(f"mainapp/{change.table}/1.csv", stream.getvalue().encode())


def _parquet(change: Change, *, is_signed: bool) -> Observations:
    def spell(value: Any) -> object:
        if isinstance(value, int) and value >= 2**63 and is_signed:
            return value - 2**64
        return value if isinstance(value, Decimal | datetime | date) else _dms(value)

    row = _file_row(change, spell)
    stream = io.BytesIO()
    columns: dict[str, Any] = {}
    for name, value in row.items():
        is_large = isinstance(value, int) and value > 127
        kind = (arrow.int64() if is_signed else arrow.uint64()) if is_large else None
        columns[name] = arrow.array([value], kind)
    pyarrow.parquet.write_table(arrow.table(columns), stream)
    return _read_file(f"mainapp/{change.table}/1.parquet", stream.getvalue())


WITH_NULLS: Final[Mapping[str, Tell]] = {
    "dms": lambda change: _read(_dms_record(change)),
    "dms formatted": _dms_formatted,
    "dms in texts": _dms_texts,
    "dms scientific": _dms_scientific,
    "dms spread": _dms_spread,
    "dms by kinesis": lambda change: _read(kinesis(_dms_record(change))),
    "debezium": lambda change: _debezium(change, _debezium_plain),
    "debezium zoned": lambda change: _debezium(change, _debezium_zoned),
    "debezium milliseconds": lambda change: _debezium(change, _debezium_milliseconds),
    "debezium precise": _debezium_precise,
    "debezium converted": _debezium_converted,
    "debezium by kinesis": lambda change: _debezium(change, _debezium_plain, {"fields": []}),
    "maxwell": _maxwell,
    "parquet": lambda change: _parquet(change, is_signed=False),
    "parquet signed": lambda change: _parquet(change, is_signed=True),
    r"csv with \N": lambda change: _csv(change, r"\N"),
}
"""Formats that distinguish NULL from an absent and from an empty value, except CSV."""

WITHOUT_NULLS: Final[Mapping[str, Tell]] = {
    "dms without nulls": _dms_without_nulls,
    "maxwell without nulls": lambda change: _maxwell(change, is_null_left_out=True),
    "csv": lambda change: _csv(change, ""),
    "csv with NULL": lambda change: _csv(change, "NULL"),
}

ALL: Final = {**WITH_NULLS, **WITHOUT_NULLS}
