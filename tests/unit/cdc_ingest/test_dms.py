"""AWS DMS records, and those of binlog_relay."""

import json

import pytest

from services.cdc_ingest.domain.formats.decoding import decode_body
from services.cdc_ingest.domain.formats.records import (
    ChangeRecord,
    Ignored,
    Kind,
    LostTrack,
    Operation,
)
from services.cdc_ingest.domain.gtids import gtid_of
from services.cdc_ingest.domain.people import RowKey
from tests.unit.cdc_ingest.bodies import demand, dms


def test_a_record_in_full() -> None:
    body = json.dumps(
        dms(
            "claims",
            "update",
            {"id": 7, "user_id": "5"},
            {"user_id": "4"},
            **{
                "commit-timestamp": "2025-06-02T09:00:00.000000Z",
                "timestamp": "2025-06-02T09:00:01.500000Z",
                "transaction-id": 9324410911751,
                "something-new": {"deep": [1]},
            },
        )
    )
    (change,) = decode_body(body).records
    assert isinstance(change, ChangeRecord)
    assert (change.table, change.operation) == ("claims", Operation.UPDATE)
    assert change.images == ({"user_id": "4"}, {"id": 7, "user_id": "5"})
    assert change.transaction == "9324410911751"
    assert change.committed_at is not None
    assert change.captured_at is not None
    assert (change.captured_at - change.committed_at).total_seconds() == 1.5


@pytest.mark.parametrize("layout", [{}, {"indent": 3}, {"separators": (",", ":")}])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_every_spacing(layout: dict[str, int], end: str) -> None:
    body = json.dumps(dms(data={"id": 5}), **layout) + end  # type: ignore[arg-type]
    assert demand(body).keys == {5}


@pytest.mark.parametrize("operation", ["load", "insert", "update", "delete", "create", "read", "?"])
def test_every_operation_concerns_the_person(operation: str) -> None:
    assert demand(dms("claims", operation, {"id": 9, "user_id": 5, "type": "x"})).keys == {5}


def test_a_move_without_a_before_image_still_concerns_the_new_person() -> None:
    assert demand(dms("claims", data={"id": 9, "user_id": 5})).keys == {5}


def test_a_before_image_of_the_key_alone() -> None:
    body = dms("claims", data={"id": 10, "user_id": 5}, before={"id": 9})
    assert demand(body).keys == {5}
    assert demand(dms(data={"id": 6}, before={"id": 5})).keys == {5, 6}


def test_columns_a_mapping_rule_adds_are_a_before_image() -> None:
    body = dms("claims", data={"id": 9, "user_id": 5, "BI_id": 9, "BI_user_id": 4})
    assert demand(body).keys == {4, 5}


def test_columns_a_mapping_puts_one_level_down() -> None:
    body = dms("claims", data={"_doc": {"id": 9, "user_id": 5}})
    assert demand(body).keys == {5}


def test_a_column_that_is_absent_is_null() -> None:
    """DMS leaves NULL out by default."""
    assert demand(dms("user_addresses", data={"id": "a", "county": "Kent"})).keys == {
        RowKey("user_addresses", "a")
    }


def test_another_schema_is_no_other_table() -> None:
    assert demand(dms("claims", data={"id": 9, "user_id": 5}, **{"schema-name": "app2"})).keys == {
        5
    }


@pytest.mark.parametrize(
    ("written", "cause"),
    [
        ("truncate-table", "truncate-table"),
        ("TruncateTable", "truncate-table"),
        ("drop-table", "drop-table"),
        ("DropTable", "drop-table"),
        ("rename-table", "rename-table"),
        ("change-columns", "change-columns"),
        ("add-column", "add-column"),
        ("drop-column", "drop-column"),
        ("rename-column", "rename-column"),
        ("column-type-change", "column-type-change"),
        ("gap", "gap"),
    ],
)
def test_control_records_that_lose_track(written: str, cause: str) -> None:
    body = {"metadata": {"record-type": "control", "operation": written, "table-name": "claims"}}
    assert decode_body(json.dumps(body)).records == [LostTrack("claims", cause, "dms")]
    assert demand(body).lost_track == LostTrack("claims", cause, "dms")


