"""Places in a binlog, and how to go on from one of them."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Position:
    """A transaction's end in a binlog.

    `server` identifies whose file it is; `gtid` is the set executed up to here in the server's own
    format, empty when it has none.
    """

    server: str
    file: str
    offset: int
    gtid: str = ""


class Resume(StrEnum):
    """How reading can go on from a saved position."""

    BY_FILE = "by_file"
    BY_GTID = "by_gtid"
    LOST = "lost"


def way_to_resume(saved: Position, server: str, *, has_gtids: bool) -> Resume:
    """Return how to go on from `saved` on the server that answers now.

    File names mean nothing on another server, such as a replica promoted after a failover; a
    GTID set does.
    """
    if saved.server == server:
        return Resume.BY_FILE
    return Resume.BY_GTID if has_gtids and saved.gtid else Resume.LOST


class GtidSet(Protocol):
    """What has been executed, in one server's own format."""

    def add(self, gtid: str) -> None:
        """Count one more transaction."""
        ...


class NoGtids:
    """A server without GTIDs."""

    def add(self, gtid: str) -> None:
        """Do nothing."""

    def __str__(self) -> str:
        return ""


class MariadbGtids:
    """The last GTID of each domain, as `0-1-100,1-2-5`."""

    def __init__(self, text: str) -> None:
        self._last: dict[str, str] = {}
        for gtid in filter(None, text.split(",")):
            self.add(gtid.strip())

    def add(self, gtid: str) -> None:
        """Put the transaction at the head of its domain."""
        self._last[gtid.partition("-")[0]] = gtid

    def __str__(self) -> str:
        return ",".join(self._last.values())


class MysqlGtids:
    """Intervals of transaction numbers for each source, as `uuid:1-5:7,uuid:tag:3`."""

    _PART = re.compile(r"[0-9]+(?:-[0-9]+)?")

    def __init__(self, text: str) -> None:
        self._intervals: dict[str, list[list[int]]] = {}
        for member in filter(None, text.replace("\n", "").split(",")):
            self._read(member.strip())

    def _read(self, member: str) -> None:
        source, *parts = member.split(":")
        tagged = source
        for part in parts:
            if not self._PART.fullmatch(part):
                # Since MySQL 8.3 a tag may stand between the source and its numbers.
                tagged = f"{source}:{part}"
                continue
            first, _, last = part.partition("-")
            self._insert(tagged, int(first), int(last or first))

    def add(self, gtid: str) -> None:
        """Count the transaction `source:number`; a repeat changes nothing."""
        source, _, number = gtid.rpartition(":")
        self._insert(source, int(number), int(number))

    def _insert(self, source: str, first: int, last: int) -> None:
        intervals = self._intervals.setdefault(source, [])
        if intervals and first == intervals[-1][1] + 1:
            intervals[-1][1] = last
            return
        merged: list[list[int]] = []
        for interval in sorted([*intervals, [first, last]]):
            if merged and interval[0] <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], interval[1])
            else:
                merged.append(interval)
        self._intervals[source] = merged

    def __str__(self) -> str:
        return ",".join(
            f"{source}:" + ":".join(_interval(first, last) for first, last in intervals)
            for source, intervals in self._intervals.items()
        )


def _interval(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
