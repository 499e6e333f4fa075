"""Adding up the main app's tables, range by range, so that an interruption costs little."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from servicekit.clock import Clock
from services.reconciler.domain.fingerprints import Sums, Table
from services.reconciler.patience import Patience
from services.reconciler.report import Report
from services.reconciler.upstreams import RangeChunk, Upstreams

_KEEP_SECONDS = 5.0


@dataclass(slots=True)
class _Read:
    """How far one table is: everything up to `after_key` is in the sums."""

    sums: Sums = field(default_factory=Sums)
    after_key: str = ""
    is_done: bool = False


class MainAppReading:
    """Reads each table once; what has been read is kept every few seconds."""

    def __init__(
        self,
        upstreams: Upstreams,
        patience: Patience,
        report: Report,
        clock: Clock,
        load_share: float,
    ) -> None:
        self._upstreams = upstreams
        self._patience = patience
        self._report = report
        self._clock = clock
        self._load_share = load_share
        self._kept_at = clock.monotonic()

    async def sums(self) -> dict[Table, Sums]:
        """Return what every table's rows come to.

        Rows that change meanwhile are counted as they were or as they are: whoever differs for it
        is looked at again.
        """
        tables = _restored(await self._report.checkpoint())
        for table in Table:
            if not tables[table].is_done:
                await self._read(table, tables)
            await self._report.step()
        return {table: read.sums for table, read in tables.items()}

    async def _read(self, table: Table, tables: dict[Table, _Read]) -> None:
        read = tables[table]

        def begin() -> AsyncIterator[RangeChunk]:
            return self._upstreams.stream_ranges(table, read.after_key, self._load_share)

        async for chunk in self._patience.follow(begin):
            read.sums.add(chunk.ranges, chunk.fingerprints)
            read.after_key = chunk.after_key or read.after_key
            read.is_done = chunk.is_last
            self._report.spend(chunk.cost)
            if self._clock.monotonic() - self._kept_at >= _KEEP_SECONDS:
                await self._report.keep(_stored(tables))
                await self._report.save()
                self._kept_at = self._clock.monotonic()


def _stored(tables: dict[Table, _Read]) -> dict[str, Any]:
    return {
        table.value: {
            "after_key": read.after_key,
            "is_done": read.is_done,
            "ranges": list(read.sums.as_dict().items()),
        }
        for table, read in tables.items()
    }


def _restored(checkpoint: Any) -> dict[Table, _Read]:
    """Return how far each table is."""
    tables = {table: _Read() for table in Table}
    for name, kept in (checkpoint or {}).items():
        ranges = {int(number): int(fingerprint) for number, fingerprint in kept["ranges"]}
        tables[Table(name)] = _Read(Sums(ranges), kept["after_key"], kept["is_done"])
    return tables
