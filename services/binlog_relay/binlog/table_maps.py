"""Makes table descriptions in the binlog readable for a library that knows fewer types.

The column types are followed by details whose length depends on each type. So one type that
pymysqlreplication does not know, such as MySQL 9's VECTOR or MariaDB's compressed columns, makes it
misread the following columns. This module replaces such a type by one of the same layout, whose
values are skipped and never read.
"""

from typing import Any, Final

from pymysqlreplication.constants import FIELD_TYPE as TYPE
from pymysqlreplication.row_event import TableMapEvent

_BLOB_COMPRESSED: Final = 140
_VARCHAR_COMPRESSED: Final = 141
_VECTOR: Final = 242
# The servers list the character sets of these among those of texts, as the library expects.
_SAME_LAYOUT: Final = {
    _BLOB_COMPRESSED: TYPE.BLOB,
    _VARCHAR_COMPRESSED: TYPE.VARCHAR,
    _VECTOR: TYPE.BLOB,
}
_KNOWN: Final = frozenset(
    value for name, value in vars(TYPE).items() if name.isupper() and isinstance(value, int)
)
_COLUMN_NAMES: Final = 4
_NEWEST_FIELD: Final = 12
_CHECKSUM_BYTES: Final = 4
_POST_HEADER_BYTES: Final = 8
_TABLE_ID_BYTES: Final = 6


class ReadableTableMapEvent(TableMapEvent):  # type: ignore[misc]
    """A table's description; columns whose values cannot be read are marked `is_opaque`.

    Where the layout of a type is not known at all, every other column is of type NULL.
    """

    def __init__(
        self, from_packet: Any, event_size: int, table_map: Any, ctl_connection: Any, **kwargs: Any
    ) -> None:
        raw = from_packet.packet
        body = raw._data[raw._position :]
        opaque: list[int] = []
        is_known = int.from_bytes(body[:_TABLE_ID_BYTES], "little") in table_map
        if not is_known:
            (schema, table), _ = _names(body)
            schemas, tables = kwargs["only_schemas"], kwargs["only_tables"]
            if schema.decode() in schemas and table.decode() in tables:
                readable, opaque = readable_description(body)
                raw._data = raw._data[: raw._position] + readable
        super().__init__(from_packet, event_size, table_map, ctl_connection, **kwargs)
        for index in opaque if self._processed else ():
            self.columns[index].is_opaque = True


def readable_description(body: bytes) -> tuple[bytes, list[int]]:
    """Return the body of a table map event with known types and fields only; the changed columns.

    A column of a type without a known layout keeps it, and the others lose theirs.
    """
    _, count_at = _names(body)
    count, types_at = _length(body, count_at)
    types = body[types_at : types_at + count]
    size, details_at = _length(body, types_at + count)
    fields_at = details_at + size + (count + 7) // 8
    end = len(body) - _CHECKSUM_BYTES
    opaque = [number for number, kind in enumerate(types) if kind not in _KNOWN]
    if all(types[number] in _SAME_LAYOUT for number in opaque):
        known = bytes(_SAME_LAYOUT.get(kind, kind) for kind in types)
        middle = body[types_at + count : fields_at]
        newest = _NEWEST_FIELD
        oldest = 1
    else:
        known = bytes(TYPE.NULL if kind in _KNOWN else kind for kind in types)
        middle = b"\0" + body[details_at + size : fields_at]
        oldest = newest = _COLUMN_NAMES
    fields, position = b"", fields_at
    # Optional fields of other kinds are left out: the library fails on kinds that it does not know.
    while position < end:
        size, value_at = _length(body, position + 1)
        if oldest <= body[position] <= newest:
            fields += body[position : value_at + size]
        position = value_at + size
    return body[:types_at] + known + middle + fields + body[end:], opaque


def _names(body: bytes) -> tuple[list[bytes], int]:
    """Return the names of the schema and the table, and where the number of columns stands."""
    position = _POST_HEADER_BYTES
    names = []
    for _ in ("schema", "table"):
        end = position + 1 + body[position]
        names.append(body[position + 1 : end])
        position = end + 1  # each ends with a zero
    return names, position


def _length(body: bytes, position: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    first = body[position]
    width = {252: 2, 253: 3, 254: 8}.get(first, 0)
    position += 1
    if not width:
        return first, position
    return int.from_bytes(body[position : position + width], "little"), position + width
