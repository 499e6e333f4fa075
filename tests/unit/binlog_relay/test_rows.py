"""Decoding of what MariaDB does not write: MySQL's binary JSON; and tables that cannot be read."""

import json
import struct
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysqlreplication.constants import FIELD_TYPE

from services.binlog_relay.binlog.rows import decoding_plan
from services.binlog_relay.binlog.values import UnreadableColumnError


@dataclass
class Column:
    """A column as a table map event describes it."""

    name: str | None
    type: int = FIELD_TYPE.LONG
    unsigned: bool = False
    character_set_name: str | None = None
    length_size: int = 4
    max_length: int = 20


def document(*pairs: tuple[str, int]) -> bytes:
    """Return a small object of 16-bit integers in MySQL's binary form, with its type in front."""
    header = 4 + len(pairs) * (4 + 3)
    keys, entries, names = b"", b"", b""
    for name, number in pairs:
        keys += struct.pack("<HH", header + len(names), len(name))
        entries += struct.pack("<Bh", 5, number)
        names += name.encode()
    size = header + len(names)
    return b"\x00" + struct.pack("<HH", len(pairs), size) + keys + entries + names


def test_binary_json_becomes_text() -> None:
    body = document(("a", 1), ("b", -7))
    data = b"\x00" + struct.pack("<I", len(body)) + body + struct.pack("<i", 5)
    columns = [Column("doc", FIELD_TYPE.JSON), Column("id")]
    [image] = decoding_plan(columns, {"doc", "id"}).images(data, [b"\x03"])
    assert json.loads(str(image["doc"])) == {"a": 1, "b": -7}
    assert image["id"] == 5


def test_unwanted_json_is_not_even_parsed() -> None:
    data = b"\x00" + struct.pack("<I", 3) + b"\xff\xff\xff" + struct.pack("<i", 5)
    columns = [Column("doc", FIELD_TYPE.JSON), Column("id")]
    assert decoding_plan(columns, {"id"}).images(data, [b"\x03"]) == [{"id": 5}]


def test_a_column_without_a_name_is_refused() -> None:
    with pytest.raises(UnreadableColumnError):
        decoding_plan([Column(None)], {"id"})


def test_an_unknown_type_is_refused_by_name_even_unwanted() -> None:
    # Then the layout of the others is not known either, and their type is NULL.
    columns = [Column("id", FIELD_TYPE.NULL), Column("novel", 243)]
    with pytest.raises(UnreadableColumnError, match="column novel: column type 243"):
        decoding_plan(columns, {"id"})


def test_a_wanted_column_that_cannot_be_read_is_skipped() -> None:
    data = b"\x00" + struct.pack("<I", 3) + b"\xff\xff\xff" + struct.pack("<i", 5)
    columns = [Column("place", FIELD_TYPE.GEOMETRY), Column("id")]
    made = decoding_plan(columns, {"id", "place"}, {"id"})
    assert made.unread == ["place"]
    assert made.images(data, [b"\x03"]) == [{"id": 5}]


def test_a_needed_column_that_cannot_be_read_is_named() -> None:
    columns = [Column("place", FIELD_TYPE.GEOMETRY), Column("id")]
    with pytest.raises(UnreadableColumnError, match="column place"):
        decoding_plan(columns, {"id", "place"}, {"place"})


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), min_size=11,
                         max_size=11), max_size=5))  # fmt: skip
def test_nulls_are_found_whatever_their_pattern(rows: list[list[int | None]]) -> None:
    columns = [Column(f"c{number}") for number in range(11)]
    wanted = {"c0", "c3", "c7", "c8", "c10"}
    data = b"".join(encoded(row) for row in rows)
    expected: list[dict[str, Any]] = [
        {f"c{n}": value for n, value in enumerate(row) if f"c{n}" in wanted} for row in rows
    ]
    assert decoding_plan(columns, wanted).images(data, [b"\xff\x07"]) == expected


def encoded(row: list[int | None]) -> bytes:
    nulls = sum(1 << number for number, value in enumerate(row) if value is None)
    values = b"".join(struct.pack("<i", value) for value in row if value is not None)
    return nulls.to_bytes(2, "little") + values
