"""Positions in a binlog, and how to continue from one."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

BINLOG_RESET: Final = "binlog_reset"


class PositionLostError(Exception):
    """The server cannot continue from the position: it is purged, or not a place in the binlog.

    `reason` is the reason by which the gap is counted.
    """

    def __init__(self, text: str, reason: str = "position_lost") -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BinlogPosition:
    """A transaction's end in a binlog.

    `server` identifies whose file it is; `gtid` is the set executed up to here in the server's own
    format, empty when it has none.
    """

    server: str
    file: str
    offset: int
    gtid: str = ""


def is_before(end: BinlogPosition, file: str, offset: int) -> bool:
    """Return whether a binlog's end lies before a place in it: then the binlog has begun anew."""
    return (_number(end.file), end.offset) < (_number(file), offset)


def _number(file: str) -> int:
    """Return the number that a binlog file's name ends with."""
    digits = file.rpartition(".")[2]
    return int(digits) if digits.isdigit() else 0


class Resume(StrEnum):
    """How reading can continue from a saved position."""

    BY_FILE = "by_file"
    BY_GTID = "by_gtid"
    LOST = "lost"


def way_to_resume(saved: BinlogPosition, server: str, *, has_gtids: bool) -> Resume:
    """Return how to continue from `saved` on the server that answers now.

    File names are valid on one server only, not on a replica promoted after a failover; a GTID set
    is valid on both. In both cases only a full run finds what an asynchronous promotion lost.
    """
    if saved.server == server:
        return Resume.BY_FILE
    # The library does not know the layout in which a set with tags (MySQL 8.3) is sent.
    is_sendable = has_gtids and saved.gtid and not _TAG.search(saved.gtid)
    return Resume.BY_GTID if is_sendable else Resume.LOST


_TAG = re.compile(r":[A-Za-z_]")


class GtidSet(Protocol):
    """The executed transactions, in one server's own format."""

    def add(self, gtid: str) -> bool:
        """Count one more transaction; return False for one that has been counted before.

        A server repeats one only after its history has begun anew.
        """
        ...


class NoGtids:
    """A server without GTIDs."""

    def add(self, gtid: str) -> bool:
        """Do nothing."""
        return True

    def __str__(self) -> str:
        return ""


class MariadbGtids:
    """The last GTID of each domain, as `0-1-100,1-2-5`."""

    def __init__(self, text: str) -> None:
        self._last: dict[str, str] = {}
        self._highest: dict[str, int] = {}
        for gtid in filter(None, text.split(",")):
            self.add(gtid.strip())

    def add(self, gtid: str) -> bool:
        """Make the transaction the last one of its domain.

        Each server counts up; transactions of two servers in one domain may come in any order.
        """
        origin, _, number = gtid.rpartition("-")
        is_new = int(number) > self._highest.get(origin, 0)
        self._highest[origin] = int(number)
        self._last[gtid.partition("-")[0]] = gtid
        return is_new

    def __str__(self) -> str:
        return ",".join(self._last.values())


class MysqlGtids:
    """Intervals of transaction numbers for each source, as `uuid:1-5:7,uuid:tag:3`."""

    _PART = re.compile(r"[0-9]+(?:-[0-9]+)?")

    def __init__(self, text: str) -> None:
        self._intervals: dict[str, list[list[int]]] = {}
        for member in filter(None, text.replace("\n", "").split(",")):
            source, *parts = member.strip().split(":")
            tagged = source
            for part in parts:
                if not self._PART.fullmatch(part):
                    # Since MySQL 8.3 a tag may stand between the source and its numbers.
                    tagged = f"{source}:{part}"
                    continue
                first, _, last = part.partition("-")
                self._insert(tagged, int(first), int(last or first))

    def add(self, gtid: str) -> bool:
        """Count the transaction `source:number`; a repeat changes nothing."""
        source, _, number = gtid.rpartition(":")
        return self._insert(source, int(number), int(number))

    def _insert(self, source: str, first: int, last: int) -> bool:
        intervals = self._intervals.setdefault(source, [])
        if intervals and first == intervals[-1][1] + 1:
            intervals[-1][1] = last
            return True
        if any(interval[0] <= first and last <= interval[1] for interval in intervals):
            return False
        merged: list[list[int]] = []
        for interval in sorted([*intervals, [first, last]]):
            if merged and interval[0] <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], interval[1])
            else:
                merged.append(interval)
        self._intervals[source] = merged
        return True

    def __str__(self) -> str:
        return ",".join(
            f"{source}:" + ":".join(str(a) if a == b else f"{a}-{b}" for a, b in intervals)
            for source, intervals in self._intervals.items()
        )
