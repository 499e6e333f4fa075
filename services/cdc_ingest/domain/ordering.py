"""Which of two changes of a row is later: by position first, then by time, then by arrival.

Clocks run ahead, tie and jump; positions in the server's log do not.
"""

import re
from datetime import datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from services.cdc_ingest.domain.gtids import Gtid, gtid_of

# mysql-bin.000003, perhaps with a suffix of the format.
_FILE: Final = re.compile(r"(?P<log>.*?)\.?(?P<number>\d{1,19})")
# No offset or number is longer.
_MAX_DIGITS: Final = 20
# Positions that go back while commit times advance by this much are of two logs: another server
# that the format does not name, or a reset log. MariaDB has whole seconds: one may be rounding.
_CONTRADICTION: Final = timedelta(seconds=2)


class LogPosition(NamedTuple):
    """A place in a server's log; only places in the same `log` compare.

    Where a format names no server, the logs of two servers may have the same name.
    """

    log: str
    numbers: tuple[int, ...]


class Order(NamedTuple):
    """What orders a change among the changes of its row.

    `at` is the capture time, else the commit time; `committed_at` the commit time. Both are None
    where unknown or when the clock was ahead. `sequence` numbers transactions, nearly in commit
    order. `sent_at` is when the message was sent, `arrival` counts messages as they are read,
    `message` is the message id. `gtid` is that of the transaction; it does not order changes.
    """

    at: datetime | None = None
    position: LogPosition | None = None
    sequence: tuple[int, ...] = ()
    sent_at: datetime | None = None
    arrival: int = 0
    message: str = ""
    committed_at: datetime | None = None
    gtid: Gtid | None = None


class Delivery(NamedTuple):
    """What is known of the message of a record; `order` holds what orders its changes."""

    order: Order = Order()
    came_at: datetime | None = None

    def order_of(
        self,
        captured_at: datetime | None,
        committed_at: datetime | None,
        position: LogPosition | None = None,
        sequence: tuple[int, ...] = (),
        gtid: Gtid | None = None,
    ) -> Order:
        """Return the order of a change in the message; times after `came_at` count as unknown."""
        committed = self._possible(committed_at)
        at = committed if captured_at is None else self._possible(captured_at)
        _, _, _, sent_at, arrival, message, _, _ = self.order
        return Order(at, position, sequence, sent_at, arrival, message, committed, gtid)

    def _possible(self, moment: datetime | None) -> datetime | None:
        is_ahead = moment is not None and self.came_at is not None and moment > self.came_at
        return None if is_ahead else moment


class Precedence(IntEnum):
    """How one change stands to another of the same row, and how certain that is."""

    EARLIER = -3
    LIKELY_EARLIER = -2
    PERHAPS_EARLIER = -1
    UNKNOWN = 0
    PERHAPS_LATER = 1
    LIKELY_LATER = 2
    LATER = 3


def precedence(one: Order, other: Order) -> Precedence:
    """Return how `one` stands to `other`.

    Positions are certain unless commit times contradict them; so are times that differ. Where
    commit and capture times contradict each other, a clock went back or the capture reads the log
    again: neither counts. Where times are missing or equal, the sequence is likely right: only
    transactions that overlap have another one. Arrival is perhaps right: queues deliver in any
    order.
    """
    by_commit = _by_time(one.committed_at, other.committed_at)
    by_capture = _by_time(one.at, other.at)
    by_time = by_commit or by_capture if by_commit * by_capture >= 0 else 0
    place, other_place = one.position, other.position
    if place is not None and other_place is not None and place.log == other_place.log:
        by_position = _sign(place.numbers, other_place.numbers)
        if by_position and one.committed_at is not None and other.committed_at is not None:
            ahead = (one.committed_at - other.committed_at) * -by_position
            if ahead >= _CONTRADICTION:
                # The commit times show that the positions are of two logs.
                return Precedence.UNKNOWN
        if by_position:
            return Precedence(3 * by_position)
    if by_time:
        return Precedence(3 * by_time)
    if one.sequence and other.sequence and one.sequence != other.sequence:
        return Precedence(2 * _sign(one.sequence, other.sequence))
    if one.sent_at and other.sent_at and one.sent_at != other.sent_at:
        return Precedence(_sign(one.sent_at, other.sent_at))
    return Precedence(_sign(one.arrival, other.arrival))


def file_position(server: object, file: object, *numbers: object) -> LogPosition | None:
    """Return the position in a server's binlog file; None where file or offset is unknown."""
    named = _log_and_number(file) if isinstance(file, str) else None
    offsets = leading_integers(*numbers)
    if named is None or not offsets:
        return None
    log, number = named
    return LogPosition(f"{server or ''}/{log}", (number, *offsets))


@lru_cache(maxsize=256)
def _log_and_number(file: str) -> tuple[str, int] | None:
    found = _FILE.fullmatch(file)
    return None if found is None else (found["log"], int(found["number"]))


def place_position(server: object, place: object, *numbers: object) -> LogPosition | None:
    """Return the position for a file and offset in one text, such as `mysql-bin.000003:1234`."""
    if not isinstance(place, str):
        return None
    file, _, rest = place.partition(":")
    offset, _, _ = rest.partition(":")
    return file_position(server, file, offset, *numbers)


def gtid_position(gtid: object, *numbers: object) -> LogPosition | None:
    """Return the position of a transaction by its GTID."""
    found = gtid_of(gtid)
    if found is None:
        return None
    # On MariaDB the numbers of all servers of a domain rise.
    log = found.source.partition("-")[0] if found.is_mariadb else found.source
    return LogPosition(log, (found.number, *leading_integers(*numbers)))


def leading_integers(*values: object) -> tuple[int, ...]:
    """Return the values up to the first that is not a number; texts of digits count."""
    found: list[int] = []
    for number in values:
        if isinstance(number, int) and not isinstance(number, bool):
            found.append(number)
        elif isinstance(number, str) and number.isascii() and number.isdecimal():
            found.append(int(number[:_MAX_DIGITS]))
        else:
            break
    return tuple(found)


def _by_time(one: datetime | None, other: datetime | None) -> int:
    return 0 if one is None or other is None else _sign(one, other)


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)
