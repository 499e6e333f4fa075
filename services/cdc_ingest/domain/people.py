"""From a changed row to the people it concerns, by the description of the main app."""

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import NamedTuple, TypeAlias

from mainapp.description import ColumnType, Description, Table
from services.cdc_ingest.domain.records import Image, LostTrack, Record, RowChange, UnreadableError

MAX_UINT64 = 2**64 - 1
MAX_KEY_CHARACTERS = 64


class RowKey(NamedTuple):
    """A row of the main app whose person is not known yet; numbers as plain decimals."""

    table: str
    key: str


Key: TypeAlias = int | RowKey
"""Somebody to refresh: `users.id`, or a row that leads to a person."""


@dataclass(slots=True)
class Demand:
    """Whom the records of one message concern.

    `by_transaction` tells a lone change from the bulk it was packed with. `owners` says where the
    rows in the message lead, so that a child need not ask for a parent that came along with it.
    """

    by_transaction: dict[str, set[Key]] = field(default_factory=dict)
    owners: dict[RowKey, set[Key]] = field(default_factory=dict)
    lost_track: LostTrack | None = None
    ignored: int = 0
    fault: str | None = None

    @property
    def keys(self) -> set[Key]:
        """Everybody concerned."""
        return set().union(*self.by_transaction.values())


class PersonMap:
    """Tells whom a changed row concerns; every image of a row counts, so a move finds both."""

    def __init__(self, description: Description) -> None:
        self._tables = description.tables
        self._parents = {step.table for step in (t.user for t in description.tables.values())}

    def demand(self, records: Iterable[Record]) -> Demand:
        """Return whom `records` concern; a record with a nonsensical key sets `fault`."""
        demand = Demand()
        for record in records:
            if isinstance(record, RowChange) and record.table in self._tables:
                self._add(record, self._tables[record.table], demand)
            elif isinstance(record, LostTrack) and self._is_ours(record):
                demand.lost_track = demand.lost_track or record
            else:
                demand.ignored += 1
        return demand

    def _is_ours(self, record: LostTrack) -> bool:
        return not record.table or record.table in self._tables

    def _add(self, change: RowChange, table: Table, demand: Demand) -> None:
        try:
            rows = set(self._row_keys(change, table))
            owners = set(self._owners(change, table))
        except UnreadableError as error:
            demand.fault = demand.fault or error.reason
            return
        for row in rows if owners and change.table in self._parents else ():
            demand.owners.setdefault(row, set()).update(owners)
        keys = owners or rows
        if keys:
            demand.by_transaction.setdefault(change.transaction, set()).update(keys)
        else:
            demand.ignored += 1

    def _owners(self, change: RowChange, table: Table) -> Iterator[Key]:
        step = table.user
        for image in change.images:
            if step.table is not None:
                key = _key_text(image, step.column, self._key_type(step.table))
                if key is not None:
                    yield RowKey(step.table, key)
            elif user_id := _uint64(image.get(step.column)):
                yield user_id

    def _row_keys(self, change: RowChange, table: Table) -> Iterator[RowKey]:
        for image in change.images:
            key = _key_text(image, table.key, table.columns[table.key].type)
            if key is not None and change.table != "users":
                yield RowKey(change.table, key)

    def _key_type(self, table: str) -> ColumnType:
        description = self._tables[table]
        return description.columns[description.key].type


def place(
    rows: Iterable[RowKey], owners: Mapping[RowKey, Set[Key]]
) -> tuple[set[int], set[RowKey]]:
    """Return the people `owners` leads to from `rows`, and the rows it does not know."""
    users: set[int] = set()
    unknown: set[RowKey] = set()
    seen: set[RowKey] = set()
    waiting = list(rows)
    while waiting:
        row = waiting.pop()
        if row in seen:
            continue
        seen.add(row)
        found = owners.get(row)
        if found is None:
            unknown.add(row)
            continue
        for key in found:
            if isinstance(key, RowKey):
                waiting.append(key)
            else:
                users.add(key)
    return users, unknown


def _key_text(image: Image, column: str, kind: ColumnType) -> str | None:
    value = image.get(column)
    if kind is ColumnType.UINT64:
        number = _uint64(value)
        return None if number is None else str(number)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_KEY_CHARACTERS:
        raise UnreadableError("KEY_NOT_TEXT")
    return value


def _uint64(value: object) -> int | None:
    """Return the number, exact to the last digit; None for NULL, which JSON may show as ''.

    Raises:
        UnreadableError: not a number, out of range, or a float too large to be exact.
    """
    if value is None or value == "":
        return None
    number = _whole(value)
    if number is None or not 0 <= number <= MAX_UINT64:
        raise UnreadableError("KEY_NOT_A_NUMBER")
    return number


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        exact = math.isfinite(value) and value.is_integer() and abs(value) < 2**53
        return int(value) if exact else None
    if isinstance(value, str) and len(value) <= MAX_KEY_CHARACTERS:
        return _whole_text(value)
    return None


def _whole_text(value: str) -> int | None:
    if value.isascii() and value.isdecimal():
        return int(value)
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    # An exponent of millions would be a number of millions of digits.
    if not number.is_finite() or number.adjusted() > MAX_KEY_CHARACTERS:
        return None
    return int(number) if number == number.to_integral_value() else None
