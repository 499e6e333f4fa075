"""Lists of phone numbers, however they are spelt and wherever they are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import InvalidArgument
from services.queue.wire.phone_list import PhoneListReader

_CSV = (
    "\ufeffid,Phone,note\r\n"
    '1,07700 900001,"a, b"\r\n'
    "\r\n"
    '2,"+44 7700 900002",é\n'
    "3,noname,x\n"
    "4\n"
    "5,7700900003,last without an end"
).encode()


@given(cuts=st.lists(st.integers(0, len(_CSV)), max_size=8))
def test_a_file_may_be_cut_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(_CSV)]
    reader = PhoneListReader()
    found: list[str] = []
    for start, end in pairwise(edges):
        found += reader.feed(_CSV[start:end])
    found += reader.feed(b"", is_last=True)
    assert found == ["+447700900001", "+447700900002", "+447700900003"]
    assert (reader.lines, reader.invalid, reader.invalid_lines) == (5, 2, [5, 6])


def test_without_a_heading_the_first_column_counts() -> None:
    reader = PhoneListReader()
    assert reader.feed(b"07700900001\n07700900002,x\n") == ["+447700900001", "+447700900002"]


def test_every_number_of_a_cell_counts() -> None:
    reader = PhoneListReader()
    found = reader.feed(
        b'phone,name\n"07700900001, 07700900002",x\n07700900003 (mobile),y\n'
        b'07700900004 / 020 7946 0018,z\n447700900005.0,z\n="07700900006",z\nask,z\n'
    )
    assert found == [
        "+447700900001", "+447700900002", "+447700900003", "+447700900004", "+442079460018",
        "+447700900005", "+447700900006",
    ]  # fmt: skip
    assert (reader.lines, reader.invalid, reader.invalid_lines) == (6, 1, [7])


def test_only_the_first_invalid_lines_are_told() -> None:
    reader = PhoneListReader()
    assert reader.feed(b"noname\n" * 250) == []
    assert (reader.invalid, reader.invalid_lines) == (250, list(range(1, 101)))


@pytest.mark.parametrize("cut", [0, 9_000, 10_400])
def test_a_line_too_long_is_refused_wherever_it_is_cut(cut: int) -> None:
    line = b"07700900123" + b" " * 10_500 + b"\n07700900124\n"
    reader = PhoneListReader()

    def read() -> None:
        for part in (line[:cut], line[cut:]):
            reader.feed(part)

    with pytest.raises(InvalidArgument) as raised:
        read()
    assert raised.value.reason == "CSV_LINE_TOO_LONG"


@given(parts=st.lists(st.binary(max_size=40), max_size=6))
def test_no_bytes_do_harm(parts: list[bytes]) -> None:
    reader = PhoneListReader()
    try:
        for part in [*parts, b""]:
            reader.feed(part)
        reader.feed(b"", is_last=True)
    except InvalidArgument as error:
        assert error.reason == "CSV_NOT_UTF8"  # noqa: PT017 - either outcome is right
