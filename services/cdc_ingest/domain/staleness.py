"""Whether a user's reading is older than the change in a message.

A change can arrive before it can be read: the MySQL replica that is read lags behind the source of
the change, and MySQL and MariaDB write every commit to the binlog before other sessions see it.
The row images in the message are compared with the columns that the facts of a refresh show.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from itertools import count
from typing import Final, NamedTuple, Protocol, TypeAlias

from mainapp.description import ColumnType, Description, Table
from services.cdc_ingest.domain.formats.keys import is_same, key_text
from services.cdc_ingest.domain.formats.records import (
    ChangeRecord,
    Image,
    Operation,
    Record,
    UnreadableError,
)
from services.cdc_ingest.domain.gtids import ExecutedGtids
from services.cdc_ingest.domain.ordering import Delivery, Order, Precedence, precedence
from services.cdc_ingest.domain.people import Key, RowKey

Columns: TypeAlias = Mapping[str, object]
"""Columns of a row by the main app's names, in the form of `SHOWN`."""


class ReadingVerdict(IntEnum):
    """What a reading shows of a change, the worst last.

    UNTOLD: the facts have no column that changed. DOUBTFUL: the facts show neither the values after
    the change nor those before it: the reading is older than both, or newer. STALE: the facts show
    the values before the change.
    """

    SHOWN = 0
    UNTOLD = 1
    DOUBTFUL = 2
    STALE = 3


class ObservedRow(NamedTuple):
    """One row as a message shows it.

    `changed` holds the columns that have changed, with their values before and after; `after_only`
    the columns of which only the value after is known. `order` orders the observations of a row.
    """

    row: RowKey
    order: Order
    is_there: bool = True
    is_new: bool = False
    changed: tuple[tuple[str, object, object], ...] = ()
    after_only: tuple[tuple[str, object], ...] = ()

    @property
    def is_checkable(self) -> bool:
        """Whether a reading can contradict the observed row."""
        return not self.is_there or self.is_new or bool(self.changed) or bool(self.after_only)

    def may_follow(self, earlier: "ObservedRow") -> bool:
        """Tell whether this can be the change of the row that follows `earlier`."""
        if self.is_new or not earlier.is_there:
            return self.is_new and not earlier.is_there
        left = {column: new for column, _, new in earlier.changed} | dict(earlier.after_only)
        return all(column not in left or left[column] == old for column, old, _ in self.changed)


@dataclass(slots=True)
class ObservedRows:
    """The observed rows of one user, or of one row that leads to a user.

    `is_untold` is true when a change in the message is in no column that the facts show.
    """

    rows: dict[RowKey, ObservedRow] = field(default_factory=dict)
    is_untold: bool = False


Observations: TypeAlias = Mapping[Key, ObservedRows]
"""By the user or row that the rows lead to; a change of a missing one cannot be checked."""


class UserReading(Protocol):
    """The rows that a refresh has read.

    `executed` holds the transactions that the server had executed before; it is empty where it is
    not known.
    """

    @property
    def executed(self) -> ExecutedGtids: ...

    def has(self, owner: Key) -> bool:
        """Whether the user, or the row that leads to a user, was found."""
        ...

    def row(self, owner: Key, row: RowKey) -> Columns | None:
        """Return the columns of a row that belongs to `owner`; None when it was not found."""
        ...


def flag(value: object) -> object:
    """Return a boolean however a format writes it; MySQL takes any number but 0 for true."""
    written = str(value).strip().lower()
    if value is None or written in _FALSE:
        return False
    if written in _TRUE:
        return True
    try:
        return Decimal(written) != 0
    except InvalidOperation:
        # The value equals no value that is read: the verdict is neither SHOWN nor STALE.
        return value


def text(value: object) -> object:
    """Return the text; None for an empty one: DMS may leave out NULL and empty values alike."""
    return value or None


def presence(value: object) -> object:
    """Return whether the value is not NULL."""
    return value is not None


_TRUE: Final = frozenset({"true", "t", "y", "yes"})
_FALSE: Final = frozenset({"false", "f", "n", "no", ""})

