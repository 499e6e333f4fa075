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

    Values that the server has ``computed`` follow under their names, unchanged.
    """

    def __init__(
        self, table: Table, columns: Iterable[str], computed: tuple[str, ...] = ()
    ) -> None:
        ordered = dict.fromkeys((table.key, *columns))
        described = {table.our_name(name): table.columns[name].type for name in ordered}
        self.names = (*described, *computed)
        self._texts = tuple(name for name, kind in described.items() if kind in _TEXTS)
        self._conversions = tuple(
            (name, _CONVERSIONS[kind]) for name, kind in described.items() if kind not in _TEXTS
        )

    def row(self, values: Values) -> Row:
        """Return one row; ``values`` are in the order of ``names``."""
        row = dict(zip(self.names, values, strict=True))
        for name in self._texts:
            value = row[name]
            # Nearly all are texts already, and a call for each would cost time.
            if value.__class__ is not str and value is not None:
                row[name] = _text(value)
        for name, convert in self._conversions:
            value = row[name]
            if value is not None:
                row[name] = convert(value)
        return row


class ColumnReader:
    """Turns many rows into columns with the values of a RowReader, except for moments.

    Moments are whole seconds since 1970, NO_MOMENT for NULL. Converting a column at a time costs a
    fraction of converting value by value, as nearly every column of a page needs no conversion.
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
            elif set(map(type, values)) <= _PLAIN.get(kind, _NO_TYPES):
                found.append(values)
            else:
                convert = _text if kind in _TEXTS else _CONVERSIONS[kind]
                found.append([None if value is None else convert(value) for value in values])
        return found


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
