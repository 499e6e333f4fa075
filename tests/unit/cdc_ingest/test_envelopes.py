"""Envelopes: Kinesis by a pipe, SNS, S3 notifications, lists of them."""

import base64
import json
from datetime import UTC, datetime

import pytest

from services.cdc_ingest.domain.formats.decoding import MAX_DEPTH
from services.cdc_ingest.domain.formats.records import ChangeFile, Kind, LostTrack
from tests.unit.cdc_ingest.bodies import (
    arrival,
    debezium,
    demand,
    dms,
    kinesis,
    maxwell,
    s3_eventbridge,
    s3_record,
    sns,
)

ROW = {"id": 9, "user_id": 5}
INNER = [dms("claims", data=ROW), debezium("claims", after=ROW), maxwell("claims", data=ROW)]


@pytest.mark.parametrize("inner", INNER)
def test_envelopes_hold_any_format(inner: object) -> None:
    kinds = [
        inner,
        kinesis(inner),
        kinesis(json.dumps(inner) + "\n"),
        sns(inner),
        sns(kinesis(inner)),
        kinesis(sns(inner)),
        {"Records": [{"eventSource": "aws:sqs", "body": json.dumps(inner)}]},
        {"Records": [{"kinesis": kinesis(inner), "eventSource": "aws:kinesis"}]},
        {**kinesis(inner), "data": inner},
        {**kinesis(inner), "data": json.dumps(inner)},
    ]
    for body in kinds:
        found = demand(body)
        assert (found.keys, found.fault) == ({5}, None), body


def test_a_batch_of_a_pipe() -> None:
    batch = [kinesis(dms(data={"id": n})) for n in range(1, 101)]
    found = demand(batch)
    assert found.keys == set(range(1, 101))
    assert found.counts["kinesis", Kind.ENVELOPE] == 100
    assert found.counts["dms", Kind.ROW] == 100


def test_one_bad_record_of_a_batch_is_bad_alone() -> None:
    broken = {**kinesis(""), "data": "%%%"}
    binary = {**kinesis(""), "data": base64.b64encode(b"\x81\xff\x07").decode()}
    number = {**kinesis(""), "data": 3}
    found = demand([broken, binary, number, kinesis("x"), kinesis(dms(data={"id": 5}))])
    assert (found.keys, found.fault) == ({5}, "CONTENT_NOT_JSON")
    assert found.counts["kinesis", Kind.UNREADABLE] == 1
    assert found.counts["unknown", Kind.UNREADABLE] == 3


def test_many_records_in_one_text_each_on_its_line() -> None:
    lines = [json.dumps(dms(data={"id": n})) for n in (1, 2, 3)]
    assert demand(kinesis("\n".join(lines))).keys == {1, 2, 3}
    broken = demand("\n".join([lines[0], "x", "", lines[2]]))
    assert (broken.keys, broken.fault) == ({1, 3}, "BODY_NOT_JSON")


def test_messages_of_sns_about_subscriptions_concern_no_person() -> None:
    for kind in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        found = demand({**sns("You have chosen ..."), "Type": kind})
        assert found.counts == {("sns", Kind.CONTROL): 1}
        assert found.fault is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (sns("hello"), "CONTENT_NOT_JSON"),
        ({**sns(""), "Message": 3}, "SNS_MESSAGE_NOT_TEXT"),
        ({"Records": [{"eventSource": "aws:sqs", "body": None}]}, "SQS_BODY_NOT_TEXT"),
        ({"Records": [3]}, "FORMAT_UNKNOWN"),
        ({"Records": 3}, "FORMAT_UNKNOWN"),
    ],
)
def test_what_cannot_be_opened_says_why(body: object, fault: str) -> None:
    assert demand(body).fault == fault


def test_envelopes_have_no_end_of_depth() -> None:
    body: object = dms(data={"id": 5})
    for _ in range(MAX_DEPTH):
        body = {"Records": [body]}
    assert demand(body).keys == {5}
    assert demand({"Records": [body]}).fault == "NESTED_TOO_DEEPLY"


