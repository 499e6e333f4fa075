"""Published messages of every format, read as if the tables in them were the main app's."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mainapp.description import Description
from services.cdc_ingest.domain.formats.records import Kind
from services.cdc_ingest.domain.messages import Arrival, Message
from services.cdc_ingest.domain.people import Key, PersonMap, RowKey
from services.cdc_ingest.sqs.message_reader import read_message

SAMPLES = Path(__file__).parents[2] / "samples"


def _table(key: str, user: str = "", kind: str = "uint64") -> dict[str, Any]:
    user = user or key
    return {"key": key, "user": {"column": user}, "columns": {key: kind, user: "uint64"}}


# Another company's main app: the tables of the samples.
OTHERS = PersonMap(
    Description.model_validate(
        {
            "tables": {
                "customers": _table("id"),
                "sbtest19": _table("id"),
                "sbtest_x": _table("id"),
                "source_table": _table("id"),
                "team": _table("id"),
                "foo": _table("id"),
                "e": _table("id"),
                "User": _table("UserID"),
                "retail_trans": _table("trans_id", "customer_id"),
                "Placement": _table("id", "traineeId"),
                "address": _table("addressid", "groupid"),
                "Urls": _table("shortKey", "customAlias", "text"),
            }
        }
    )
)


class Found(NamedTuple):
    """The expected content of a sample."""

    kinds: list[str]
    keys: Iterable[Key] = ()
    fault: str | None = None
    lost: str = ""


CUSTOMER = Found(["debezium/row"], {1004})
EXPECTED = {
    "debezium-aurora-update-real-1.6": Found(["debezium/row"], {19770}),
    "debezium-create-plain": CUSTOMER,
    "debezium-create-with-schema": CUSTOMER,
    "debezium-delete-doc": CUSTOMER,
    "debezium-delete-real-0.7": Found(["debezium/row"], {2}),
    "debezium-mariadb-create-real-2.7": Found(["debezium/row"], {1}),
    "debezium-schema-change-doc": Found(["debezium/lost_track"], lost="alter-table customers"),
    "debezium-tombstone-wrapped": Found(["debezium/tombstone"]),
    "debezium-transaction-begin": Found(["debezium/transaction"]),
    "debezium-transaction-end": Found(["debezium/transaction"]),
    "debezium-truncate-doc": Found(["debezium/lost_track"], lost="truncate-table customers"),
    "debezium-update-doc": CUSTOMER,
    "debezium-update-plain": CUSTOMER,
    "dms-auroramysql-delete": Found(["dms/row"], {387378799012}),
    "dms-auroramysql-insert": Found(["dms/row"], {387378799012}),
    "dms-control-no-control-body": Found(["dms/control"]),
    "dms-map-record-to-document": Found(["unknown/unreadable"], fault="FORMAT_UNKNOWN"),
    "dms-mysql-control-create-table": Found(["dms/control"]),
    "dms-mysql-insert-bool-as-int": Found(["dms/row"], {1}),
    "dms-mysql-insert-full-metadata": Found(["dms/row"], {100000161}),
    "dms-pg-control-create-table": Found(["dms/control"]),
    "dms-pg-control-drop-table": Found(["dms/lost_track"], lost="drop-table foo"),
    "dms-pg-delete-nulls": Found(["dms/row"], {45}),
    "dms-pg-insert": Found(["dms/row"], {46}),
    "dms-pg-load": Found(["dms/row"], {42}),
    "dms-pg-update-before-image-empty": Found(["dms/row"], {42}),
    "dms-pg-update-pk-changed": Found(["dms/row"], {45, 46}),
    "dms-sqs-body-load-nhs": Found(["dms/row"], {1234}),
    "kinesis-lambda-event": Found(
        ["aws_event/envelope", "kinesis/envelope", "unknown/unreadable"], fault="CONTENT_NOT_JSON"
    ),
    "maxwell-ddl-table-alter": Found(["maxwell/lost_track"], lost="alter-table e"),
    "maxwell-ddl-table-create": Found(["maxwell/schema"]),
    "maxwell-delete": Found(["maxwell/row"], {1}),
    "maxwell-encrypted-update": Found(["maxwell/unreadable"], fault="MAXWELL_ENCRYPTED"),
    "maxwell-insert": Found(["maxwell/row"], {1}),
    "maxwell-update": Found(["maxwell/row"], {1}),
    "maxwell-update-null-omitted": Found(["maxwell/row"], {46456}),
    "maxwell-user-insert-nulls": Found(["maxwell/row"], {20}),
    "pipes-filtering-doc-decoded": Found(
        ["kinesis/envelope", "unknown/unreadable"], fault="FORMAT_UNKNOWN"
    ),
    "pipes-sqs-body-derived": Found(["kinesis/envelope", "dms/row"], {387378799012}),
    "s3-event-in-sqs": Found(["aws_event/envelope", "sqs/envelope", "s3/file"]),
    "s3-event-notification": Found(["aws_event/envelope", "s3/file"]),
    "s3-eventbridge-object-created": Found(["s3_eventbridge/file"]),
    "sqs-dlq-message": Found(
        ["aws_event/envelope", "sqs/envelope", "unknown/unreadable"], fault="CONTENT_NOT_JSON"
    ),
    "sqs-event-lambda-shape": Found(
        ["aws_event/envelope", "sqs/envelope", "unknown/unreadable"], fault="CONTENT_NOT_JSON"
    ),
}


def _read(body: str) -> Arrival:
    return read_message(Message("m", "r", body, 1, datetime.now(UTC)), OTHERS)


def test_every_sample_is_expected() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_sample(name: str) -> None:
    arrival = _read((SAMPLES / f"{name}.json").read_text())
    demand, expected = arrival.demand, EXPECTED[name]
    assert {f"{form}/{kind}" for form, kind in demand.counts} == set(expected.kinds)
    assert demand.keys == set(expected.keys)
    assert demand.fault == expected.fault
    lost = demand.lost_track
    assert ("" if lost is None else f"{lost.cause} {lost.table}") == expected.lost


@pytest.mark.parametrize("name", EXPECTED)
def test_unknown_tables_are_counted_and_concern_no_person(name: str) -> None:
    """The same samples without any described table."""
    stranger = PersonMap(Description.model_validate({"tables": {"users": _table("id")}}))
    body = (SAMPLES / f"{name}.json").read_text()
    demand = read_message(Message("m", "r", body, 1, datetime.now(UTC)), stranger).demand
    assert not demand.keys
    assert demand.lost_track is None
    kinds = {kind for _, kind in demand.counts}
    assert kinds.isdisjoint({Kind.ROW, Kind.LOST_TRACK})
    assert demand.ignored or demand.fault == EXPECTED[name].fault


def test_times_are_those_the_formats_tell() -> None:
    debezium = _read((SAMPLES / "debezium-aurora-update-real-1.6.json").read_text()).times
    assert debezium.committed_at == datetime(2023, 4, 15, 12, 25, 1, tzinfo=UTC)
    assert debezium.captured_at == datetime(2023, 4, 15, 12, 25, 1, 93_000, tzinfo=UTC)
    old = _read((SAMPLES / "debezium-delete-real-0.7.json").read_text()).times
    assert old.committed_at == datetime(2018, 2, 25, 18, 26, 12, tzinfo=UTC)
    maxwell = _read((SAMPLES / "maxwell-insert.json").read_text()).times
    assert maxwell.committed_at == datetime(2016, 10, 21, 12, 33, 37, tzinfo=UTC)
    assert maxwell.captured_at is None


def test_a_child_of_another_table_is_found_through_it() -> None:
    chain = PersonMap(
        Description.model_validate(
            {
                "tables": {
                    "customers": _table("id"),
                    "retail_trans": {
                        "key": "trans_id",
                        "user": {"table": "foo", "column": "customer_id"},
                        "columns": {"trans_id": "uint64", "customer_id": "uint64"},
                    },
                    "foo": _table("id", "customer"),
                }
            }
        )
    )
    body = (SAMPLES / "dms-auroramysql-insert.json").read_text()
    demand = read_message(Message("m", "r", body, 1, datetime.now(UTC)), chain).demand
    assert demand.keys == {RowKey("foo", "387378799012")}
