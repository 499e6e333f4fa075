"""Rows of the main app under our names, with values that do not depend on driver or server."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from mainapp.description import ColumnType, Table
from services.user_context.domain import Row

Values = Sequence[Any]

# NULL in a column of moments.
NO_MOMENT = -(2**63)


async def driver_rows(connection: AsyncConnection, query: sa.Select[Any]) -> Sequence[Values]:
    """Return the driver's own tuples: making SQLAlchemy's rows of them doubles the cost."""
    cursor = (await connection.execute(query)).cursor
    return () if cursor is None else cursor.fetchall()


class RowReader:
    """Turns the values of some columns of one table into rows; the table's key comes first.

    A column is converted at a time, which costs a fraction of converting value by value, as nearly
    every column needs no conversion. Values that the server has ``computed`` follow under their
    names, unchanged.
    """

    def __init__(
        self, table: Table, columns: Iterable[str], computed: tuple[str, ...] = ()
    ) -> None:
        ordered = dict.fromkeys((table.key, *columns))
        described = {table.our_name(name): table.columns[name].type for name in ordered}
        self.names = (*described, *computed)
        self._kinds: tuple[ColumnType | None, ...] = (
            *described.values(),
            *(None for _ in computed),
        )

    def rows(self, found: Sequence[Values]) -> list[Row]:
        """Return the rows; the values of each are in the order of ``names``."""
        if not found:
            return []
        columns = map(_converted, self._kinds, zip(*found, strict=True))
        return [dict(zip(self.names, values, strict=True)) for values in zip(*columns, strict=True)]


class ColumnReader:
    """Turns many rows into columns with the values of a RowReader, except for moments.

    Moments are whole seconds since 1970, NO_MOMENT for NULL.
    """

    def __init__(self, table: Table, names_with_us: Sequence[str]) -> None:
        kinds = {table.our_name(name): found.type for name, found in table.columns.items()}
        self._kinds = tuple(kinds[name] for name in names_with_us)

    def columns(self, rows: Sequence[Values]) -> list[Sequence[Any]]:
        """Return a column for each name, each with an entry for each row."""
        if not rows:
            return [()] * len(self._kinds)
        found: list[Sequence[Any]] = []
        for kind, values in zip(self._kinds, zip(*rows, strict=True), strict=True):
            if kind is ColumnType.TIMESTAMP:
                # The driver returns a text for what it cannot represent, such as 0000-00-00.
                found.append(
                    [
                        (past := moment - _EPOCH).days * 86_400 + past.seconds
                        if moment.__class__ is datetime
                        else NO_MOMENT
                        for moment in values
                    ]
                )
            else:
                found.append(_converted(kind, values))
        return found


def _converted(kind: ColumnType | None, values: Sequence[Any]) -> Sequence[Any]:
    """Return the values of one column as rows have them; of no kind are those the server made."""
    if kind is None or set(map(type, values)) <= _PLAIN.get(kind, _NO_TYPES):
        return values
    convert = _text if kind in _TEXTS else _CONVERSIONS[kind]
    return [None if value is None else convert(value) for value in values]


def _text(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # as the driver has them, in UTC
_TEXTS = frozenset({ColumnType.UUID, ColumnType.TEXT, ColumnType.JSON})
# The driver returns a text for a date or a moment that it cannot represent, such as 0000-00-00.
_CONVERSIONS: dict[ColumnType, Callable[[Any], object]] = {
    ColumnType.UINT64: lambda value: value if isinstance(value, int) else int(str(value)),
    ColumnType.BOOL: bool,
    ColumnType.DATE: lambda value: value if isinstance(value, date) else None,
    ColumnType.TIMESTAMP: lambda value: (
        value.replace(tzinfo=UTC) if isinstance(value, datetime) else None
    ),
    ColumnType.DECIMAL: lambda value: (
        format(value, "f") if isinstance(value, Decimal) else str(value)
    ),
}
# Types that need no conversion.
_NO_TYPES: frozenset[type] = frozenset()
_PLAIN: dict[ColumnType, frozenset[type]] = {
    **dict.fromkeys(_TEXTS, frozenset({str, type(None)})),
    ColumnType.UINT64: frozenset({int, type(None)}),
    ColumnType.DATE: frozenset({date, type(None)}),
}
