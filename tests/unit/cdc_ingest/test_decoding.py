"""Bodies of every kind, good and bad."""

import json

import pytest

from services.cdc_ingest.domain.formats.decoding import decode_body
from services.cdc_ingest.domain.formats.dms import DmsDecoder
from services.cdc_ingest.domain.formats.records import Record
from services.cdc_ingest.domain.messages import times_of
from tests.unit.cdc_ingest.bodies import demand, dms, kinesis, message


def test_an_array_is_many_records() -> None:
    body = [dms(data={"id": n}) for n in range(1, 4)]
    assert demand(body).keys == {1, 2, 3}
    assert demand([body, [], [body]]).keys == {1, 2, 3}


def test_a_bad_record_does_not_hide_a_good_one() -> None:
    found = demand([3, dms(data={"id": "x"}), dms(data={"id": 5}), {}])
    assert (found.keys, found.fault) == ({5}, "FORMAT_UNKNOWN")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("hello", "BODY_NOT_JSON"),
        ("{", "BODY_NOT_JSON"),
        ("{\n}\n}", "FORMAT_UNKNOWN"),
        ("}\n{\n}", "BODY_NOT_JSON"),
        ("3", "FORMAT_UNKNOWN"),
        ("{}", "FORMAT_UNKNOWN"),
        ("[[[[[[[[[[[[[[3]]]]]]]]]]]]]]", "NESTED_TOO_DEEPLY"),
        ("[" * 100_000, "BODY_NOT_JSON"),
        (dms(data={"id": "x"}), "KEY_NOT_A_NUMBER"),
        (dms(data={"id": True}), "KEY_NOT_A_NUMBER"),
        (dms(data={"id": -(2**63) - 1}), "KEY_NOT_A_NUMBER"),
        (dms("claims", data={"id": -1}), "KEY_NOT_POSITIVE"),
        (dms(data={"id": 2**64}), "KEY_NOT_A_NUMBER"),
        (dms(data={"id": 10**200}), "KEY_NOT_A_NUMBER"),
        (dms(data={"id": 1.5}), "KEY_NOT_A_NUMBER"),
        (dms(data={"id": "1_0"}), "KEY_NOT_A_NUMBER"),
        (dms(data={"id": "\u0665"}), "KEY_NOT_A_NUMBER"),
        (dms(data={"id": [5]}), "KEY_NOT_A_NUMBER"),
        (dms(data={"id": "1e999999999"}), "KEY_NOT_A_NUMBER"),
        (dms("claim_requirements", data={"id": 5}), "KEY_NOT_TEXT"),
        (dms("claim_requirements", data={"id": "x" * 65}), "KEY_NOT_TEXT"),
    ],
)
def test_what_cannot_be_read_says_why(body: object, fault: str) -> None:
    found = demand(body)
    assert (found.fault, found.keys) == (fault, set())


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (str(2**64 - 1), 2**64 - 1),
        (2**64 - 1, 2**64 - 1),
        ("007", 7),
        (12.0, 12),
        ("1.2E1", 12),
        ("18446744073709551615.0", 2**64 - 1),
        ("9.007199254740991e15", 2**53 - 1),
    ],
)
def test_numbers_arrive_intact(written: object, number: int) -> None:
    assert demand(dms(data={"id": written})).keys == {number}


def _with_number(digits: str) -> str:
    return json.dumps(dms("claims", data={"id": 1, "user_id": 0})).replace(
        '"user_id": 0', f'"user_id": {digits}'
    )


@pytest.mark.parametrize(
    ("digits", "number"),
    [
        ("1.234567890123456789E18", 1234567890123456789),
        ("1.8446744073709551615e+19", 2**64 - 1),
        ("18446744073709551615.0", 2**64 - 1),
        ("9007199254740993.0", 2**53 + 1),
    ],
)
def test_large_numbers_written_to_the_last_digit_are_read_so(digits: str, number: int) -> None:
    body = _with_number(digits)
    assert demand(body).keys == {number}
    assert demand(kinesis(body)).keys == {number}


@pytest.mark.parametrize("digits", ["1.2345678901234568e18", "1e16", "9.007199254740993e20"])
def test_large_numbers_that_may_be_rounded_are_refused(digits: str) -> None:
    for body in (_with_number(digits), _with_number(f'"{digits}"')):
        found = demand(body)
        assert (found.keys, found.fault) == (set(), "KEY_NOT_EXACT")


def test_a_rounded_number_costs_its_neighbours_nothing() -> None:
    bodies = [_with_number(n) for n in ("1e16", "1.234567890123456789E18", "5")]
    found = demand(f"[{','.join(bodies)}]")
    assert (found.keys, found.fault) == ({1234567890123456789, 5}, "KEY_NOT_EXACT")


def test_the_slower_parser_is_not_asked_for_depth_it_does_not_have() -> None:
    deep = "[" * 1_010 + "]" * 1_010
    body = _with_number("1e16").replace('"id": 1', f'"id": 1, "deep": {deep}')
    found = demand(f"[{body},{json.dumps(dms(data={'id': 5}))}]")
    assert (found.keys, found.fault) == ({5}, "KEY_NOT_EXACT")


def test_times_are_those_of_the_oldest_record() -> None:
    body = json.dumps([dms(data={"id": n}, timestamp=f"2025-06-02T09:00:0{n}Z") for n in (3, 1, 2)])
    times = times_of(message(body), decode_body(body).records)
    assert times.captured_at is not None
    assert times.captured_at.second == 1
    assert times.committed_at is None


class _Defective:
    """A decoder with a defect."""

    name = "defective"

    def recognises(self, document: object) -> bool:
        return isinstance(document, dict) and "defect" in document

    def decode(self, document: object) -> tuple[Record]:
        raise KeyError("07700900123")


def test_a_defect_of_a_decoder_is_bad_for_its_document_alone() -> None:
    body = json.dumps([{"defect": 1}, dms(data={"id": 5})])
    decoded = decode_body(body, (_Defective(), DmsDecoder()))
    assert len(decoded.records) == 1
    assert decoded.fault == "DECODER_FAILED"
    assert [type(defect) for defect in decoded.defects] == [KeyError]


def test_a_defect_is_logged_without_what_the_message_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(DmsDecoder, "decode", _Defective.decode)
    assert demand(dms(data={"id": 5})).fault == "DECODER_FAILED"
    (logged,) = caplog.records
    assert logged.__dict__["error"] == "KeyError"
    assert "test_decoding.py" in logged.__dict__["at"]
    assert "07700900123" not in str(logged.__dict__)
