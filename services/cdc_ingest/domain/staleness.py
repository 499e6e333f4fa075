"""Whether what was read of a person is older than what a message told of.

A change can be known before it can be read: the server we read lags behind the one the change came
from, or has sent the change on before showing it to others, as MySQL and MariaDB do with every
commit. The row images tell, as far as the facts that come back from a refresh show the same
columns.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from typing import Final, NamedTuple, Protocol, TypeAlias

from mainapp.description import ColumnType, Description, Table
from services.cdc_ingest.domain.keys import key_text
from services.cdc_ingest.domain.people import Key, RowKey
from services.cdc_ingest.domain.records import (
    Image,
    Operation,
    Record,
    RowChange,
    UnreadableError,
)

Columns: TypeAlias = Mapping[str, object]
"""Columns of a row by the main app's names, in the form of `SHOWN`."""


class Verdict(IntEnum):
    """What a reading says about a change, the worst last.

    UNTOLD: the facts do not show what changed. DOUBTFUL: they show neither the change nor what was
    before it, so they are older still or newer already.
    """

    SHOWN = 0
    UNTOLD = 1
    DOUBTFUL = 2
    STALE = 3


class Sighting(NamedTuple):
    """What a message told of one row.

    `changed` holds the columns known to have changed, with their values before and after; `told`
    those of which only the value after is known. `at` orders the sightings of a row.
    """

    row: RowKey
    at: datetime | None
    is_there: bool = True
    is_new: bool = False
    changed: tuple[tuple[str, object, object], ...] = ()
    told: tuple[tuple[str, object], ...] = ()

    @property
    def tells(self) -> bool:
        """Whether a reading can contradict it."""
        return not self.is_there or self.is_new or bool(self.changed) or bool(self.told)


@dataclass(slots=True)
class Seen:
    """What a message told of one person, or of one row that leads to a person.

    `is_untold` when something else changed there that facts do not show.
    """

    rows: dict[RowKey, Sighting] = field(default_factory=dict)
    is_untold: bool = False


Sightings: TypeAlias = Mapping[Key, Seen]
"""By whom or what the rows lead to; whoever is missing changed in a way that cannot be checked."""


class Reading(Protocol):
    """What a refresh has found."""

    def has(self, place: Key) -> bool:
        """Whether the person, or the row that leads to one, was found."""
        ...

    def row(self, place: Key, row: RowKey) -> Columns | None:
        """Return the columns of a row that belongs there; None when it was not found there."""
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
        # Like nothing that is ever read: it can neither be shown nor be stale.
        return value


def text(value: object) -> object:
    """Return the text; DMS may leave out what is NULL and what is empty alike."""
    return value or None


def presence(value: object) -> object:
    """Return whether there is anything at all."""
    return value is not None


_TRUE: Final = frozenset({"true", "t", "y", "yes"})
_FALSE: Final = frozenset({"false", "f", "n", "no", ""})

SHOWN: Mapping[str, Mapping[str, Callable[[object], object]]] = {
    "users": {"is_enabled": flag, "status": text, "current_signature_file_id": presence},
    "claims": {"status": text, "lender": text},
    "claim_requirements": {"type": text, "status": text, "claim_requirement_reason": text},
}
"""The columns that a person's facts show, each with the form in which it is compared."""


class Witness:
    """Keeps of the changes in a message what a later reading can be checked against."""

    def __init__(self, description: Description) -> None:
        self._tables = description.tables

    def sightings(self, records: Iterable[Record]) -> Sightings:
        """Return what the records tell; of two sightings of a row the later stands."""
        found: dict[Key, Seen] = {}
        for record in records:
            if isinstance(record, RowChange):
                self.see(record, found)
        return found

    def see(self, change: RowChange, found: dict[Key, Seen]) -> None:
        """Add what one more change tells."""
        table = self._tables.get(change.table)
        if table is None:
            return
        for place, sighting in self._sightings(change, table):
            seen = found.get(place)
            if seen is None:
                seen = found[place] = Seen()
            if sighting.tells:
                seen.rows[sighting.row] = sighting
            elif change.operation is not Operation.LOAD:
                # Rows that a full load copies have long been there.
                seen.is_untold = True

    def _sightings(self, change: RowChange, table: Table) -> Iterator[tuple[Key, Sighting]]:
        before, after = _before_and_after(change)
        old, new = self._located(change, table, before), self._located(change, table, after)
        at = change.captured_at
        shown = SHOWN.get(change.table)
        if shown is None or change.operation is Operation.LOAD:
            yield from ((place, Sighting(row, at)) for place, row in filter(None, (old, new)))
            return
        if old is not None and old != new:
            yield old[0], Sighting(old[1], at, is_there=False)
        if new is None or after is None:
            return
        is_new = change.operation is Operation.INSERT or (old is not None and old != new)
        changed, told = _compared(before, after, shown)
        yield new[0], Sighting(new[1], at, True, is_new, changed, told)

    def _located(
        self, change: RowChange, table: Table, image: Image | None
    ) -> tuple[Key, RowKey] | None:
        """Return where a row leads to and which it is; None where the image does not say.

        Keys are spelt as the demand and the facts spell them, whatever the format wrote.
        """
        if image is None:
            return None
        owner = table.user.table
        parent = self._tables[owner] if owner is not None else None
        lead_type = parent.columns[parent.key].type if parent else ColumnType.UINT64
        wraps = change.wraps_unsigned
        try:
            key = key_text(image, table.key, table.columns[table.key].type, wraps=wraps)
            lead = key_text(image, table.user.column, lead_type, wraps=wraps)
        except UnreadableError:
            return None
        if key is None or lead is None:
            return None
        return (int(lead) if owner is None else RowKey(owner, lead)), RowKey(change.table, key)


