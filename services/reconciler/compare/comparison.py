"""Compares every user: MySQL's sums with what the queue applied, and that with the cache."""

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from services.reconciler.compare.reading import read_sums
from services.reconciler.compare.snapshots import SnapshotReader, pages
from services.reconciler.domain.fingerprints import (
    AppliedFingerprints,
    ComparedTable,
    differing_owners,
)
from services.reconciler.domain.runs import RunPhase
from services.reconciler.run_context import RunContext

_RANGES_PER_CALL = 50
_CLAIMS_PER_CALL = 10_000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Users to read one by one.

    `may_report_drift` is False where every difference is expected. The main app has no row of
    `gone` in `users`, as far as the comparison read that table.
    """

    user_ids: Set[int]
    may_report_drift: bool
    gone: Set[int] = frozenset()


class Comparison:
    """Finds the candidates; reads single owners only in ranges that differ."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._gone: set[int] = set()

    async def candidates(self) -> Candidates:
        """Return the users who may have drifted."""
        context, report = self._context, self._context.report
        found: set[int] = set()
        await report.enter(RunPhase.READING, len(ComparedTable))
        # MySQL is read at the same time as the queue and the cache.
        reading = asyncio.create_task(read_sums(context))
        try:
            applied = await self._read_applied()
            async for page in SnapshotReader(context).everything_cached():
                found.update(
                    user_id
                    for user_id, cached in page.items()
                    if not cached.is_intact or not applied.is_applied(user_id, cached.context)
                )
            ours = {table: applied.sums(table) for table in ComparedTable}
            theirs = await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        found |= applied.altered | (applied.unverified - applied.absent)
        differing = {it: theirs[it].differing(ours[it]) for it in ComparedTable}
        found |= await self._read_ranges(differing, applied)
        report.figures.users_checked = len(found.union(applied.user_ids))
        return Candidates(found, may_report_drift=True, gone=self._gone)

    async def _read_applied(self) -> AppliedFingerprints:
        applied = AppliedFingerprints()
        upstreams = self._context.upstreams
        begin = lambda: upstreams.stream_applied(applied.last_user_id)  # noqa: E731
        async for block in self._context.retry.stream(begin):
            applied.add(
                block.user_ids,
                block.fingerprints,
                block.row_fingerprint_bytes,
                block.row_fingerprints,
            )
            applied.absent.update(block.absent_user_ids)
            applied.altered.update(block.altered_user_ids)
        return applied

    async def _read_ranges(
        self, differing: Mapping[ComparedTable, Sequence[int]], applied: AppliedFingerprints
    ) -> set[int]:
        """Return the users with a differing owner in one of these ranges."""
        upstreams, call = self._context.upstreams, self._context.retry.call
        await self._context.report.enter(RunPhase.COMPARING, sum(map(len, differing.values())))
        found: set[int] = set()
        for table, numbers in differing.items():
            if not numbers:
                continue
            theirs: dict[int, int] = {}
            for page in pages(numbers, _RANGES_PER_CALL):
                owners, cost = await call(upstreams.read_owners, table, page)
                theirs |= owners
                await self._context.spend(cost, steps=len(page))
            ours = applied.in_ranges(table, numbers)
            differ = differing_owners(ours, theirs)
            if table is ComparedTable.USERS:
                self._gone.update(ours.keys() - theirs.keys())
            if not table.is_owned_by_claims:
                found |= differ
                continue
            known = applied.users_of(differ)
            found.update(known.values())
            # The main app says whose claims the queue does not have.
            for page in pages(sorted(differ - known.keys()), _CLAIMS_PER_CALL):
                found |= await call(upstreams.users_of_claims, page)
        return found
