"""Sums up the main app's tables by range of owners, with checkpoints against interruptions."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from services.reconciler.domain.fingerprints import ComparedTable, RangeSums
from services.reconciler.run_context import RunContext
from services.reconciler.upstreams import TableRangeChunk

_KEEP_SECONDS = 5.0


@dataclass(slots=True)
class TableProgress:
    """How far one table is: every row up to `after_key` is in the sums."""

    sums: RangeSums = field(default_factory=RangeSums)
    after_key: str = ""
    is_done: bool = False

    @classmethod
    def restored(cls, kept: Any) -> "TableProgress":
        """Return the progress that `checkpoint` wrote."""
        ranges = {int(number): int(fingerprint) for number, fingerprint in kept["ranges"]}
        return cls(RangeSums(ranges), kept["after_key"], kept["is_done"])

    def checkpoint(self) -> dict[str, Any]:
        """Return the progress as JSON values."""
        return {
            "after_key": self.after_key,
            "is_done": self.is_done,
            "ranges": list(self.sums.as_dict().items()),
        }


async def read_sums(context: RunContext) -> dict[ComparedTable, RangeSums]:
    """Return the sums of every table; read each once, with a checkpoint every few seconds.

    A row that changes meanwhile is summed up as it was or as it is: a difference that comes of it
    is rechecked.
    """
    report, clock = context.report, context.clock
    tables = {table: TableProgress() for table in ComparedTable}
    for name, kept in (await report.checkpoint() or {}).items():
        tables[ComparedTable(name)] = TableProgress.restored(kept)
    kept_at = clock.monotonic()
    for table, progress in tables.items():

        def begin(
            table: ComparedTable = table, progress: TableProgress = progress
        ) -> AsyncIterator[TableRangeChunk]:
            return context.upstreams.stream_ranges(table, progress.after_key, context.load_share)

        if not progress.is_done:
            async for chunk in context.retry.stream(begin):
                progress.sums.add(chunk.ranges, chunk.fingerprints)
                progress.after_key = chunk.after_key or progress.after_key
                progress.is_done = chunk.is_last
                report.spend(chunk.cost)
                if clock.monotonic() - kept_at >= _KEEP_SECONDS:
                    await report.keep({it.value: tables[it].checkpoint() for it in tables})
                    await report.save()
                    kept_at = clock.monotonic()
        await report.step()
    return {table: progress.sums for table, progress in tables.items()}
