"""The GTIDs of transactions, and the sets of those that a server has executed."""

import re
from collections import defaultdict
from functools import cached_property
from typing import Final, NamedTuple

_NUMBER: Final = r"(?P<number>\d{1,19})"
# MySQL's uuid:number or uuid:tag:number, MariaDB's domain-server-number.
_MYSQL: Final = re.compile(rf"(?P<source>[0-9A-Fa-f-]{{36}}(?::\w+)?):{_NUMBER}")
_MARIADB: Final = re.compile(rf"(?P<source>\d+-\d+)-{_NUMBER}")
_INTERVAL: Final = re.compile(r"(?P<first>\d{1,19})(?:-(?P<last>\d{1,19}))?")


class Gtid(NamedTuple):
    """A transaction. `source` is MySQL's UUID and tag, or MariaDB's domain and server."""

    source: str
    number: int
    is_mariadb: bool = False


def gtid_of(written: object) -> Gtid | None:
    """Return the GTID that a text holds; None for any other value."""
    if not isinstance(written, str):
        return None
    found = _MYSQL.fullmatch(written) or _MARIADB.fullmatch(written)
    if found is None:
        return None
    return Gtid(found["source"].lower(), int(found["number"]), found.re is _MARIADB)


class ExecutedGtids:
    """The transactions that a server had executed before a reading, as the server writes them.

    MariaDB names one of its own as it writes it to the binlog, moments before it can be read, and
    both name one of XA as it is prepared. MariaDB names only the last transaction of each domain:
    those of the same server with lower numbers came before.
    """

    def __init__(self, written: str = "") -> None:
        self._written = written

    def __contains__(self, gtid: object) -> bool:
        return isinstance(gtid, Gtid) and any(
            first <= gtid.number <= last for first, last in self._intervals.get(gtid.source, ())
        )

    @cached_property
    def _intervals(self) -> dict[str, list[tuple[int, int]]]:
        intervals: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for each in self._written.lower().split(","):
            last = gtid_of(each.strip())
            if last is not None and last.is_mariadb:
                intervals[last.source].append((0, last.number))
                continue
            server, *parts = (part.strip() for part in each.split(":"))
            source = server
            for part in parts:
                interval = _INTERVAL.fullmatch(part)
                if interval is None:
                    # The intervals that follow are of a tag.
                    source = f"{server}:{part}"
                else:
                    first, end = interval["first"], interval["last"]
                    intervals[source].append((int(first), int(end or first)))
        return intervals
