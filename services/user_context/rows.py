"""Rows of the main app under our names, with values that do not depend on driver or server."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

from mainapp.description import ColumnType, Table
from services.user_context.domain import Row

Values = Sequence[object]


class RowReader:
    """Turns the values of some columns of one table into rows; the table's key comes first."""

    def __init__(self, table: Table, columns: Iterable[str]) -> None:
        ordered = dict.fromkeys((table.key, *columns))
        described = {
            table.columns[name].name_with_us or name: table.columns[name].type for name in ordered
        }
        self.names = tuple(described)
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


_TEXTS = frozenset({ColumnType.UUID, ColumnType.TEXT, ColumnType.JSON})
_CONVERSIONS: dict[ColumnType, Callable[[object], object]] = {
    ColumnType.UINT64: _whole_number,
    ColumnType.BOOL: _flag,
    ColumnType.DATE: _day,
    ColumnType.TIMESTAMP: _moment,
    ColumnType.DECIMAL: _amount,
}
