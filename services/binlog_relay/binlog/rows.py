"""Decodes the wanted columns of row images; it skips the others and never reads them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from pymysqlreplication.constants import FIELD_TYPE as TYPE

from services.binlog_relay.binlog.values import (
    READABLE_TYPES,
    Reader,
    Skipper,
    UnreadableColumnError,
    Value,
    fixed_size,
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


Step: TypeAlias = "tuple[str, Reader] | tuple[None, Skipper | int]"
"""A wanted column with its reader; any other with its skipper, or its size if that is fixed."""


class DecodingPlan:
    """How to read the row images of one table: for each column a name and reader, or a skipper.

    `unread` are the wanted columns that can only be skipped.
    """

    def __init__(self, steps: Sequence[Step], unread: Sequence[str] = ()) -> None:
        self.unread = unread
        self._steps = steps
        self._layouts: dict[bytes, _Layout] = {}

    def images(self, data: bytes, bitmaps: Sequence[bytes], most: float = math.inf) -> list[Image]:
        """Return the first `most` images in `data`; `bitmaps` are their columns, in turn."""
        layouts = [self._layout(bitmap) for bitmap in bitmaps]
        images: list[Image] = []
        position, end = 0, len(data)
        while position < end and len(images) < most:
            layout = layouts[len(images) % len(layouts)]
            middle = position + layout.null_bytes
            way = layout.way(data[position:middle])
            position = middle
            image = layout.empty.copy()
            for gap, name, step in way.steps:
                if name is None:
                    position = step(data, position + gap)
                else:
                    image[name], position = step(data, position + gap)
            position += way.tail
            images.append(image)
        return images

    def lacks(self, bitmap: bytes, names: Collection[str]) -> bool:
        """Return whether an image of these columns lacks one of `names` that the table has."""
        present = self._layout(bitmap).empty
        return any(name in names and name not in present for name, _ in self._steps)

    def _layout(self, bitmap: bytes) -> "_Layout":
        known = self._layouts.get(bitmap)
        if known is None:
            present = [s for i, s in enumerate(self._steps) if bitmap[i >> 3] >> (i & 7) & 1]
            known = self._layouts[bitmap] = _Layout(present)
        return known


_MAX_WAYS = 1_000


@dataclass(frozen=True, slots=True)
class _Way:
    """How to pass through the values of one image: each step begins `gap` bytes after the last."""

    steps: Sequence[tuple[int, str | None, Any]]
    tail: int


@dataclass(slots=True)
class _Layout:
    """The columns that are present; `empty` is an image in which each of the wanted ones is NULL.

    Rows with the same columns NULL share a way, in which columns to be skipped that have a fixed
    size and follow one another are one gap.
    """

    columns: Sequence[Step]
    null_bytes: int = field(init=False)
    empty: Image = field(init=False)
    _ways: dict[bytes, _Way] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.null_bytes = (len(self.columns) + 7) // 8
        self.empty = {name: None for name, _ in self.columns if name is not None}

    def way(self, nulls: bytes) -> _Way:
        known = self._ways.get(nulls)
        if known is None:
            if len(self._ways) >= _MAX_WAYS:
                self._ways.clear()
            known = self._ways[nulls] = self._new_way(nulls)
        return known

    def _new_way(self, nulls: bytes) -> _Way:
        steps: list[tuple[int, str | None, Any]] = []
        gap = 0
        for place, (name, step) in enumerate(self.columns):
            if nulls[place >> 3] >> (place & 7) & 1:
                continue
            if isinstance(step, int):
                gap += step
            else:
                steps.append((gap, name, step))
                gap = 0
        return _Way(steps, gap)


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
            size = fixed_size(column)
            skipper = value_skipper(column) if size is None else size
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
