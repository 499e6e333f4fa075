"""From a changed row to the people it concerns, by the description of the main app."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from mainapp.description import ColumnType, Description
from services.cdc_ingest.domain.keys import NOT_EXACT, key_text
from services.cdc_ingest.domain.records import (
    Kind,
    LostTrack,
    Operation,
    Record,
    RowChange,
    UnreadableError,
)


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
    `is_inexact` says that a key was refused which the body may yet show to the last digit.
    """

    by_transaction: dict[str, set[Key]] = field(default_factory=dict)
    owners: dict[RowKey, set[Key]] = field(default_factory=dict)
    lost_track: LostTrack | None = None
    fault: str | None = None
    is_inexact: bool = False
    counts: Counter[tuple[str, Kind]] = field(default_factory=Counter)

    @property
    def keys(self) -> set[Key]:
        """Everybody concerned."""
        return set().union(*self.by_transaction.values())

    @property
    def records(self) -> int:
        """How many records there were that could be read."""
        return sum(n for (_, kind), n in self.counts.items() if kind not in _NO_RECORDS)

    @property
    def ignored(self) -> int:
        """How many of them concern nobody."""
        return sum(n for (_, kind), n in self.counts.items() if kind not in _NOT_IGNORED)

    def lose(self, record: LostTrack) -> None:
        """Want a full run, for the tables of all records like this one."""
        if self.lost_track is None:
            self.lost_track = record
            return
        tables = [*self.lost_track.table.split(", "), record.table]
        named = ", ".join(dict.fromkeys(tables)) if all(tables) else ""
        self.lost_track = LostTrack(named, self.lost_track.cause, self.lost_track.format)

    def absorb(self, other: "Demand") -> None:
        """Add what another part of the same message demands."""
        for transaction, keys in other.by_transaction.items():
            self.by_transaction.setdefault(transaction, set()).update(keys)
        for row, keys in other.owners.items():
            self.owners.setdefault(row, set()).update(keys)
        if other.lost_track is not None:
            self.lose(other.lost_track)
        self.fault = self.fault or other.fault
        self.is_inexact = self.is_inexact or other.is_inexact
        self.counts.update(other.counts)


_NO_RECORDS = frozenset({Kind.ENVELOPE, Kind.UNREADABLE, Kind.HEARTBEAT})
_NOT_IGNORED = _NO_RECORDS | {Kind.ROW, Kind.LOST_TRACK}


@dataclass(frozen=True, slots=True)
class _Route:
    """The way from a row of one table to its person, and what is written on the signposts.

    `owner_table` is empty when `owner` holds the person; `is_person` when that is the key itself.
    """

    key: str
    key_type: ColumnType
    owner: str
    owner_type: ColumnType
    owner_table: str
    is_person: bool
    is_parent: bool


class PersonMap:
    """Tells whom a changed row concerns; every image of a row counts, so a move finds both."""

    def __init__(self, description: Description) -> None:
        self._routes = {name: _route(description, name) for name in description.tables}

    def is_ours(self, table: str) -> bool:
        """Tell whether changes of the table concern anybody."""
        return table in self._routes

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the columns of one of our tables that lead to the person, its key first."""
        route = self._routes[table]
        return tuple(dict.fromkeys((route.key, route.owner)))

    def demand(self, records: Iterable[Record]) -> Demand:
        """Return whom `records` concern; a record with a nonsensical key sets `fault`."""
        demand = Demand()
        self.add(records, demand)
        return demand

    def add(self, records: Iterable[Record], demand: Demand) -> None:
        """Add whom `records` concern; what stops `records` leaves those before it added."""
        for record in records:
            if isinstance(record, RowChange):
                kind = self._add(record, demand)
            elif isinstance(record, LostTrack):
                kind = self._lose(record, demand)
            else:
                kind = record.kind
            demand.counts[record.format, kind] += 1

    def _lose(self, record: LostTrack, demand: Demand) -> Kind:
        if record.table and not self.is_ours(record.table):
            return Kind.FOREIGN
        demand.lose(record)
        return Kind.LOST_TRACK

    def _add(self, change: RowChange, demand: Demand) -> Kind:
        route = self._routes.get(change.table)
        if route is None:
            return Kind.FOREIGN
        try:
            rows = set(_row_keys(change, route))
            owners = set(_owners(change, route))
            if not owners and not rows:
                raise UnreadableError("ROW_NOT_IDENTIFIED")
        except UnreadableError as error:
            demand.fault = demand.fault or error.reason
            demand.is_inexact = demand.is_inexact or error.reason == NOT_EXACT
            return Kind.UNREADABLE
        if not owners and _is_gone_without_trace(change, route):
            return self._lose(LostTrack(change.table, "delete-of-key-alone"), demand)
        if owners and route.is_parent:
            for row in rows:
                demand.owners.setdefault(row, set()).update(owners)
        demand.by_transaction.setdefault(change.transaction, set()).update(owners or rows)
        return Kind.ROW


def _route(description: Description, name: str) -> _Route:
    table = description.tables[name]
    owner_table = table.user.table or ""
    parent = description.tables.get(owner_table)
    return _Route(
        key=table.key,
        key_type=table.columns[table.key].type,
        owner=table.user.column,
        owner_type=parent.columns[parent.key].type if parent else ColumnType.UINT64,
        owner_table=owner_table,
        is_person=not owner_table and table.user.column == table.key,
        is_parent=any(other.user.table == name for other in description.tables.values()),
    )


def _owners(change: RowChange, route: _Route) -> Iterator[Key]:
    for image in change.images:
        key = key_text(image, route.owner, route.owner_type, wraps=change.wraps_unsigned)
        if key is not None and route.owner_table:
            yield RowKey(route.owner_table, key)
        elif key is not None and (user_id := int(key)):
            yield user_id


def _row_keys(change: RowChange, route: _Route) -> Iterator[RowKey]:
    for image in change.images if not route.is_person else ():
        key = key_text(image, route.key, route.key_type, wraps=change.wraps_unsigned)
        if key is not None:
            yield RowKey(change.table, key)


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


def _is_gone_without_trace(change: RowChange, route: _Route) -> bool:
    """Tell whether a deletion shows nothing of the row but its key: no one can look it up now."""
    return change.operation is Operation.DELETE and not any(
        value is not None and column != route.key
        for image in change.images
        for column, value in image.items()
    )
