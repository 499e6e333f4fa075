"""Decodes the wanted columns of row images; it skips the others and never reads them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from pymysqlreplication.constants import FIELD_TYPE as TYPE

from services.binlog_relay.binlog.values import (
    READABLE_TYPES,
    Reader,
    Skipper,
    UnreadableColumnError,
    Value,
    value_reader,
    value_skipper,
)

Image: TypeAlias = dict[str, Value]


class ColumnMap(Protocol):
    """A column as a table map event describes it; its other attributes depend on its type."""

    type: int
    name: str | None
    unsigned: bool
    character_set_name: str | None


Step: TypeAlias = "tuple[str, Reader] | tuple[None, Skipper]"


class DecodingPlan:
    """How to read the row images of one table: for each column a name and reader, or a skipper.

    `unread` are the wanted columns that can only be skipped.
    """

    def __init__(self, steps: Sequence[Step], unread: Sequence[str] = ()) -> None:
        self.unread = unread
        self._steps = steps
        self._layouts: dict[bytes, _Layout] = {}

    def images(self, data: bytes, bitmaps: Sequence[bytes]) -> list[Image]:
        """Return the images in `data`; `bitmaps` are the columns that they hold, in turn."""
        layouts = [self._layout(bitmap) for bitmap in bitmaps]
        images: list[Image] = []
        position, end = 0, len(data)
        while position < end:
            layout = layouts[len(images) % len(layouts)]
            middle = position + layout.null_bytes
            nulls = data[position:middle]
            position = middle
            image: Image = {}
            for name, step, byte, mask in layout.columns:
                if nulls[byte] & mask:
                    if name is not None:
                        image[name] = None
                elif name is None:
                    position = step(data, position)
                else:
                    image[name], position = step(data, position)
            images.append(image)
        return images

    def lacks(self, bitmap: bytes, names: Collection[str]) -> bool:
        """Return whether an image of these columns lacks one of `names` that the table has."""
        present = {name for name, *_ in self._layout(bitmap).columns}
        return any(name in names and name not in present for name, _ in self._steps)

    def _layout(self, bitmap: bytes) -> "_Layout":
        known = self._layouts.get(bitmap)
        if known is None:
            present = (s for i, s in enumerate(self._steps) if bitmap[i >> 3] >> (i & 7) & 1)
            columns = [(*step, i >> 3, 1 << (i & 7)) for i, step in enumerate(present)]
            known = self._layouts[bitmap] = _Layout((len(columns) + 7) // 8, columns)
        return known


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns that are present, each with its place in the bitmap of nulls in front."""

    null_bytes: int
    columns: Sequence[tuple[str | None, Any, int, int]]


def decoding_plan(
    columns: Sequence[ColumnMap], wanted: Collection[str], needed: Collection[str] = ()
) -> DecodingPlan:
    """Return how to read a table's rows; of the wanted columns the `needed` ones must be readable.

    Raises:
        UnreadableColumnError: a column has no name (binlog_row_metadata is not FULL), its type can
            neither be read nor skipped, or it is needed and cannot be read.
    """
    steps: list[Step] = []
    unread: list[str] = []
    # One column of an unknown layout makes the others' types NULL; the error names the first one.
    unknown = [column for column in columns if column.type not in READABLE_TYPES]
    for column in sorted(unknown, key=lambda each: each.type == TYPE.NULL) or columns:
        name = column.name
        if not name:
            raise UnreadableColumnError("a column without a name")
        try:
            skipper = value_skipper(column)
            if name not in wanted:
                steps.append((None, skipper))
            elif getattr(column, "is_opaque", False) or column.type == TYPE.GEOMETRY:
                unread.append(name)
                steps.append((None, skipper))
            else:
                steps.append((name, value_reader(column)))
        except UnreadableColumnError as error:
            raise UnreadableColumnError(f"column {name}: {error}") from error
    if cannot := sorted(set(unread) & set(needed)):
        raise UnreadableColumnError(f"column {cannot[0]}: its values cannot be read")
    return DecodingPlan(steps, unread)
