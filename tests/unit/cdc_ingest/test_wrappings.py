"""A message whose ids can be read is never dead-lettered, in any spelling or envelope."""

import base64
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cdc_ingest.domain.formats import contents, decoding
from services.cdc_ingest.domain.formats.decoding import MAX_EFFORT, MAX_OPENINGS, UNREADABLE_EFFORT
from services.cdc_ingest.domain.formats.records import Kind, LostTrack
from services.cdc_ingest.domain.people import RowKey
from tests.unit.cdc_ingest.bodies import arrival, debezium, demand, dms, kinesis, maxwell, s3_record
from tests.unit.cdc_ingest.wrappings import (
    OF_DOCUMENTS,
    OF_TEXTS,
    RECORDS,
    base64_text,
    kinesis_of,
    kpl,
    on_a_bus,
)


@pytest.mark.parametrize("wrapping", [*OF_DOCUMENTS, *OF_TEXTS])
@pytest.mark.parametrize("record", RECORDS)
def test_the_person_is_found_in_every_wrapping(record: str, wrapping: str) -> None:
    wrap = (OF_DOCUMENTS | OF_TEXTS)[wrapping]
    found = demand(wrap(json.dumps(RECORDS[record](7))))
    assert (found.keys, found.fault) == ({7}, None)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 2**64 - 1),
    st.sampled_from(list(RECORDS)),
    st.none() | st.sampled_from(list(OF_DOCUMENTS)),
    st.lists(st.sampled_from(list(OF_TEXTS)), max_size=3),
)
def test_the_person_is_found_in_wrappings_of_wrappings(
    user_id: int, record: str, document: str | None, texts: list[str]
) -> None:
    body = json.dumps(RECORDS[record](user_id))
    if document is not None:
        body = OF_DOCUMENTS[document](body)
    for name in texts:
        body = OF_TEXTS[name](body)
    found = demand(body)
    assert (found.keys, found.fault) == ({user_id}, None)


def test_every_record_that_was_aggregated_is_read() -> None:
    rows = [json.dumps(maxwell("claims", data={"id": n, "user_id": n})).encode() for n in (4, 5)]
    found = demand(kinesis_of(kpl(*rows, b"")))
    assert (found.keys, found.fault) == ({4, 5}, None)
    assert found.counts == {
        ("kinesis", Kind.ENVELOPE): 1,
        ("kpl", Kind.ENVELOPE): 1,
        ("maxwell", Kind.ROW): 2,
        ("debezium", Kind.TOMBSTONE): 1,
    }


def test_an_aggregate_that_is_not_what_was_sent_is_refused() -> None:
    row = json.dumps(dms(data={"id": 5})).encode()
    assert demand(kinesis_of(kpl(row, digest=b"0" * 16))).fault == "KPL_DAMAGED"
    assert demand(kinesis_of(kpl(row)[:30])).fault == "KPL_DAMAGED"


@given(st.binary(max_size=200))
def test_no_aggregate_breaks_it(packed: bytes) -> None:
    whole = kpl(packed)
    assert contents.aggregated(whole) == [packed]
    found = demand(kinesis_of(kpl(digest=None)[:4] + packed))
    assert found.fault not in ("DECODER_FAILED", None)


def test_a_compressed_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_UNPACKED_BYTES", 1_000)
    assert demand(kinesis_of(gzip.compress(b" " * 2_000))).fault == "CONTENT_TOO_LARGE"
    assert demand(kinesis_of(gzip.compress(b" " * 2_000)[:-20])).fault == "CONTENT_DAMAGED"