def _before_and_after(change: RowChange) -> tuple[Image | None, Image | None]:
    images = change.images
    if not images:
        return None, None
    if change.operation is Operation.DELETE:
        return images[0], None
    return (images[0] if len(images) > 1 else None), images[-1]


def _compared(
    before: Image | None, after: Image, shown: Mapping[str, Callable[[object], object]]
) -> tuple[tuple[tuple[str, object, object], ...], tuple[tuple[str, object], ...]]:
    """Return the columns known to have changed, and those told without their value before."""
    changed: list[tuple[str, object, object]] = []
    told: list[tuple[str, object]] = []
    for column, form in shown.items():
        if before is not None and column in before:
            if form is presence and column not in after:
                # NULL or empty: DMS leaves out both, and only one of them is no presence.
                continue
            # What was there before and is missing now has become NULL.
            old, new = form(before[column]), form(after.get(column))
            if old != new:
                changed.append((column, old, new))
        elif column in after:
            told.append((column, form(after[column])))
    return tuple(changed), tuple(told)


def judge(sighting: Sighting, place: Key, reading: Reading) -> Verdict:
    """Return whether the reading shows what was told."""
    found = reading.row(place, sighting.row)
    if not sighting.is_there:
        return Verdict.SHOWN if found is None else Verdict.STALE
    if found is None:
        is_expected = reading.has(place) or sighting.row == _parent(place)
        return Verdict.STALE if sighting.is_new and is_expected else Verdict.DOUBTFUL
    if sighting.is_new:
        return Verdict.SHOWN
    if all(found[c] == new for c, _, new in sighting.changed) and all(
        found[c] == new for c, new in sighting.told
    ):
        return Verdict.SHOWN if sighting.changed else Verdict.UNTOLD
    is_as_before = sighting.changed and all(found[c] == old for c, old, _ in sighting.changed)
    return Verdict.STALE if is_as_before else Verdict.DOUBTFUL


def _parent(place: Key) -> RowKey:
    return place if isinstance(place, RowKey) else RowKey("users", str(place))


class _Told(NamedTuple):
    """The latest that was told of a row, and where it leads to."""

    at: datetime
    is_there: bool
    place: Key


class LatestSightings:
    """The latest that has been told of each of many rows.

    Whoever tells something later of a row takes over: his reading shows all that came before, and
    earlier values will never be seen again.
    """

    def __init__(self, remembered: int = 100_000) -> None:
        self._remembered = remembered
        self._rows: OrderedDict[RowKey, _Told] = OrderedDict()

    def add(self, sightings: Sightings) -> None:
        """Take note of a message."""
        for place, seen in sightings.items():
            for row, sighting in seen.rows.items():
                if sighting.at is not None:
                    self._add(row, _Told(sighting.at, sighting.is_there, place))

    def _add(self, row: RowKey, told: _Told) -> None:
        known = self._rows.get(row)
        if known is None or told[:2] > known[:2]:
            self._rows[row] = told
            self._rows.move_to_end(row)
            if len(self._rows) > self._remembered:
                self._rows.popitem(last=False)

    def weigh(self, sighting: Sighting, place: Key, found: Verdict, reading: Reading) -> Verdict:
        """Return what is left of a bad verdict, given what else was told."""
        if sighting.at is None:
            return found
        known = self._rows.get(sighting.row)
        if known is not None and known.at > sighting.at:
            return Verdict.SHOWN
        return self._weigh_parents(sighting.at, place, found, reading)

    def _weigh_parents(self, at: datetime, place: Key, found: Verdict, reading: Reading) -> Verdict:
        """A row goes with its parents, by a cascade that tells nothing of it."""
        parent = self._rows.get(_parent(place))
        if parent is None:
            # Either gone with a person or so new that its own message has not come to us.
            is_orphan = isinstance(place, RowKey) and not reading.has(place)
            return Verdict.UNTOLD if is_orphan else found
        if not parent.is_there:
            return Verdict.SHOWN if parent.at >= at else found
        return (
            found
            if parent.place == place
            else self._weigh_parents(at, parent.place, found, reading)
        )


def verdict(seen: Seen | None, place: Key, reading: Reading, latest: LatestSightings) -> Verdict:
    """Return the worst of what the reading says about what one message told of `place`."""
    if seen is None:
        return Verdict.UNTOLD
    worst = Verdict.UNTOLD if seen.is_untold else Verdict.SHOWN
    for sighting in seen.rows.values():
        each = judge(sighting, place, reading)
        if each >= Verdict.DOUBTFUL:
            each = latest.weigh(sighting, place, each, reading)
        worst = max(worst, each)
    return worst
