"""Maps a changed row to the people it concerns, by the description of the main app."""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from mainapp.description import ColumnType, Description
from services.cdc_ingest.domain.formats.keys import NOT_EXACT, NOT_POSITIVE, is_same, key_text
from services.cdc_ingest.domain.formats.records import (
    ChangeRecord,
    Kind,
    LostTrack,
    Operation,
    Record,
    UnreadableError,
)
from services.cdc_ingest.domain.naming import Names


class RowKey(NamedTuple):
    """A row of the main app whose person is not known yet; a number is a plain decimal."""

    table: str
    key: str


Key: TypeAlias = int | RowKey
"""A person to refresh: `users.id`, or a row that leads to one."""


@dataclass(slots=True)
class Demand:
    """The people that the records of one message concern.

    `by_transaction` separates a small change from bulk changes in the same message. `owners` maps
    the rows in the message to the keys they lead to, so that the parent of a child in the same
    message need not be looked up. `is_inexact` is true when a key was refused that an exact parse
    of the body may show.
    """

    by_transaction: dict[str, set[Key]] = field(default_factory=dict)
    owners: dict[RowKey, set[Key]] = field(default_factory=dict)
    lost_track: LostTrack | None = None
    fault: str | None = None
    is_inexact: bool = False
    counts: Counter[tuple[str, Kind]] = field(default_factory=Counter)

    @property
    def keys(self) -> set[Key]:
        """All people and rows concerned."""
        return set().union(*self.by_transaction.values())

    @property
    def records(self) -> int:
        """How many records were readable."""
        return sum(n for (_, kind), n in self.counts.items() if kind not in _NO_RECORDS)

    @property
    def ignored(self) -> int:
        """How many readable records concern no person."""
        return sum(n for (_, kind), n in self.counts.items() if kind not in _NOT_IGNORED)

    def lose(self, record: LostTrack) -> None:
        """Ask for a full run, for the tables of all such records."""
        if self.lost_track is None:
            self.lost_track = record
            return
        tables = [*self.lost_track.table.split(", "), record.table]
        named = ", ".join(dict.fromkeys(tables)) if all(tables) else ""
        self.lost_track = LostTrack(named, self.lost_track.cause, self.lost_track.format)

    def absorb(self, other: "Demand") -> None:
        """Add the demand of another part of the same message."""
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
    """How a row of one table leads to its person.

    The column `owner` holds a key of `owner_table`, or the person's id when that is empty.
    `is_person` is true when the key of the row is the person's id; `is_parent` when rows of other
    tables lead to this table.
    """

    key: str
    key_type: ColumnType
    owner: str
    owner_type: ColumnType
    owner_table: str
    is_person: bool
    is_parent: bool


class PersonMap:
    """Maps changed rows to people. Every image counts: a moved row concerns both its owners."""

    def __init__(self, description: Description) -> None:
        self._routes: dict[str, _Route] = {}
        for name, table in description.tables.items():
            owner_table = table.user.table or ""
            parent = description.tables.get(owner_table)
            self._routes[name] = _Route(
                key=table.key,
                key_type=table.columns[table.key].type,
                owner=table.user.column,
                owner_type=parent.columns[parent.key].type if parent else ColumnType.UINT64,
                owner_table=owner_table,
                is_person=not owner_table and table.user.column == table.key,
                is_parent=any(other.user.table == name for other in description.tables.values()),
            )
        self.names = Names(description)

    def is_ours(self, table: str) -> bool:
        """Tell whether the table is in the description."""
        return table in self._routes

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the columns of a described table that lead to the person, its key first."""
        route = self._routes[table]
        return tuple(dict.fromkeys((route.key, route.owner)))

    def demand(self, records: Iterable[Record]) -> Demand:
        """Return the people that `records` concern; a record with an invalid key sets `fault`.

        The names in `records` must be those of the description.
        """
        demand = Demand()
        self.add(records, demand)
        return demand

    def add(self, records: Iterable[Record], demand: Demand) -> None:
        """Add the people that `records` concern; an error of the iterable keeps those before it."""
        for record in records:
            if isinstance(record, ChangeRecord):
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

    def _add(self, change: ChangeRecord, demand: Demand) -> Kind:
        route = self._routes.get(change.table)
        if route is None:
            return Kind.FOREIGN
        leads = _leads(change, route)
        owners, rows = leads.owners, leads.rows
        if not owners and leads.is_ownerless and leads.owner_fault is None:
            return Kind.OWNERLESS
        fault = leads.owner_fault
        if not owners and not rows:
            fault = fault or leads.key_fault or "ROW_NOT_IDENTIFIED"
        if fault is not None:
            demand.fault = demand.fault or fault
            demand.is_inexact = demand.is_inexact or fault == NOT_EXACT
        elif (
            not owners
            and change.operation is Operation.DELETE
            and not any(
                value is not None and column != route.key
                for image in change.images
                for column, value in image.items()
            )
        ):
            # The deletion shows only the key of a row that can no longer be looked up.
            return self._lose(LostTrack(change.table, "delete-of-key-alone"), demand)
        if owners and route.is_parent:
            for row in rows:
                demand.owners.setdefault(row, set()).update(owners)
        if owners or fault is None:
            demand.by_transaction.setdefault(change.transaction, set()).update(owners or rows)
        return Kind.ROW if fault is None else Kind.UNREADABLE


@dataclass(slots=True)
class _Leads:
    """The keys in the images of a row: of the owners, and of the row itself where it is needed.

    `is_ownerless` is true when an image names an owner of 0 or less. The faults are the reasons
    for which a key was refused.
    """

    owners: set[Key] = field(default_factory=set)
    rows: set[RowKey] = field(default_factory=set)
    is_ownerless: bool = False
    owner_fault: str | None = None
    key_fault: str | None = None


def _leads(change: ChangeRecord, route: _Route) -> _Leads:
    found = _Leads()
    images = change.images
    if len(images) == 2 and is_same(*images, (route.owner, route.key)):
        # Most updates leave the keys as they are.
        images = images[1:]
    for image in images:
        try:
            owner = key_text(image, route.owner, route.owner_type, wraps=change.wraps_unsigned)
            if owner is not None:
                named = RowKey(route.owner_table, owner) if route.owner_table else int(owner)
                found.owners.add(named)
        except UnreadableError as error:
            if error.reason == NOT_POSITIVE:
                found.is_ownerless = True
            else:
                found.owner_fault = found.owner_fault or error.reason
    if route.is_person or (found.owners and not route.is_parent):
        return found
    for image in images:
        try:
            key = key_text(image, route.key, route.key_type, wraps=change.wraps_unsigned)
            if key is not None:
                found.rows.add(RowKey(change.table, key))
        except UnreadableError as error:
            found.key_fault = found.key_fault or error.reason
    return found


def people_of(
    rows: Iterable[RowKey], owners: Mapping[RowKey, Set[Key]]
) -> tuple[set[int], set[RowKey]]:
    """Return the people that `rows` lead to by `owners`, and the rows without an owner there."""
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