def test_what_is_too_large_to_unpack_asks_for_a_full_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_UNPACKED_BYTES", 1_000)
    found = demand(base64_text(gzip.compress(b" " * 2_000)))
    assert found.lost_track == LostTrack("", "content-too-large", "unknown")


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_the_parts_of_a_message_share_what_may_be_unpacked(
    monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(contents, "MAX_UNPACKED_BYTES", 1_500)
    parts = [json.dumps(dms(data={"id": n})).encode().ljust(700) for n in (1, 2, 3, 4)]
    plain = json.dumps(dms(data={"id": 5}))
    found = demand([*(base64_text(pack(part)) for part in parts), plain])
    assert found.fault == "CONTENT_TOO_LARGE"
    assert found.lost_track == LostTrack("", "content-too-large", "unknown")
    assert found.keys == {1, 2, 5}, "what is not compressed is read all the same"


def test_what_is_damaged_has_been_unpacked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_UNPACKED_BYTES", 1_000_000)
    bomb = base64_text(gzip.compress(b" " * 900_000)[:-20])
    row = base64_text(gzip.compress(json.dumps(dms(data={"id": 5})).encode()))
    assert demand([bomb, bomb, row]).lost_track is not None
    damaged = base64_text(gzip.compress(b"not much")[:-4])
    assert demand([damaged, row]).keys == {5}


@pytest.mark.parametrize("part", ["{}", '""', "0", "[]", '{"Event":"s3:TestEvent"}', '"a"'])
@pytest.mark.parametrize("between", [",", "\n"])
def test_a_message_of_many_parts_is_given_up_before_it_costs_much(part: str, between: str) -> None:
    first, last = (json.dumps(dms(data={"id": n})) for n in (5, 6))
    text = between.join([first, *[part] * 150_000, last])
    found = demand(f"[{text}]" if between == "," else text)
    assert found.keys == {5}
    assert found.fault is not None
    assert found.lost_track == LostTrack("", "message-given-up", "unknown")
    assert found.counts.total() <= MAX_EFFORT + 10
    assert found.counts["unknown", Kind.UNREADABLE] <= MAX_EFFORT // UNREADABLE_EFFORT + 1


@pytest.mark.parametrize("part", ["{}", "[]", '{"a":NaN}'])
def test_a_text_that_would_take_too_much_memory_is_not_parsed(part: str) -> None:
    text = f"[{','.join([part] * (MAX_OPENINGS + 1))}]"
    row = base64_text(json.dumps(dms(data={"id": 5})).encode())
    tracemalloc.start()
    try:
        found = demand(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(text), "no objects"
    assert (found.fault, found.lost_track) == (
        "TOO_MANY_PARTS",
        LostTrack("", "message-given-up", "unknown"),
    )
    assert demand([base64_text(text.encode()), row]).keys == {5}


def test_a_field_of_many_documents_is_not_read_to_its_end() -> None:
    record = {**dms(data={"id": 5}), "metadata": "{}" * 50_000}
    text = json.dumps(record)
    demand("{}")
    tracemalloc.start()
    try:
        found = demand(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(text), "50,000 objects would take more"
    assert found.fault is not None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from(list(RECORDS)), st.booleans())
def test_no_row_is_passed_over_without_a_full_run(
    before: int, after: int, record: str, is_array: bool
) -> None:
    row = json.dumps(RECORDS[record](5))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoding, "MAX_EFFORT", 30 * UNREADABLE_EFFORT)
        parts = [*["{}"] * before, row, *["{}"] * after]
        found = demand(f"[{','.join(parts)}]" if is_array else "\n".join(parts))
    assert found.keys == {5} or found.lost_track is not None
    assert found.keys == {5} or before > 28
    assert (found.fault is None) == (before + after == 0)
    # The row and what it is wrapped in cost something, too.
    assert (found.lost_track is None) or before + after > 28
    assert (found.lost_track is not None) or before + after < 31


@pytest.mark.parametrize("between", ["", "\n", "}", "\nnot json\n", "\n{\n", '\n{"id": [\n'])
def test_what_is_no_json_does_not_hide_its_neighbours(between: str) -> None:
    first, last = (json.dumps(dms(data={"id": n}), indent=1) for n in (5, 6))
    found = demand(f"{first}{between}\n{last}")
    assert found.keys == {5, 6}
    assert (found.fault is None) == (not between.strip())


def test_a_text_of_many_broken_lines_is_given_up_before_it_costs_much() -> None:
    lines = "[0,\n" * 100_000
    found = demand(json.dumps(dms(data={"id": 5})) + "\n" + lines)
    assert found.keys == {5}
    assert found.counts["unknown", Kind.UNREADABLE] < 10


def test_an_empty_record_is_the_tombstone_of_a_key() -> None:
    for body in (
        {**kinesis(""), "data": ""},
        {**kinesis(""), "data": None},
        kinesis(" \n"),
        on_a_bus({**kinesis(""), "data": ""}),
        {"Records": [{"eventSource": "aws:sqs", "body": ""}]},
        {"payload": None},
        "\ufeff",
    ):
        found = demand(body)
        assert (found.keys, found.fault) == (set(), None), body
        assert [kind for _, kind in found.counts if kind is Kind.TOMBSTONE], body


def test_half_a_surrogate_pair_in_a_key_cannot_be_sent_on() -> None:
    body = json.dumps(dms("claim_requirements", data={"id": "a", "claim_id": 7}))
    broken = demand(body.replace('"a"', '"a\\ud83d"'))
    assert broken.keys == {RowKey("claims", "7")}
    alone = demand(
        json.dumps(dms("claim_requirements", data={"id": "a"})).replace('"a"', '"\\udc00"')
    )
    assert alone.keys == {RowKey("claim_requirements", "\ufffd")}


@pytest.mark.parametrize(
    "written",
    ["USERS", "Users", "`users`", '"USERS"', "mainapp.users", "`mainapp`.`USERS`", "[users]"],
)
def test_a_table_is_known_by_any_spelling_of_its_name(written: str) -> None:
    for body in (
        dms(written, data={"Id": 7}),
        debezium(written, after={"`id`": 7}),
        maxwell(written, data={"ID": 7}),
    ):
        assert (demand(body).keys, demand(body).fault) == ({7}, None)
    assert demand(debezium(written, "t")).lost_track == LostTrack(
        "users", "truncate-table", "debezium"
    )
    (file,) = arrival(s3_record(f"mainapp/{written.rpartition('.')[2]}/a.csv")).files
    assert file.table == "users"


def test_names_that_only_resemble_ours_are_foreign() -> None:
    for written in ("users_old", "xusers", "users.archive", ""):
        assert demand([dms(written or "x", data={"id": 7})]).keys == set()


def test_a_column_that_is_there_twice_is_taken_as_it_is_spelt() -> None:
    assert demand(dms("claims", data={"id": 9, "USER_ID": 4, "user_id": 5})).keys == {5}


def test_before_images_in_small_letters_count() -> None:
    row = {"id": 9, "user_id": 5, "bi_id": 9, "bi_user_id": 4}
    assert demand(dms("claims", data=row)).keys == {4, 5}
    told: dict[str, object] = {
        "data": {"id": 9, "user_id": 5},
        "before_image": {"id": 9, "user_id": 4},
    }
    told["metadata"] = {"operation": "update", "table_name": "claims"}
    assert demand(told).keys == {4, 5}


@pytest.mark.parametrize(
    "body",
    [
        {
            "requestContext": {"functionArn": "arn", "condition": "RetryAttemptsExhausted"},
            "version": "1.0",
            "KinesisBatchInfo": {"shardId": "shardId-0", "batchSize": 500},
        },
        {
            "context": {"partnerResourceArn": "arn", "condition": "RetryAttemptsExhausted"},
            "version": "1.0",
            "KinesisBatchInfo": {"shardId": "shardId-0", "batchSize": 1},
        },
        {"requestContext": {"condition": "EventAgeExceeded"}, "version": "1.0"},
    ],
)
def test_a_batch_that_was_given_up_asks_for_a_full_run(body: object) -> None:
    found = demand(body)
    assert found.lost_track == LostTrack("", "batch-given-up", "failed_batch")
    assert found.fault is None


def test_an_event_of_an_aws_service_on_a_bus_concerns_no_person() -> None:
    event = on_a_bus({"state": "running"})
    assert demand(event | {"source": "aws.ec2"}).counts == {("event_bus", Kind.CONTROL): 1}
    assert demand(event).fault == "FORMAT_UNKNOWN"
    partner = on_a_bus(dms(data={"id": 5})) | {"source": "aws.partner/x"}
    assert demand(partner).keys == {5}


@pytest.mark.parametrize(("pack", "layers"), [(gzip.compress, 14), (kpl, 14)])
def test_packing_of_packing_has_an_end(pack: Callable[[bytes], bytes], layers: int) -> None:
    content = json.dumps(dms(data={"id": 5})).encode()
    for _ in range(layers):
        content = base64.b64encode(pack(content))
    assert demand(content.decode()).fault == "NESTED_TOO_DEEPLY"


def test_base64_of_base64_ends_by_itself() -> None:
    content = json.dumps(dms(data={"id": 5})).encode()
    for _ in range(24):
        content = base64.b64encode(content)
    assert demand(content.decode()).keys == {5}
