"""The published position, while sends overlap and end in any order."""

from collections import deque
from dataclasses import dataclass

from services.binlog_relay.domain.positions import BinlogPosition


@dataclass(slots=True, eq=False)
class PendingSend:
    """One request that has not been published in full; `position` is its last transaction end."""

    position: BinlogPosition | None
    is_done: bool = False


class PublishedPositions:
    """Keeps `published`: the last transaction end before which everything is published."""

    def __init__(self, start: BinlogPosition) -> None:
        self.published = start
        self._open: deque[PendingSend] = deque()

    @property
    def is_settled(self) -> bool:
        """Whether no send is pending."""
        return not self._open

    def open(self, position: BinlogPosition | None) -> PendingSend:
        """Add a send, in binlog order; `position` is the last transaction end in it."""
        send = PendingSend(position)
        self._open.append(send)
        return send

    def close(self, send: PendingSend) -> None:
        """Mark a send as published and advance `published` as far as possible."""
        send.is_done = True
        while self._open and self._open[0].is_done:
            position = self._open.popleft().position
            if position is not None:
                self.published = position
