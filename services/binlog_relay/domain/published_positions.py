"""How far everything is published, while two lanes send at their own pace, in any order."""

from collections import deque
from collections.abc import Iterable, Iterator

from services.binlog_relay.domain.packing import Heartbeat, TransactionEnd


class PublishedPositions:
    """Tells which marks have been reached: everything read before them is published.

    Records are numbered as they are read; `add` numbers one, `close` says that those of a request
    are published.
    """

    def __init__(self) -> None:
        self._next = 0
        self._open: set[int] = set()
        self._lowest = 0
        self._marks: deque[tuple[int, TransactionEnd | Heartbeat]] = deque()

    def add(self) -> int:
        """Return the number of one more record, which is not published yet."""
        number = self._next
        self._next += 1
        self._open.add(number)
        return number

    def mark(self, mark: TransactionEnd | Heartbeat) -> None:
        """Add a mark behind all records so far; a transaction's end replaces the one before it."""
        if self._marks and isinstance(mark, TransactionEnd):
            number, last = self._marks[-1]
            if number == self._next and isinstance(last, TransactionEnd):
                # Transactions of other tables leave only the last of their ends.
                self._marks.pop()
        self._marks.append((self._next, mark))

    def close(self, numbers: Iterable[int]) -> None:
        """Count these records as published."""
        self._open.difference_update(numbers)

    def reached(self) -> Iterator[TransactionEnd | Heartbeat]:
        """Remove and yield the marks before which everything is published, in order."""
        while self._lowest < self._next and self._lowest not in self._open:
            self._lowest += 1
        while self._marks and self._marks[0][0] <= self._lowest:
            yield self._marks.popleft()[1]
