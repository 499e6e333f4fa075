"""What has been published, given that sends overlap and may end in any order."""

from collections import deque
from dataclasses import dataclass

from services.binlog_relay.domain.positions import Position


@dataclass(slots=True, eq=False)
class Entry:
    """One load on its way."""

    position: Position | None
    is_done: bool = False


class Ledger:
    """Keeps `published`: the furthest transaction's end with nothing unpublished before it."""

    def __init__(self, start: Position) -> None:
        self.published = start
        self._open: deque[Entry] = deque()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is on its way."""
        return not self._open

    def open(self, position: Position | None) -> Entry:
        """Note a load in the order of the binlog; `position` is the last mark it contains."""
        entry = Entry(position)
        self._open.append(entry)
        return entry

    def close(self, entry: Entry) -> None:
        """Note that all of the load has been published."""
        entry.is_done = True
        while self._open and self._open[0].is_done:
            position = self._open.popleft().position
            if position is not None:
                self.published = position
