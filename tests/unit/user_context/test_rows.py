"""Values are the same whether they are read row by row or column by column."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mainapp.description import ColumnType, Table
from services.user_context.mysql.rows import NO_MOMENT, ColumnReader, RowReader

# What drivers and servers hand over for a column of each type, the odd included.
_GIVEN: dict[str, st.SearchStrategy[Any]] = {
    "uint64": st.integers(0, 2**64 - 1) | st.integers(0, 9).map(str),
    "uuid": st.text(max_size=3) | st.binary(max_size=3),
    "text": st.none() | st.text(max_size=3) | st.binary(max_size=3) | st.integers(0, 9),
    "bool": st.none() | st.booleans() | st.sampled_from([0, 1, 2]),
    "date": st.none() | st.dates() | st.just("0000-00-00"),
    "timestamp": st.none()
    | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001
        lambda moment: moment.replace(microsecond=0)
    )
    | st.just("0000-00-00 00:00:00"),
    "decimal": st.none() | st.decimals("-9", "9", places=2),
}
# What rows hold for them, besides NULL.
_KEPT: dict[str, set[type]] = {
    "uint64": {int},
    "uuid": {str},
    "text": {str},
    "bool": {bool},
    "date": {date},
    "timestamp": {datetime},
    "decimal": {str},
}
_TABLE = Table.model_validate(
    {
        "key": "uint64",
        "user": {"column": "uint64"},
        "columns": {name: {"type": name, "as": f"our_{name}"} for name in _GIVEN},
    }
)


def _as_in_columns(value: object, name: str) -> object:
    if _TABLE.columns[name].type is not ColumnType.TIMESTAMP:
        return value
    return NO_MOMENT if value is None else int((value - _EPOCH).total_seconds())  # type: ignore[operator]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.lists(st.tuples(*_GIVEN.values()), max_size=5))
def test_columns_hold_what_rows_do(rows: list[tuple[Any, ...]]) -> None:
    row_reader = RowReader(_TABLE, _TABLE.columns)
    column_reader = ColumnReader(_TABLE, row_reader.names)

    found = column_reader.columns(rows)

    for name, column in zip(_TABLE.columns, found, strict=True):
        values = [row[f"our_{name}"] for row in row_reader.rows(rows)]
        assert set(map(type, values)) <= _KEPT[name] | {type(None)}, name
        expected = [_as_in_columns(value, name) for value in values]
        assert list(column) == expected, name
        assert list(map(type, column)) == list(map(type, expected)), name


def test_a_column_of_the_usual_is_passed_on_as_it_is() -> None:
    rows = [(1, "a", "b", True, date(2000, 1, 1), datetime(1970, 1, 2), Decimal("1.50"))]  # noqa: DTZ001

    found = ColumnReader(_TABLE, RowReader(_TABLE, _TABLE.columns).names).columns(rows)

    assert found[5] == [86_400]
    assert found[6] == ["1.50"]