SHOWN: Mapping[str, Mapping[str, Callable[[object], object]]] = {
    "users": {"is_enabled": flag, "status": text, "current_signature_file_id": presence},
    "claims": {"status": text, "lender": text},
    "claim_requirements": {"type": text, "status": text, "claim_requirement_reason": text},
}
"""The columns that a person's facts show, each with the form in which it is compared."""


class RowObserver:
    """Extracts from the changes in a message the rows that a reading is checked against."""

    def __init__(self, description: Description) -> None:
        self._tables = description.tables
        self._arrivals = count(1)

    def delivery(
        self, message_id: str, came_at: datetime | None, sent_at: datetime | None
    ) -> Delivery:
        """Return the order and time of a message; call it once for each message.

        May be called from any thread.
        """
        order = Order(sent_at=sent_at, arrival=next(self._arrivals), message=message_id)
        return Delivery(order, came_at)

    def observe(self, records: Iterable[Record], delivery: Delivery | None = None) -> Observations:
        """Return the observed rows of the records, the latest of each row."""
        found: dict[Key, ObservedRows] = {}
        delivery = delivery or self.delivery("", None, None)
        for record in records:
            if isinstance(record, ChangeRecord):
                self.observe_change(record, found, delivery)
        return found

    def observe_change(
        self, change: ChangeRecord, found: dict[Key, ObservedRows], delivery: Delivery
    ) -> None:
        """Add the rows of one change to `found`."""
        table = self._tables.get(change.table)
        if table is None:
            return
        order = delivery.order_of(
            change.captured_at,
            change.committed_at,
            change.position,
            change.sequence,
            change.gtid,
        )
        before: Image | None = None
        after: Image | None = None
        if change.images and change.operation is Operation.DELETE:
            before = change.images[0]
        elif change.images:
            before = change.images[0] if len(change.images) > 1 else None
            after = change.images[-1]
        old = self._located(change, table, before)
        if before is not None and after is not None and is_same(before, after, _keys(table)):
            new = old
        else:
            new = self._located(change, table, after)
        shown = SHOWN.get(change.table)
        is_moved = old is not None and old != new
        rows: list[tuple[Key, ObservedRow]] = []
        if shown is None or change.operation is Operation.LOAD:
            rows = [(owner, ObservedRow(row, order)) for owner, row in filter(None, (old, new))]
        else:
            if old is not None and is_moved:
                rows.append((old[0], ObservedRow(old[1], order, is_there=False)))
            if new is not None and after is not None:
                is_new = is_moved or change.operation is Operation.INSERT
                compared = _compared(before, after, shown)
                rows.append((new[0], ObservedRow(new[1], order, True, is_new, *compared)))
        for owner, observed in rows:
            observed_rows = found.get(owner)
            if observed_rows is None:
                observed_rows = found[owner] = ObservedRows()
            if observed.is_checkable:
                observed_rows.rows[observed.row] = observed
            elif change.operation is not Operation.LOAD:
                # A full load repeats rows that have not changed.
                observed_rows.is_untold = True

    def _located(
        self, change: ChangeRecord, table: Table, image: Image | None
    ) -> tuple[Key, RowKey] | None:
        """Return the user or row that a row leads to, and its own key; None if a key is missing.

        Keys are normalised as in the demand and the facts, whatever the format wrote.
        """
        if image is None:
            return None
        owner_table = table.user.table
        parent = self._tables[owner_table] if owner_table is not None else None
        lead_type = parent.columns[parent.key].type if parent else ColumnType.UINT64
        wraps = change.wraps_unsigned
        try:
            key = key_text(image, table.key, table.columns[table.key].type, wraps=wraps)
            lead = key_text(image, table.user.column, lead_type, wraps=wraps)
        except UnreadableError:
            return None
        if key is None or lead is None:
            return None
        owner: Key = int(lead) if owner_table is None else RowKey(owner_table, lead)
        return owner, RowKey(change.table, key)


