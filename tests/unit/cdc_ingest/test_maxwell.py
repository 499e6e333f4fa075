"""The messages of Maxwell."""

import json
from datetime import UTC, datetime

import pytest

from services.cdc_ingest.domain.formats.decoding import decode_body
from services.cdc_ingest.domain.formats.records import ChangeRecord, Kind, LostTrack, Operation
from tests.unit.cdc_ingest.bodies import demand, maxwell


def test_a_row_in_full() -> None:
    body = maxwell("claims", "update", {"id": 7, "user_id": 5}, {"user_id": 4})
    (change,) = decode_body(json.dumps(body)).records
    assert isinstance(change, ChangeRecord)
    assert (change.table, change.operation) == ("claims", Operation.UPDATE)
    assert change.images == ({"user_id": 4}, {"id": 7, "user_id": 5})
    assert change.committed_at == datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
    assert change.transaction == "23396"


@pytest.mark.parametrize("kind", ["insert", "update", "delete", "bootstrap-insert"])
def test_every_row_concerns_the_person(kind: str) -> None:
    assert demand(maxwell("claims", kind, {"id": 9, "user_id": 5, "type": "x"})).keys == {5}


def test_a_move_and_another_key_concern_both() -> None:
    assert demand(maxwell("claims", data={"id": 9, "user_id": 5}, old={"user_id": 4})).keys == {
        4,
        5,
    }
    assert demand(maxwell(data={"id": 6}, old={"id": 5})).keys == {5, 6}


def test_unsigned_numbers_arrive_intact() -> None:
    assert demand(maxwell(data={"id": 2**64 - 1})).keys == {2**64 - 1}


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("table-alter", LostTrack("claims", "alter-table", "maxwell")),
        ("table-drop", LostTrack("claims", "drop-table", "maxwell")),
        ("table-create", None),
        ("database-create", None),
        ("bootstrap-start", None),
        ("bootstrap-complete", None),
    ],
)
def test_what_is_no_row(kind: str, lost: LostTrack | None) -> None:
    found = demand(maxwell("claims", kind, {}))
    assert (found.lost_track, found.fault) == (lost, None)


def test_a_dropped_database_may_concern_any_table() -> None:
    body = {"type": "database-drop", "database": "mainapp", "ts": 1_748_854_800_000, "sql": "x"}
    assert demand(body).lost_track == LostTrack("", "drop-database", "maxwell")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (maxwell() | {"encrypted": {"iv": "x", "bytes": "y"}}, "MAXWELL_ENCRYPTED"),
        ({"encrypted": {"iv": "x", "bytes": "y"}}, "MAXWELL_ENCRYPTED"),
        (maxwell(data="cGVyc29u"), "MAXWELL_ENCRYPTED"),
        (maxwell(kind="levitate"), "MAXWELL_TYPE_UNKNOWN"),
        (maxwell("", data={"id": 5}), "MAXWELL_TABLE_MISSING"),
        (maxwell(data=[5]), "MAXWELL_IMAGE_NOT_AN_OBJECT"),
        (maxwell(data={}), "ROW_NOT_IDENTIFIED"),
    ],
)
def test_what_cannot_be_read_says_why(body: object, fault: str) -> None:
    found = demand(body)
    assert found.fault == fault
    assert {kind for _, kind in found.counts} == {Kind.UNREADABLE}