FILE = ChangeFile(
    bucket="changes",
    key="dms/mainapp/claims/20250602-090000000.csv",
    table="claims",
    size_bytes=1024,
    written_at=datetime(2025, 6, 2, 9, 0, 1, 500_000, tzinfo=UTC),
    format="s3",
)


def test_a_notification_points_at_a_file() -> None:
    assert arrival({"Records": [s3_record(FILE.key)]}).files == (FILE,)
    assert arrival(sns({"Records": [s3_record(FILE.key)]})).files == (FILE,)


@pytest.mark.parametrize(
    ("written", "key", "table"),
    [
        ("mainapp/claims/a.csv", "mainapp/claims/a.csv", "claims"),
        ("a+b/mainapp/claims/x%3Dy%2Bz.csv", "a b/mainapp/claims/x=y+z.csv", "claims"),
        ("caf%C3%A9/mainapp/claims/a.csv", "café/mainapp/claims/a.csv", "claims"),
        ("f/mainapp/claims/2025/06/02/09/a.parquet", None, "claims"),
        ("f/mainapp/claims/20250602/a.csv.gz", None, "claims"),
        ("f/mainapp/claims/2025-06-02/a.CSV", None, "claims"),
        ("f/mainapp/claims/2025_06_02/LOAD00000001.csv", None, "claims"),
    ],
)
def test_keys_are_decoded_and_name_the_table(written: str, key: str | None, table: str) -> None:
    (file,) = arrival({"Records": [s3_record(written)]}).files
    assert (file.key, file.table) == (key or written, table)


def test_eventbridge_writes_keys_as_they_are() -> None:
    (file,) = arrival(s3_eventbridge("a+b/mainapp/claims/x%3Dy.csv")).files
    assert file.key == "a+b/mainapp/claims/x%3Dy.csv"
    assert (file.version_id, file.format) == ("v1", "s3_eventbridge")


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, ("s3", Kind.TEST)),
        (s3_record(FILE.key, "ObjectRemoved:Delete"), ("s3", Kind.CONTROL)),
        (s3_eventbridge(FILE.key, "Object Deleted"), ("s3_eventbridge", Kind.CONTROL)),
        (s3_record("reports/summary.pdf"), ("s3", Kind.FILE)),
        (s3_record("mainapp/jobs/a.csv"), ("s3", Kind.FOREIGN)),
        (s3_record("a.csv"), ("s3", Kind.FOREIGN)),
        (s3_record("2025/06/a.csv"), ("s3", Kind.FOREIGN)),
    ],
)
def test_objects_without_changes_of_ours_are_counted(
    body: object, counted: tuple[str, Kind]
) -> None:
    found = arrival(body)
    assert found.files == ()
    assert found.demand.counts == {counted: 1}
    assert found.demand.fault is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (s3_record(""), "S3_OBJECT_NOT_NAMED"),
        ({**s3_record(FILE.key), "s3": None}, "S3_OBJECT_NOT_NAMED"),
        (s3_record("dms/sync/CDC_TXN_20250602.csv"), "S3_TRANSACTION_FILE"),
    ],
)
def test_notifications_that_cannot_be_followed_say_why(body: object, fault: str) -> None:
    found = demand(body)
    assert found.fault == fault
    assert found.lost_track == LostTrack("", "file-not-followed", "s3"), "rows of ours, perhaps"
    assert found.counts == {("s3", Kind.UNREADABLE): 1, ("s3", Kind.LOST_TRACK): 1}


def test_a_file_that_cannot_be_followed_costs_its_neighbours_nothing() -> None:
    found = arrival({"Records": [s3_record("a/CDC_TXN_1.csv"), s3_record(FILE.key)]})
    assert found.files == (FILE,)
    assert found.demand.lost_track == LostTrack("", "file-not-followed", "s3")
