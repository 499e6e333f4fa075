"""Any message is read or refused, without effect on its neighbours."""

import json
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mainapp import description
from services.cdc_ingest.domain.formats.records import UnreadableError
from services.cdc_ingest.domain.people import RowKey
from services.cdc_ingest.files.file_rows import rows_of_csv, rows_of_parquet
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

SAMPLE_FILES = sorted((Path(__file__).parents[2] / "samples").glob("*.json"))
SAMPLES = [path.read_text() for path in SAMPLE_FILES]
SCHEMA = {"fields": [{"field": "after", "fields": [{"field": "id", "name": "x"}]}]}
MADE: list[Any] = [
    dms("claims", data={"id": 1, "user_id": 2}, before={"id": 1, "user_id": 3}),
    debezium("claims", "d", None, {"id": 1, "user_id": 3}),
    debezium("claims", "t"),
    {"schema": SCHEMA, "payload": debezium(after={"id": 1})},
    {"source": {"table": "claims"}, "ddl": "x", "tableChanges": [{"type": "x", "id": "x"}]},
    {"id": 1, "__table": "claims", "__op": "c", "__deleted": "false"},
    maxwell("claims", "update", {"id": 1, "user_id": 2}, {"user_id": 3}),
    maxwell("claims", "table-drop"),
    kinesis(dms(data={"id": 1})),
    sns(dms(data={"id": 1})),
    {"Records": [s3_record("a/mainapp/claims/x.csv", versionId="v")]},
    s3_eventbridge("mainapp/claims/x.parquet"),
]
KNOWN = [json.loads(text) for text in SAMPLES] + MADE


def _words(document: object) -> set[str]:
    """Names of fields, and texts, that mean something in some format."""
    if isinstance(document, dict):
        return set(document).union(*map(_words, document.values()))
    if isinstance(document, list):
        return set().union(*map(_words, document))
    return {document} if isinstance(document, str) and len(document) < 40 else set()


WORDS = sorted(set().union(*map(_words, KNOWN)) | set(description.load().tables))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(WORDS)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn) -> object:
    """A known message with a few of its parts replaced, removed, or put elsewhere."""
    document: Any = deepcopy(draw(st.sampled_from(KNOWN)))
    for _ in range(draw(st.integers(1, 3))):
        place = document
        while isinstance(place, dict | list) and place:
            steps = list(place) if isinstance(place, dict) else range(len(place))
            step = draw(st.sampled_from(steps))
            if not isinstance(place[step], dict | list) or draw(st.booleans()):
                if isinstance(place, dict) and draw(st.booleans()):
                    del place[step]
                else:
                    place[step] = deepcopy(draw(ANYTHING | st.sampled_from(KNOWN)))
                break
            place = place[step]
    return document


@st.composite
def garbled(draw: st.DrawFn) -> str:
    """A known message with characters changed, or cut off."""
    text = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.text(max_size=2)) + text[at + draw(st.integers(0, 3)) :]
    return text


def _check(body: str) -> None:
    found = demand(body)
    assert found.fault != "DECODER_FAILED"
    for key in found.keys:
        assert isinstance(key, RowKey) or 0 < key < 2**64
    # A body is read to the end, refused with a reason, or both; never passed over.
    is_noticed = found.counts or found.fault or arrival(body).files or not body.strip("[], \t\r\n")
    assert is_noticed


@settings(max_examples=400, deadline=None)
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")) | garbled())
@example("[" * 100_000)
@example('{"metadata":{"operation":"update","table-name":"users"},"data":{"id":1e999}}')
@example('{"metadata":{"operation":"update","table-name":"users"},"data":{"id":"\\ud800"}}')
@example('{"kinesisSchemaVersion":"1.0","data":"4pyT4pyT"}')
def test_any_text(body: str) -> None:
    _check(body)


@settings(max_examples=600, deadline=None)
@given(ANYTHING | mutated())
def test_any_document(document: object) -> None:
    _check(json.dumps(document))


def _places(document: object) -> Iterator[tuple[Any, Any]]:
    """Every field and element in a document, with what it is in."""
    if isinstance(document, dict | list):
        steps = list(document) if isinstance(document, dict) else range(len(document))
        for step in steps:
            yield document, step
            yield from _places(document[step])


VALUES: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], [1], {}, {"x": 1}, [{}]]


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_every_field_as_every_kind_of_value(number: int) -> None:
    document: Any = [deepcopy(KNOWN[number])]
    for place, step in list(_places(document)):
        kept = place[step]
        for value in VALUES:
            place[step] = value
            _check(json.dumps(document))
        place[step] = kept


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ANYTHING | mutated(), max_size=5),
    st.integers(1, 2**64 - 1),
    st.sampled_from([dms, debezium, maxwell]),
    st.integers(0, 5),
)
def test_no_record_hides_its_neighbour(
    others: list[object], user_id: int, make: Any, place: int
) -> None:
    good = make(**{"after" if make is debezium else "data": {"id": user_id}})
    assert user_id in demand([*others[:place], good, *others[place:]]).keys
    assert user_id in demand([*others[:place], kinesis(good), *others[place:]]).keys


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode()))
@example(b"Op,id,user_id\nU,1")
@example(b"\x1f\x8b")
@example(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03junk")
@example(b'id\n"1')
@example(b"PAR1PAR1")
def test_any_file(content: bytes) -> None:
    for rows in (rows_of_csv, rows_of_parquet):
        with suppress(UnreadableError):
            for row in rows(content, ("Op", "id"), "id"):
                assert set(row) <= {"Op", "id"}