def test_losing_track_of_a_foreign_table_is_nothing() -> None:
    body = {"metadata": {"record-type": "control", "operation": "drop-table", "table-name": "x"}}
    found = demand(body)
    assert found.lost_track is None
    assert found.counts == {("dms", Kind.FOREIGN): 1}


def test_an_announcement_is_ignored() -> None:
    body = {
        "control": {"table-def": {}},
        "metadata": {"record-type": "control", "operation": "create-table", "table-name": "users"},
    }
    assert decode_body(json.dumps(body)).records == [Ignored(Kind.CONTROL, "dms")]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"metadata": 3}, "FORMAT_UNKNOWN"),
        ({"metadata": {"operation": 3}}, "DMS_METADATA_NOT_TEXT"),
        ({"metadata": {"operation": "update"}, "data": {}}, "DMS_TABLE_MISSING"),
        (dms(data="x"), "DMS_IMAGE_NOT_AN_OBJECT"),
        (dms(data={"id": 1}, before=[1]), "DMS_IMAGE_NOT_AN_OBJECT"),
        (dms(data=None), "ROW_NOT_IDENTIFIED"),
    ],
)
def test_what_cannot_be_read_says_why(body: object, fault: str) -> None:
    assert demand(body).fault == fault


def test_a_time_that_is_none_counts_as_not_told() -> None:
    (change,) = decode_body(
        json.dumps(dms(data={"id": 1}, timestamp="0001-01-01T00:00:00+23:59"))
    ).records
    assert isinstance(change, ChangeRecord)
    assert change.captured_at is None


@pytest.mark.parametrize("operation", ["insert", "update", "delete"])
def test_many_rows_in_one_record_are_as_many_records(operation: str) -> None:
    afters: list[dict[str, object]] = [
        {"id": n, "user_id": n + 5, "status": "x"} for n in range(1, 9)
    ]
    befores = [row | {"status": None} for row in afters] if operation == "update" else None
    details = {
        "commit-timestamp": "2025-06-02T09:00:00.000000Z",
        "transaction-id": 12,
        "stream-position": "binlog.000003:4711:0:4711:12:binlog.000003:4711",
        "source-server": "a1",
        "source-gtid": "0-1-12",
    }
    together = dms("claims", operation, **details)
    del together["data"]
    together["columns"] = list(afters[0])
    together["rows"] = [list(row.values()) for row in afters]
    if befores is not None:
        together["before-rows"] = [list(row.values()) for row in befores]
    singles = [
        dms("claims", operation, row, befores[place] if befores else None, **details)
        for place, row in enumerate(afters)
    ]
    found, expected = decode_body(json.dumps(together)), decode_body(json.dumps(singles))
    assert found.records == expected.records
    gtids = {record.gtid for record in found.records if isinstance(record, ChangeRecord)}
    assert gtids == {gtid_of("0-1-12")}
    assert (found.fault, found.files) == (None, [])
    assert demand(together) == demand(singles)


@pytest.mark.parametrize(
    "parts",
    [
        {"columns": ["id"], "rows": 5},
        {"columns": "id", "rows": [[1, 2]]},
        {"columns": [7], "rows": [[1]]},
        {"columns": ["id"], "rows": [[1, 2]]},
        {"columns": ["id"], "rows": [1]},
        {"columns": ["id"], "rows": [[1]], "before-rows": [[1], [2]]},
        {"columns": ["id"], "rows": [[1]], "before-rows": "x"},
        {"rows": [[1]]},
    ],
)
def test_malformed_rows_are_refused_whole(parts: dict[str, object]) -> None:
    assert decode_body(json.dumps(dms("users", "update") | parts)).fault == "DMS_ROWS_MALFORMED"
