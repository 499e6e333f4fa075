"""Rows of the main app under our names, with values that do not depend on driver or server."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from mainapp.description import ColumnType, Table
from services.user_context.domain import Row

Values = Sequence[object]

# How columns and streams say NULL for a moment.
NO_MOMENT = -(2**63)


class RowReader:
    """Turns the values of some columns of one table into rows; the table's key comes first.

    Values the server has ``computed`` follow under their names and are left as they are.
    """

    def __init__(
        self, table: Table, columns: Iterable[str], computed: tuple[str, ...] = ()
    ) -> None:
        ordered = dict.fromkeys((table.key, *columns))
        described = {
            table.columns[name].name_with_us or name: table.columns[name].type for name in ordered
        }
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
            # Nearly all are texts already, and there are many: no call for each.
            if value.__class__ is not str and value is not None:
                row[name] = _text(value)
        for name, convert in self._conversions:
            value = row[name]
            if value is not None:
                row[name] = convert(value)
        return row


class ColumnReader:
    """Turns many rows into columns of the values a RowReader gives, moments apart.

    Moments come as whole seconds since 1970, NO_MOMENT for NULL. A column at a time costs a
    fraction of a value at a time, as nearly every column of a page holds what the driver should
    give and nothing else.
    """

    def __init__(self, table: Table, names_with_us: Sequence[str]) -> None:
        kinds = {found.name_with_us or name: found.type for name, found in table.columns.items()}
        self._kinds = tuple(kinds[name] for name in names_with_us)

    def columns(self, rows: Sequence[Values]) -> list[Sequence[Any]]:
        """Return a column for each name, as long as there are rows."""
        if not rows:
            return [()] * len(self._kinds)
        found = zip(*rows, strict=True)
        return [_column(kind, values) for kind, values in zip(self._kinds, found, strict=True)]


def _column(kind: ColumnType, values: Sequence[Any]) -> Sequence[Any]:
    if kind is ColumnType.TIMESTAMP:
        return _seconds(values)
    if set(map(type, values)) <= _PLAIN.get(kind, _NO_TYPES):
        return values
    convert = _text if kind in _TEXTS else _CONVERSIONS[kind]
    return [None if value is None else convert(value) for value in values]


def _seconds(moments: Sequence[Any]) -> list[int]:
    """What the driver cannot represent, such as 0000-00-00, it hands on as text."""
    return [
        (past := moment - _EPOCH).days * 86_400 + past.seconds
        if moment.__class__ is datetime
        else NO_MOMENT
        for moment in moments
    ]


def _whole_number(value: object) -> object:
    return value if isinstance(value, int) else int(str(value))


def _text(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _flag(value: object) -> object:
    return bool(value)


def _day(value: object) -> object:
    # The driver hands a date it cannot represent, such as 0000-00-00, on as text.
    return value if isinstance(value, date) else None


def _moment(value: object) -> object:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else None


def _amount(value: object) -> object:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # as the driver has them, in UTC
_TEXTS = frozenset({ColumnType.UUID, ColumnType.TEXT, ColumnType.JSON})
_CONVERSIONS: dict[ColumnType, Callable[[object], object]] = {
    ColumnType.UINT64: _whole_number,
    ColumnType.BOOL: _flag,
    ColumnType.DATE: _day,
    ColumnType.TIMESTAMP: _moment,
    ColumnType.DECIMAL: _amount,
}
# Types that need no conversion.
_NO_TYPES: frozenset[type] = frozenset()
_PLAIN: dict[ColumnType, frozenset[type]] = {
    **dict.fromkeys(_TEXTS, frozenset({str, type(None)})),
    ColumnType.UINT64: frozenset({int, type(None)}),
    ColumnType.DATE: frozenset({date, type(None)}),
}