def _keys(table: Table) -> tuple[str, str]:
    return table.key, table.user.column


def _compared(
    before: Image | None, after: Image, shown: Mapping[str, Callable[[object], object]]
) -> tuple[tuple[tuple[str, object, object], ...], tuple[tuple[str, object], ...]]:
    """Return the columns that have changed, and those without a value before."""
    changed: list[tuple[str, object, object]] = []
    after_only: list[tuple[str, object]] = []
    for column, form in shown.items():
        if before is not None and column in before:
            if form is presence and column not in after:
                # DMS leaves out NULL and empty values alike, and only NULL counts as absent.
                continue
            # A column that is only in the image before has become NULL.
            old, new = form(before[column]), form(after.get(column))
            if old != new:
                changed.append((column, old, new))
        elif column in after:
            after_only.append((column, form(after[column])))
    return tuple(changed), tuple(after_only)


def judge(observed: ObservedRow, owner: Key, reading: UserReading) -> ReadingVerdict:
    """Return whether the reading shows the observed row."""
    found = reading.row(owner, observed.row)
    if not observed.is_there:
        return ReadingVerdict.SHOWN if found is None else ReadingVerdict.STALE
    if found is None:
        is_expected = reading.has(owner) or observed.row == _parent(owner)
        return ReadingVerdict.STALE if observed.is_new and is_expected else ReadingVerdict.DOUBTFUL
    if observed.is_new:
        return ReadingVerdict.SHOWN
    if all(found[c] == new for c, _, new in observed.changed) and all(
        found[c] == new for c, new in observed.after_only
    ):
        return ReadingVerdict.SHOWN if observed.changed else ReadingVerdict.UNTOLD
    is_as_before = observed.changed and all(found[c] == old for c, old, _ in observed.changed)
    return ReadingVerdict.STALE if is_as_before else ReadingVerdict.DOUBTFUL


def _parent(owner: Key) -> RowKey:
    return owner if isinstance(owner, RowKey) else RowKey("users", str(owner))


class _OwnedRow(NamedTuple):
    """An observed row, and the user or row that it leads to."""

    owner: Key
    observed: ObservedRow

    def stands_to(self, order: Order) -> Precedence:
        return precedence(self.observed.order, order)

    def is_of(self, order: Order) -> bool:
        """Whether the row is of the same change, or of a repeat of its message."""
        own = self.observed.order
        return own == order or (own.message != "" and own.message == order.message)


