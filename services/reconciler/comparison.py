"""Everybody compared: MySQL's sums against what the queue applied, and that against the cache."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from services.reconciler.domain.fingerprints import Held, Table, differing_owners
from services.reconciler.domain.runs import RunPhase
from services.reconciler.looking import Looking, pages
from services.reconciler.pace import Pace
from services.reconciler.patience import Patience
from services.reconciler.reading import MainAppReading
from services.reconciler.report import Report
from services.reconciler.upstreams import Cost, Upstreams

_RANGES_PER_CALL = 50
_CLAIMS_PER_CALL = 10_000


class Comparison:
    """Finds whom to look at closely; opens only the ranges that differ."""

    def __init__(
        self,
        upstreams: Upstreams,
        patience: Patience,
        report: Report,
        reading: MainAppReading,
        looking: Looking,
        pace: Pace,
    ) -> None:
        self._upstreams = upstreams
        self._patience = patience
        self._report = report
        self._reading = reading
        self._looking = looking
        self._pace = pace

    async def suspects(self) -> tuple[set[int], bool]:
        """Return who may have drifted, and whether the queue knows anybody at all."""
        await self._report.enter(RunPhase.READING, len(Table))
        # MySQL is at work while the queue and the cache are asked.
        reading = asyncio.create_task(self._reading.sums())
        try:
            held = await self._hold()
            if not held.user_ids:
                return await self._everybody(), False
            found = await self._cached_otherwise(held)
            ours = {table: held.sums(table) for table in Table}
            theirs = await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        found |= held.altered | (held.unverified - held.absent)
        found |= await self._open({it: theirs[it].differing(ours[it]) for it in Table}, held)
        self._report.figures.users_checked = len(found.union(held.user_ids))
        return found, True

    async def _hold(self) -> Held:
        held = Held()
        begin = lambda: self._upstreams.stream_applied(held.last_user_id)  # noqa: E731
        async for block in self._patience.follow(begin):
            held.add(
                block.user_ids,
                block.fingerprints,
                block.row_fingerprint_bytes,
                block.row_fingerprints,
            )
            held.absent.update(block.absent_user_ids)
            held.altered.update(block.altered_user_ids)
        return held

    async def _everybody(self) -> set[int]:
        found: set[int] = set()
        after = 0
        while user_ids := await self._list(after):
            found.update(user_ids)
            after = user_ids[-1]
        self._report.figures.users_checked = len(found)
        return found

    async def _list(self, after: int) -> Sequence[int]:
        return await self._patience.ask(lambda: self._upstreams.list_users(after))

    async def _cached_otherwise(self, held: Held) -> set[int]:
        """Return whom the cache would serve otherwise than they were applied."""
        found: set[int] = set()
        async for page in self._looking.everything_cached():
            found.update(
                user_id
                for user_id, cached in page.items()
                if not cached.is_intact or not held.is_applied(user_id, cached.context)
            )
        return found

    async def _open(self, differing: Mapping[Table, Sequence[int]], held: Held) -> set[int]:
        await self._report.enter(RunPhase.COMPARING, sum(map(len, differing.values())))
        found: set[int] = set()
        for table, numbers in differing.items():
            owners = await self._differing_owners(table, numbers, held)
            found |= await self._people(owners, held) if table.is_owned_by_claims else owners
        return found

    async def _differing_owners(self, table: Table, numbers: Sequence[int], held: Held) -> set[int]:
        if not numbers:
            return set()
        theirs: dict[int, int] = {}
        for page in pages(numbers, _RANGES_PER_CALL):
            owners, cost = await self._read_owners(table, page)
            theirs |= owners
            self._report.spend(cost)
            await self._report.step(len(page))
            await self._pace.rest(cost)
        return differing_owners(held.in_ranges(table, numbers), theirs)

    async def _read_owners(
        self, table: Table, numbers: Sequence[int]
    ) -> tuple[dict[int, int], Cost]:
        return await self._patience.ask(lambda: self._upstreams.read_owners(table, numbers))

    async def _people(self, claim_ids: Iterable[int], held: Held) -> set[int]:
        """Return whose claims these are: as we know, and as the main app says of the others."""
        wanted = set(claim_ids)
        known = held.people_of(wanted)
        found = set(known.values())
        for page in pages(sorted(wanted - known.keys()), _CLAIMS_PER_CALL):
            found |= await self._resolve(page)
        return found

    async def _resolve(self, claim_ids: Sequence[int]) -> set[int]:
        return await self._patience.ask(lambda: self._upstreams.people_of_claims(claim_ids))
