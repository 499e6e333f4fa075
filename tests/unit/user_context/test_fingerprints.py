"""Row checksums: the expression made from the description, the records, the load limiter."""

import math
import re
from functools import reduce
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainapp import description
from mainapp.description import Description
from servicekit.errors import InvalidArgument
from services.user_context import domain
from services.user_context.mysql import fingerprints
from services.user_context.mysql.chunk_reader import LEAST_ROWS, MOST_ROWS, ChunkLoadLimiter
from services.user_context.mysql.fingerprints import (
    RowChecksums,
    combined,
    edition_of,
    expression,
    folded,
    packed,
)

_DESCRIBED = description.load()
_WORDS = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("name", _DESCRIBED.tables)
def test_the_expression_has_every_described_column_once_and_no_other(name: str) -> None:
    table = _DESCRIBED.tables[name]

    found = re.findall(r"`(\w+)`\.`(\w+)`", expression(name, table))

    assert found == [(name, column) for column in table.columns]
    assert not {column for _, column in found} & _DESCRIBED.secret_columns


def test_another_main_app_is_another_description() -> None:
    described = Description.model_validate(
        {
            "tables": {
                "clients": {
                    "key": "no",
                    "user": {"column": "no"},
                    "columns": {"no": "uint64", "extra": "json", "name": "text"},
                }
            }
        }
    )

    assert expression("clients", described.tables["clients"]) == (
        "CRC32(CONCAT_WS('\x1f', `clients`.`no`,"
        " IFNULL(REPLACE(REPLACE(`clients`.`extra`, ', ', ','), ': ', ':'), '\\0'),"
        " IFNULL(`clients`.`name`, '\\0'))) * 2654435761"
    )


def test_another_description_is_another_edition() -> None:
    tables = dict(_DESCRIBED.tables)
    columns = dict(tables["claims"].columns)
    columns.popitem()
    tables["claims"] = tables["claims"].model_copy(update={"columns": columns})

    assert edition_of(tables) != edition_of(_DESCRIBED.tables)


def test_another_way_to_read_facts_is_another_edition(monkeypatch: pytest.MonkeyPatch) -> None:
    before = edition_of(_DESCRIBED.tables)
    monkeypatch.setattr(fingerprints, "READING", "the first phone number in the field")
    assert edition_of(_DESCRIBED.tables) != before


@given(st.lists(_WORDS))
def test_folding_before_and_after_combining_is_the_same(rows: list[int]) -> None:
    assert folded(reduce(xor, rows, 0)) == reduce(xor, map(folded, rows), 0) < 2**32


@given(st.lists(st.tuples(st.integers(1, 3), _WORDS)))
def test_rows_of_one_owner_are_combined_in_any_order(rows: list[tuple[int, int]]) -> None:
    assert combined(rows) == combined(reversed(rows))


def test_records_are_the_person_and_then_claims_by_rising_id() -> None:
    low, high = 0x1_0000_0002, 0x10_0000_0000
    reading = RowChecksums(
        users={7: low, 8: 5},
        claims=[(2**64 - 1, 7, 6), (3, 7, high), (4, 9, 1)],
        addresses={7: 9},
        requirements={3: 11, 4: 12},
        vehicle_packages={2**64 - 1: 13},
    )

    found = packed(reading, 0x0400_0302)

    assert found.keys() == {7, 8}
    assert found[8] == bytes([5, *[0] * 11, 2, 3, 0, 4])
    assert found[7] == b"".join(
        (
            bytes([3, 0, 0, 0, 0x16, 0, 0, 0, 9, 0, 0, 0, 2, 3, 0, 4]),
            bytes([3, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0]),
            bytes([*[0xFF] * 8, 0, 0, 0, 0, 13, 0, 0, 0]),
        )
    )


def test_a_slow_chunk_is_halved_and_a_quick_one_grows_back() -> None:
    limiter = ChunkLoadLimiter(1.0)
    sizes = []
    for seconds in (0.1, 1.1, 3.0, 0.5, 0.2, 0.2, 0.2):
        limiter.took(seconds)
        sizes.append(limiter.rows)

    assert sizes == [MOST_ROWS, 10_000, 5_000, 5_000, 10_000, MOST_ROWS, MOST_ROWS]
    for _ in range(20):
        limiter.took(9.0)
    assert limiter.rows == LEAST_ROWS


@pytest.mark.parametrize(("share", "rest"), [(1.0, 0.0), (0.5, 2.0), (0.25, 6.0)])
def test_mysql_rests_in_proportion_to_its_work(share: float, rest: float) -> None:
    assert ChunkLoadLimiter(share).rest_seconds(2.0) == rest


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(InvalidArgument, match="LOAD_SHARE_OUT_OF_RANGE"):
        domain.load_share(share)


def test_ranges_that_no_id_is_in_are_left_out() -> None:
    assert domain.owner_ranges(16, [3, 3, 2**60 - 1, 2**60, 2**64 - 1]) == [3, 2**60 - 1]