class LatestObservations:
    """The latest observation of each of many rows.

    A later observation of a row replaces the earlier ones: its reading shows every change before
    it. Where it is not certain which of two is later, both are kept.
    """

    def __init__(self, remembered: int = 100_000) -> None:
        self._remembered = remembered
        self._rows: OrderedDict[RowKey, tuple[_OwnedRow, ...]] = OrderedDict()
        self._shown_through: datetime | None = None

    def note_shown(self, observed: ObservedRow) -> None:
        """Record that a reading shows a change: the reading then shows all changes well before it.

        Only a new row proves that: any other column may have had the same value before.
        """
        at = observed.order.at
        if at is not None and observed.is_new:
            self._shown_through = max(at, self._shown_through or at)

    def add(self, observations: Observations) -> None:
        """Record the observations of a message."""
        for owner, observed_rows in observations.items():
            for row, observed in observed_rows.rows.items():
                self._add(row, _OwnedRow(owner, observed))

    def _add(self, row: RowKey, owned: _OwnedRow) -> None:
        order = owned.observed.order
        kept: list[_OwnedRow] = []
        for known in self._rows.get(row, ()):
            if known.is_of(order):
                if known.observed.is_there and not owned.observed.is_there:
                    # The row has moved: the new owner counts.
                    owned = known
            elif (stands := known.stands_to(order)) is Precedence.LATER:
                return
            elif stands is not Precedence.EARLIER:
                kept.append(known)
        self._rows[row] = (*kept, owned)[-_RIVALS:]
        self._rows.move_to_end(row)
        if len(self._rows) > self._remembered:
            self._rows.popitem(last=False)

    def weigh(
        self, observed: ObservedRow, owner: Key, found: ReadingVerdict, reading: UserReading
    ) -> ReadingVerdict:
        """Return the verdict that remains of `found` when other messages about the row count.

        A change that is certainly later overwrites this one: the verdict is SHOWN. Where it is
        later by sequence or arrival only, it is UNTOLD: one more reading decides. Arrival may be
        the wrong way round: if the reading shows the other change, which may follow this one, the
        verdict is DOUBTFUL. A later change that another copy of this service has received is known
        only by its effect: the server had executed this one before it was read, or shows a row that
        was added well after it.
        """
        order = observed.order
        best = found
        if order.gtid in reading.executed:
            best = min(best, ReadingVerdict.DOUBTFUL)
        for known in self._rows.get(observed.row, ()):
            if known.is_of(order):
                continue
            stands = known.stands_to(order)
            if stands is Precedence.LATER:
                return ReadingVerdict.SHOWN
            if stands is Precedence.LIKELY_LATER:
                best = min(best, ReadingVerdict.UNTOLD)
            elif abs(stands) <= Precedence.PERHAPS_LATER and known.observed.may_follow(observed):
                if stands is Precedence.PERHAPS_LATER:
                    best = min(best, ReadingVerdict.UNTOLD)
                elif judge(known.observed, known.owner, reading) <= ReadingVerdict.UNTOLD:
                    best = min(best, ReadingVerdict.DOUBTFUL)
        best = min(best, self._weigh_parents(order, owner, found, reading))
        through = self._shown_through
        if order.at is not None and through is not None and through - order.at > _PASSED:
            # Readings are past the change: a later one, sent to another replica, undid it.
            return min(best, ReadingVerdict.DOUBTFUL)
        return best

    def _weigh_parents(
        self, order: Order, owner: Key, found: ReadingVerdict, reading: UserReading
    ) -> ReadingVerdict:
        """Weigh deletions of parents: the binlog has no events of rows that a cascade deletes."""
        parents = self._rows.get(_parent(owner), ())
        if not parents:
            # The row is deleted with its user, or new and its own message has not arrived.
            is_orphan = isinstance(owner, RowKey) and not reading.has(owner)
            return ReadingVerdict.UNTOLD if is_orphan else found
        gone = [parent for parent in parents if not parent.observed.is_there]
        if gone:
            stands = max(parent.stands_to(order) for parent in gone)
            if stands is Precedence.LATER or any(parent.is_of(order) for parent in gone):
                return ReadingVerdict.SHOWN
            return min(found, _OF_A_GONE_PARENT.get(stands, found))
        last = parents[-1].owner
        return found if last == owner else self._weigh_parents(order, last, found, reading)


# Transactions become visible out of order of their commits, but never by this much.
_PASSED: Final = timedelta(seconds=10)
# More changes of one row at one moment, in no known order, are not kept.
_RIVALS: Final = 3
_OF_A_GONE_PARENT: Final = {
    Precedence.LIKELY_LATER: ReadingVerdict.UNTOLD,
    Precedence.PERHAPS_LATER: ReadingVerdict.UNTOLD,
    Precedence.UNKNOWN: ReadingVerdict.DOUBTFUL,
}


def verdict(
    observed_rows: ObservedRows | None, owner: Key, reading: UserReading, latest: LatestObservations
) -> ReadingVerdict:
    """Return the worst verdict on the rows of `owner` that one message shows."""
    if observed_rows is None:
        return ReadingVerdict.UNTOLD
    worst = ReadingVerdict.UNTOLD if observed_rows.is_untold else ReadingVerdict.SHOWN
    for observed in observed_rows.rows.values():
        each = judge(observed, owner, reading)
        if each is ReadingVerdict.SHOWN:
            latest.note_shown(observed)
        elif each >= ReadingVerdict.DOUBTFUL:
            each = latest.weigh(observed, owner, each, reading)
        worst = max(worst, each)
    return worst
