"""Records as DMS writes them."""

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.binlog_relay.publish.dms import (
    Origin,
    RecordWriter,
    control_record,
    iso_moment,
    server_name,
)

MAX_RECORD_BYTES = 180_000
ORIGIN = Origin("app", "users", 1_700_000_000_000_000, 42, "binlog.1:10:0:10:42:binlog.1:10", "a1")
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**64 - 1),
    st.text(st.characters(exclude_categories=["Cs"])),
)
images = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=8)


def written(data: Any, before: Any = None, operation: str = "update") -> Any:
    return json.loads(
        RecordWriter(ORIGIN, operation, 1, MAX_RECORD_BYTES).write(data, before, {"id"})
    )


@given(images, st.one_of(st.none(), images))
def test_values_survive(data: Any, before: Any) -> None:
    record = written(data, before)
    assert record["data"] == data
    assert record.get("before-image") == before
    assert list(record) == (["data", "metadata"] if before is None else
                            ["data", "before-image", "metadata"])  # fmt: skip


@given(images)
@example({"name": "\ufffe\uffff"})
def test_sqs_accepts_every_character(data: Any) -> None:
    body = RecordWriter(ORIGIN, "insert", 1, MAX_RECORD_BYTES).write(data, None, set()).decode()
    refused = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
    assert refused.search(body) is None


def test_metadata_are_those_of_dms() -> None:
    assert written({"id": 1}, operation="insert")["metadata"] == {
        "timestamp": "1970-01-01T00:00:00.000001Z",
        "record-type": "data",
        "operation": "insert",
        "partition-key-type": "schema-table",
        "schema-name": "app",
        "table-name": "users",
        "transaction-id": 42,
        "commit-timestamp": "2023-11-14T22:13:20.000000Z",
        "stream-position": "binlog.1:10:0:10:42:binlog.1:10",
        "source-server": "a1",
    }


def test_a_server_is_named_without_its_host() -> None:
    name = server_name("db.example.test:3306:1:0")
    assert re.fullmatch("[0-9a-f]{16}", name)
    assert name == server_name("db.example.test:3306:1:0")
    assert name != server_name("db.example.test:3306:2:0")


def test_a_control_record_has_no_data() -> None:
    record = json.loads(control_record(ORIGIN, "truncate-table", 1))
    assert record["metadata"]["record-type"] == "control"
    assert record["metadata"]["operation"] == "truncate-table"
    assert record["metadata"]["table-name"] == "users"
    assert "data" not in record


def test_a_very_long_record_keeps_what_identifies_the_user() -> None:
    long_text = "x" * MAX_RECORD_BYTES
    record = written({"id": 1, "note": long_text}, {"id": 2, "note": "short"})
    assert record["data"] == {"id": 1}
    assert record["before-image"] == {"id": 2}


def test_decimals_keep_their_digits() -> None:
    body = RecordWriter(ORIGIN, "insert", 1, MAX_RECORD_BYTES).write(
        {"d": orjson.Fragment("10.50")}, None, set()
    )
    assert b'"d":10.50' in body


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [(0, "1970-01-01T00:00:00.000000Z"), (951_782_400_000_001, "2000-02-29T00:00:00.000001Z")],
)
def test_moments(microseconds: int, expected: str) -> None:
    assert iso_moment(microseconds) == expected


@given(st.lists(st.tuples(values, values), min_size=1), st.booleans())
def test_the_rows_of_a_bulk_transaction_survive(rows: Any, has_befores: bool) -> None:
    afters = [{"id": after, "status": "x"} for after, _ in rows]
    befores = [{"id": before, "status": None} for _, before in rows] if has_befores else []
    writer = RecordWriter(ORIGIN, "update", 1, MAX_RECORD_BYTES)
    record = json.loads(writer.write_rows(afters, befores, {"id"}))
    assert [dict(zip(record["columns"], row, strict=True)) for row in record["rows"]] == afters
    assert record.get("before-rows", []) == [list(row.values()) for row in befores]
    assert record["metadata"] == written({"id": 1})["metadata"]


def test_too_long_rows_keep_only_what_identifies_their_users() -> None:
    rows = [{"id": number, "status": "x" * 900} for number in range(9)]
    writer = RecordWriter(ORIGIN, "update", 1, 4_000)
    record = json.loads(writer.write_rows(rows, rows, {"id"}))
    assert record["columns"] == ["id"]
    assert record["rows"] == record["before-rows"] == [[number] for number in range(9)]
