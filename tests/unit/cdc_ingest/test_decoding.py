"""Bodies of every kind, good and bad."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mainapp import description
from servicekit.clock import SystemClock
from services.cdc_ingest.domain.decoding import decode_body
from services.cdc_ingest.domain.messages import Message, times_of
from services.cdc_ingest.domain.people import PersonMap, RowKey
from services.cdc_ingest.domain.records import Ignored, LostTrack, Operation, RowChange
from services.cdc_ingest.receivers import read

PEOPLE = PersonMap(description.load())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["users", "claims", "update", "truncate-table", "data", "control"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["id", "user_id", "claim_id", "data", "metadata", "before-image", "operation",
             "table-name", "record-type", "commit-timestamp", "timestamp"]
        )
        | st.text(max_size=5),
        inner,
        max_size=6,
    ),
    max_leaves=8,
)  # fmt: skip
RECORD = st.fixed_dictionaries(
    {
        "data": JSON,
        "metadata": st.fixed_dictionaries(
            {
                "operation": st.sampled_from(["update", "delete", "gap", "truncate-table"]) | JSON,
                "table-name": st.sampled_from(list(description.load().tables)) | JSON,
            },
            optional={"record-type": JSON, "timestamp": JSON, "commit-timestamp": JSON},
        ),
    },
    optional={"before-image": JSON},
)


def record(
    table: str = "users",
    operation: str = "update",
    data: object = None,
    before: object = None,
    **metadata: object,
) -> dict[str, Any]:
    """A DMS data record."""
    made: dict[str, Any] = {
        "data": data,
        "metadata": {
            "record-type": "data",
            "operation": operation,
            "schema-name": "mainapp",
            "table-name": table,
            **metadata,
        },
    }
    if before is not None:
        made["before-image"] = before
    return made


def message(body: str) -> Message:
    """A message just received."""
    return Message("m", "r", body, 1, SystemClock().now())


@given(st.text() | JSON.map(json.dumps) | RECORD.map(json.dumps))
@example("[" * 100_000)
@example('{"metadata":{"operation":"update","table-name":"users"},"data":{"id":1e999}}')
@example('{"metadata":{"operation":"update","table-name":"users"},"data":{"id":"\\ud800"}}')
@example('{"metadata":{"operation":"update","table-name":"users"},"data":{"id":"1e999999999"}}')
def test_no_input_is_more_than_a_fault(body: str) -> None:
    arrival = read(message(body), PEOPLE)
    assert arrival.demand.fault != "DECODER_FAILED"
    for key in arrival.demand.keys:
        assert isinstance(key, RowKey) or 0 < key < 2**64


@given(st.lists(RECORD | JSON, max_size=5), st.integers(1, 2**64 - 1))
def test_a_bad_record_does_not_hide_a_good_one(others: list[object], user_id: int) -> None:
    body = json.dumps([*others, record(data={"id": user_id})])
    assert user_id in read(message(body), PEOPLE).demand.keys


def test_one_object_is_one_record() -> None:
    body = json.dumps(
        record(
            "claims",
            "update",
            {"id": 7, "user_id": "5"},
            {"user_id": "4"},
            **{
                "commit-timestamp": "2025-06-02T09:00:00.000000Z",
                "timestamp": "2025-06-02T09:00:01.500000Z",
                "something-new": {"deep": [1]},
            },
        )
    )
    (change,) = decode_body(body).records
    assert isinstance(change, RowChange)
    assert (change.table, change.operation) == ("claims", Operation.UPDATE)
    assert change.images == ({"user_id": "4"}, {"id": 7, "user_id": "5"})
    assert change.committed_at is not None
    assert change.captured_at is not None
    assert (change.captured_at - change.committed_at).total_seconds() == 1.5


def test_an_array_is_many_records() -> None:
    body = json.dumps([record(data={"id": n}) for n in range(1, 4)])
    assert read(message(body), PEOPLE).demand.keys == {1, 2, 3}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("", "BODY_NOT_JSON"),
        ("hello", "BODY_NOT_JSON"),
        ("{", "BODY_NOT_JSON"),
        ("3", "FORMAT_UNKNOWN"),
        ("null", "FORMAT_UNKNOWN"),
        ("{}", "FORMAT_UNKNOWN"),
        ('{"metadata": 3}', "FORMAT_UNKNOWN"),
        ('{"metadata": {"operation": 3}}', "DMS_METADATA_NOT_TEXT"),
        ('{"metadata": {"operation": "update"}, "data": {}}', "DMS_TABLE_MISSING"),
        (json.dumps(record(data="x")), "DMS_IMAGE_NOT_AN_OBJECT"),
        (json.dumps(record(data={"id": "x"})), "KEY_NOT_A_NUMBER"),
        (json.dumps(record(data={"id": True})), "KEY_NOT_A_NUMBER"),
        (json.dumps(record(data={"id": -1})), "KEY_NOT_A_NUMBER"),
        (json.dumps(record(data={"id": 2**64})), "KEY_NOT_A_NUMBER"),
        (json.dumps(record(data={"id": 1.2345678901234567e18})), "KEY_NOT_A_NUMBER"),
        (json.dumps(record("claim_requirements", data={"id": 5})), "KEY_NOT_TEXT"),
    ],
)
def test_what_cannot_be_read_says_why(body: str, fault: str) -> None:
    assert read(message(body), PEOPLE).demand.fault == fault


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (str(2**64 - 1), 2**64 - 1),
        (2**64 - 1, 2**64 - 1),
        ("007", 7),
        (12.0, 12),
        ("1.2E1", 12),
        ("18446744073709551615.0", 2**64 - 1),
    ],
)
def test_numbers_arrive_intact(written: object, number: int) -> None:
    assert read(message(json.dumps(record(data={"id": written}))), PEOPLE).demand.keys == {number}


@pytest.mark.parametrize("operation", ["truncate-table", "drop-table", "rename-table", "gap"])
def test_control_records_that_lose_track(operation: str) -> None:
    body = {"metadata": {"record-type": "control", "operation": operation, "table-name": "claims"}}
    assert decode_body(json.dumps(body)).records == (LostTrack("claims", operation),)
    assert read(message(json.dumps(body)), PEOPLE).demand.lost_track is not None


def test_losing_track_of_a_foreign_table_is_nothing() -> None:
    body = {"metadata": {"record-type": "control", "operation": "drop-table", "table-name": "x"}}
    demand = read(message(json.dumps(body)), PEOPLE).demand
    assert demand.lost_track is None
    assert demand.ignored == 1


def test_other_control_records_are_ignored() -> None:
    body = {
        "control": {"table-def": {}},
        "metadata": {"record-type": "control", "operation": "create-table", "table-name": "users"},
    }
    assert decode_body(json.dumps(body)).records == (Ignored("control"),)


def test_times_are_those_of_the_oldest_record() -> None:
    body = json.dumps(
        [record(data={"id": n}, timestamp=f"2025-06-02T09:00:0{n}Z") for n in (3, 1, 2)]
    )
    received = message(body)
    times = times_of(received, decode_body(body).records)
    assert times.captured_at is not None
    assert times.captured_at.second == 1
    assert times.committed_at is None


def test_a_time_that_is_none_counts_as_not_told() -> None:
    body = json.dumps(record(data={"id": 1}, timestamp="0001-01-01T00:00:00+23:59"))
    arrival = read(message(body), PEOPLE)
    assert arrival.times.captured_at is None
    assert arrival.demand.keys == {1}


def test_read_samples_of_dms(request: pytest.FixtureRequest) -> None:
    folder = Path(request.config.rootpath) / "tests" / "unit" / "cdc_ingest" / "samples"
    bodies = sorted(folder.glob("dms-*.json"))
    assert len(bodies) >= 10
    for path in bodies:
        arrival = read(message(path.read_text()), PEOPLE)
        assert (path.name, arrival.demand.fault) == (path.name, None)
        assert arrival.demand.ignored == 1
