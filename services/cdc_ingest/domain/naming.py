"""Translates the names of tables and columns in records into those of the main app's description.

MySQL accepts column names in any case, and table names as the server's file system does. The
mapping rules of a capture may change the case, quote names, or put the schema before a table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from mainapp.description import Description
from services.cdc_ingest.domain.formats.records import ChangeRecord, Image, LostTrack, Record

_QUOTES = "`\"'[] "


class Names:
    """Gives records the names of the description; a name that is not in it stays."""

    def __init__(self, description: Description) -> None:
        self._tables = {_plain(name): name for name in description.tables}
        self._columns = {
            name: {
                _plain(column): column for column in (table.key, table.user.column, *table.compared)
            }
            for name, table in description.tables.items()
        }
        self._wanted = {name: frozenset(of.values()) for name, of in self._columns.items()}

    def table(self, written: str) -> str:
        """Return the name of the described table; `written` itself if there is none."""
        if written in self._columns:
            return written
        return self._tables.get(_plain(written.rpartition(".")[2]), written)

    def record(self, record: Record) -> Record:
        """Return the record with the names of the description."""
        if not isinstance(record, ChangeRecord):
            if isinstance(record, LostTrack) and record.table:
                return replace(record, table=self.table(record.table))
            return record
        table = self.table(record.table)
        columns = self._columns.get(table)
        if columns is None:
            return record
        wanted = self._wanted[table]
        is_same = table == record.table
        images: list[Image] = []
        for image in record.images:
            if not image.keys() >= wanted:
                renamed = {
                    name: columns[plain]
                    for name in image
                    if (plain := _plain(name)) in columns and columns[plain] not in image
                }
                if renamed:
                    is_same = False
                    image = {renamed.get(name, name): image[name] for name in image}
            images.append(image)
        return record if is_same else record._replace(table=table, images=tuple(images))


def places_of(wanted: Iterable[str], header: Sequence[str]) -> list[tuple[str, int]]:
    """Return the index in `header` of each wanted column, whatever its case and quotes there."""
    places = {_plain(name): at for at, name in reversed(list(enumerate(header)))}
    return [(name, places[_plain(name)]) for name in wanted if _plain(name) in places]


@lru_cache(maxsize=4_096)
def _plain(name: str) -> str:
    return name.strip(_QUOTES).lower()
