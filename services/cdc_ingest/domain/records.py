"""What the decoders make of a message, whatever its format."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

Image: TypeAlias = Mapping[str, object]
"""Columns of one row as JSON gave them; a column that is absent may well be NULL."""


class Operation(StrEnum):
    """What was done to a row."""

    LOAD = "load"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row that changed. `images` holds every image the record carries, the oldest first.

    `transaction` tells the changes of one transaction from those of others; "" when not told.
    """

    table: str
    operation: Operation
    images: tuple[Image, ...]
    committed_at: datetime | None = None
    captured_at: datetime | None = None
    transaction: str = ""


@dataclass(frozen=True, slots=True)
class LostTrack:
    """Rows changed that no record tells of: only a full run of the reconciler finds them.

    `table` is empty when any table may be concerned.
    """

    table: str
    cause: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record that concerns nobody, such as the announcement of a table."""

    kind: str


Record: TypeAlias = RowChange | LostTrack | Ignored


class UnreadableError(Exception):
    """A message, or one record in it, that no decoder understands; `reason` is UPPER_SNAKE."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
