"""Debezium's events of MySQL and MariaDB."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from services.cdc_ingest.domain.formats.decoding import decode_body
from services.cdc_ingest.domain.formats.records import ChangeRecord, Kind, LostTrack, Operation
from services.cdc_ingest.domain.people import RowKey
from tests.unit.cdc_ingest.bodies import debezium, demand


def _wrapped(payload: object, schema: object = None) -> dict[str, Any]:
    return {"schema": {} if schema is None else schema, "payload": payload}


def test_an_event_in_full() -> None:
    event = debezium("claims", "u", {"id": 7, "user_id": 5}, {"id": 7, "user_id": 4})
    (change,) = decode_body(json.dumps(event)).records
    assert isinstance(change, ChangeRecord)
    assert (change.table, change.operation) == ("claims", Operation.UPDATE)
    assert change.images == ({"id": 7, "user_id": 4}, {"id": 7, "user_id": 5})
    assert change.committed_at == datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
    assert change.captured_at == datetime(2025, 6, 2, 9, 0, 1, 500_000, tzinfo=UTC)
    assert change.transaction == "3e11fa47-71ca-11e1-9e33-c80aa9429562:23"


@pytest.mark.parametrize("op", ["c", "u", "d", "r", "?"])
def test_every_operation_concerns_the_person(op: str) -> None:
    row = {"id": 9, "user_id": 5, "status": "open"}
    event = debezium("claims", op, None if op == "d" else row, row if op == "d" else None)
    assert demand(event).keys == {5}
    assert demand(_wrapped(event)).keys == {5}


def test_a_snapshot_row_was_committed_some_time_before() -> None:
    (change,) = decode_body(json.dumps(debezium(op="r", after={"id": 5}))).records
    assert isinstance(change, ChangeRecord)
    assert (change.operation, change.committed_at) == (Operation.LOAD, None)


def test_another_key_is_a_deletion_a_tombstone_and_a_creation() -> None:
    found = demand([debezium(op="d", before={"id": 4}), None, debezium(op="c", after={"id": 5})])
    assert found.keys == {4, 5}
    assert found.counts == {("debezium", Kind.ROW): 2, ("debezium", Kind.TOMBSTONE): 1}
    assert found.fault is None


@pytest.mark.parametrize("body", ["null", '{"schema": null, "payload": null}'])
def test_tombstones_concern_no_person(body: str) -> None:
    found = demand(body)
    assert found.counts == {("debezium", Kind.TOMBSTONE): 1}
    assert found.fault is None


def test_a_transaction_told_is_preferred() -> None:
    event = debezium(after={"id": 5}) | {"transaction": {"id": "file=b.1,pos=5", "total_order": 1}}
    assert demand(event).by_transaction == {"file=b.1,pos=5": {5}}


@pytest.mark.parametrize(
    ("written", "number"),
    [(-1, 2**64 - 1), (-(2**63), 2**63), (2**63 - 1, 2**63 - 1), ("-2", 2**64 - 2)],
)
def test_unsigned_numbers_beyond_a_signed_long(written: object, number: int) -> None:
    assert demand(debezium(after={"id": written})).keys == {number}
    assert demand(debezium("claims", after={"id": 1, "user_id": written})).keys == {number}
    child = debezium("claim_requirements", after={"id": "r", "claim_id": written})
    assert demand(child).keys == {RowKey("claims", str(number))}


def test_too_negative_is_no_number() -> None:
    assert demand(debezium(after={"id": -(2**63) - 1})).fault == "KEY_NOT_A_NUMBER"


def _decimal(name: str, scale: str = "0") -> dict[str, Any]:
    return {
        "type": "bytes",
        "name": "org.apache.kafka.connect.data.Decimal",
        "parameters": {"scale": scale},
        "field": name,
    }


def test_precise_unsigned_numbers_are_read_by_their_schema() -> None:
    """With bigint.unsigned.handling.mode=precise they are base64 of their bytes."""
    row = {"type": "struct", "fields": [_decimal("id"), {"type": "string", "field": "email"}]}
    schema = {"type": "struct", "fields": [{**row, "field": side} for side in ("before", "after")]}
    event = debezium(after={"id": "BQ==", "email": "BQ=="}, before={"id": "AP//////////"})
    assert demand(_wrapped(event, schema)).keys == {5, 2**64 - 1}
    assert demand(_wrapped(event)).fault == "KEY_NOT_A_NUMBER"


@pytest.mark.parametrize("value", ["not base64!", 7, "A" * 1000])
def test_a_decimal_that_is_none_is_a_fault_or_what_it_says(value: object) -> None:
    schema = {"fields": [{"field": "after", "fields": [_decimal("id")]}]}
    found = demand(_wrapped(debezium(after={"id": value}), schema))
    assert found.keys == ({7} if value == 7 else set())
    assert found.fault == (None if value == 7 else "KEY_NOT_A_NUMBER")


def test_truncate_asks_for_a_full_run() -> None:
    event = debezium("claims", "t")
    assert demand(event).lost_track == LostTrack("claims", "truncate-table", "debezium")


def _schema_change(
    ddl: str,
    *changes: tuple[str, str, str | None],
    table: str = "",
    snapshot: str = "false",
) -> Any:
    table = table or ",".join(name for _, name, _ in changes)
    return {
        "source": debezium(table, snapshot=snapshot)["source"],
        "databaseName": "mainapp",
        "ddl": ddl,
        "tableChanges": [
            {
                "type": kind,
                "id": f'"mainapp"."{name}"',
                "previousId": None if previous is None else f'"mainapp"."{previous}"',
            }
            for kind, name, previous in changes
        ],
    }


@pytest.mark.parametrize(
    ("event", "lost"),
    [
        (_schema_change("ALTER TABLE claims ...", ("ALTER", "claims", None)), "alter-table claims"),
        (_schema_change("DROP TABLE claims", ("DROP", "claims", None)), "drop-table claims"),
        (_schema_change("CREATE TABLE claims ...", ("CREATE", "claims", None)), ""),
        (_schema_change("ALTER TABLE jobs ...", ("ALTER", "jobs", None)), ""),
        # An online schema change swaps the tables.
        (
            _schema_change(
                "RENAME TABLE _claims_gho TO claims", ("ALTER", "claims", "_claims_gho")
            ),
            "alter-table claims",
        ),
        (
            _schema_change(
                "RENAME TABLE claims TO _claims_del", ("ALTER", "_claims_del", "claims")
            ),
            "alter-table claims",
        ),
        (_schema_change("drop  database `x`"), "drop-database "),
        (_schema_change("truncate table claims", table="claims"), "truncate-table claims"),
        (_schema_change("rename table claims to c", table="claims,c"), "rename-table claims"),
        (_schema_change("CREATE DATABASE x"), ""),
        (_schema_change(""), ""),
        (
            _schema_change("DROP TABLE claims", ("DROP", "claims", None), snapshot="true"),
            "",
        ),
    ],
)
def test_schema_changes(event: object, lost: str) -> None:
    for body in (event, _wrapped(event)):
        found = demand(body)
        assert found.fault is None
        track = found.lost_track
        assert ("" if track is None else f"{track.cause} {track.table}") == lost


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"ts_ms": 1_748_854_801_500}, Kind.HEARTBEAT),
        ({"status": "BEGIN", "id": "x", "event_count": None}, Kind.TRANSACTION),
        ({"status": "END", "id": "x", "event_count": 2, "data_collections": []}, Kind.TRANSACTION),
        (debezium(op="m"), Kind.CONTROL),
    ],
)
def test_an_event_without_a_row_concerns_no_person(body: object, kind: Kind) -> None:
    for each in (body, _wrapped(body)):
        found = demand(each)
        assert found.counts == {("debezium", kind): 1}
        assert found.fault is None


def test_a_flattened_row() -> None:
    row = {"id": 9, "user_id": 5, "__table": "claims", "__op": "u", "__source_ts_ms": 1}
    assert demand(row).keys == {5}
    deleted = {"id": 9, "user_id": None, "__table": "claims", "__deleted": "true"}
    assert demand(deleted).lost_track is not None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (_wrapped("x"), "DEBEZIUM_PAYLOAD_UNKNOWN"),
        (_wrapped({"id": 5}), "DEBEZIUM_PAYLOAD_UNKNOWN"),
        (debezium("", after={"id": 5}), "DEBEZIUM_TABLE_MISSING"),
        (debezium(after=[5]), "DEBEZIUM_IMAGE_NOT_AN_OBJECT"),
        (debezium(), "ROW_NOT_IDENTIFIED"),
        (debezium(after={"id": "BQ=="}), "KEY_NOT_A_NUMBER"),
    ],
)
def test_what_cannot_be_read_says_why(body: object, fault: str) -> None:
    assert demand(body).fault == fault


def test_a_flattened_event_with_its_schema_has_precise_numbers_too() -> None:
    schema = {"fields": [{"field": "id", "name": "org.apache.kafka.connect.data.Decimal"}]}
    event = {"schema": schema, "payload": {"id": "AIAAAAAAAAAF", "__table": "users", "__op": "u"}}
    assert demand(event).keys == {2**63 + 5}
