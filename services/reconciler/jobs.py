"""What each kind of run does."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import assert_never

from servicekit.clock import Clock
from services.reconciler.comparison import Comparison
from services.reconciler.domain.drift import Difference, DriftKind
from services.reconciler.domain.freshness import FreshnessMode
from services.reconciler.domain.runs import RunKind, RunPhase
from services.reconciler.looking import Looking, pages
from services.reconciler.pace import Pace
from services.reconciler.patience import Patience, Pauses
from services.reconciler.reading import MainAppReading
from services.reconciler.rechecking import Rechecking, Waits
from services.reconciler.repair import Repair
from services.reconciler.report import Report
from services.reconciler.store import RunStore
from services.reconciler.upstreams import QUEUES, Cost, Upstreams

_ALTERED = Difference(DriftKind.ALTERED)
# What is looked at and found of each takes more than a kilobyte: of everybody, more than we have.
_PEOPLE_JUDGED_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once, how patient, and how far back."""

    page_users: int
    pages_in_flight: int
    load_share: float
    waits: Waits
    pauses: Pauses
    changed_overlap: timedelta
    changed_every: timedelta
    warming_users: int
    runs_kept: timedelta


class Jobs:
    """Does a run from its beginning, whatever an earlier attempt at it did."""

    def __init__(self, upstreams: Upstreams, store: RunStore, limits: Limits, clock: Clock) -> None:
        self._upstreams = upstreams
        self._store = store
        self._limits = limits
        self._clock = clock

    async def do(self, report: Report) -> None:
        """Do what the report's run is for.

        Raises:
            GaveUpError: nothing has succeeded for `give_up_seconds`.
            Conflict: RUN_TAKEN_OVER, another copy works on the run.
            ServiceError: a service refuses to do its part.
        """
        patience = Patience(self._limits.pauses, self._clock)
        kind = report.run.kind
        match kind:
            case RunKind.FULL:
                await self._compare_everybody(report, patience)
            case RunKind.CHANGED:
                await self._compare_changed(report, patience)
            case RunKind.WARMING:
                await self._warm(report, patience)
            case RunKind.HOUSEKEEPING:
                await self._keep_house(report, patience)
            case _:
                assert_never(kind)

    async def _compare_everybody(self, report: Report, patience: Patience) -> None:
        upstreams, limits = self._upstreams, self._limits
        reading = MainAppReading(upstreams, patience, report, self._clock, limits.load_share)
        pace = Pace(limits.load_share)
        looking = Looking(upstreams, patience, report, pace)
        comparison = Comparison(upstreams, patience, report, reading, looking, pace)
        suspects, is_anybody_known = await comparison.suspects()
        await self._settle(report, patience, suspects, may_accuse=is_anybody_known)

    async def _compare_changed(self, report: Report, patience: Patience) -> None:
        limits = self._limits
        now = self._clock.now()
        last = await self._store.last_success([RunKind.CHANGED, RunKind.FULL], now)
        since = (last or now - limits.changed_every) - limits.changed_overlap
        await report.enter(RunPhase.READING)
        changed: set[int] = set()

        def begin() -> AsyncIterator[tuple[Sequence[int], Cost]]:
            return self._upstreams.stream_changed(since, limits.load_share)

        async for user_ids, cost in patience.follow(begin, starts_over=True):
            changed.update(user_ids)
            report.spend(cost)
            await report.step(cost.rows)
        report.figures.users_checked = len(changed)
        may_accuse = await self._is_anybody_known(patience)
        await self._settle(report, patience, changed, may_accuse=may_accuse)

    async def _is_anybody_known(self, patience: Patience) -> bool:
        blocks = patience.follow(lambda: self._upstreams.stream_applied(0))
        async with aclosing(blocks):
            async for block in blocks:
                return bool(block.user_ids)
        return False

    async def _settle(
        self, report: Report, patience: Patience, suspects: Iterable[int], *, may_accuse: bool
    ) -> None:
        """Refresh the suspects; with change capture at work, tell first who had drifted.

        Without it, and before anybody is known, differences are only what is to be expected.
        """
        limits = self._limits
        repair = Repair(
            self._upstreams,
            patience,
            report,
            page_users=limits.page_users,
            pages_in_flight=limits.pages_in_flight,
        )
        wanted = sorted(suspects)
        if not may_accuse or not await self._has_change_capture():
            await repair.refresh(wanted)
            return
        looking = Looking(self._upstreams, patience, report, Pace(limits.load_share))
        rechecking = Rechecking(self._upstreams, looking, report, self._clock, limits.waits)
        for some in pages(wanted, _PEOPLE_JUDGED_AT_ONCE):
            await repair.refresh(await self._judged(rechecking, report, some))

    async def _judged(
        self, rechecking: Rechecking, report: Report, suspects: Sequence[int]
    ) -> set[int]:
        """Tell who had drifted; return whom to refresh."""
        findings = await rechecking.judge(suspects)
        if not await self._has_change_capture():
            # It fell silent between the looks: what differs was never on its way.
            findings.acquit()
        await report.add_drift(findings.drifted)
        report.figures.users_unsettled += findings.unsettled
        return findings.others | findings.drifted.keys()

    async def _has_change_capture(self) -> bool:
        now_is = await self._store.freshness()
        return now_is is None or now_is.mode is FreshnessMode.CHANGE_CAPTURE

    async def _warm(self, report: Report, patience: Patience) -> None:
        await report.enter(RunPhase.REPAIRING, len(QUEUES) * self._limits.warming_users)
        for queue in QUEUES:
            token, left = "", self._limits.warming_users
            while left > 0:
                user_ids, token = await patience.ask(partial(self._upstreams.head, queue, token))
                some = user_ids[:left]
                if some:
                    cached = await patience.ask(partial(self._upstreams.warm, some))
                    report.figures.done["contexts_cached"] += cached
                    await report.step(len(some))
                left -= len(some)
                if not token:
                    break

    async def _keep_house(self, report: Report, patience: Patience) -> None:
        await report.enter(RunPhase.REPAIRING)
        done = report.figures.done
        has_more = True
        while has_more:
            kept, has_more = await patience.ask(self._upstreams.keep_house)
            done.update(kept)
            await report.step(sum(kept.values()))
        done["runs_deleted"] += await self._store.forget(self._clock.now() - self._limits.runs_kept)
        await self._check_entries(report, patience)

    async def _check_entries(self, report: Report, patience: Patience) -> None:
        await report.enter(RunPhase.COMPARING)
        after: int | None = 0
        while after is not None:
            page = await patience.ask(partial(self._upstreams.check_entries, after))
            report.figures.users_checked += page.checked
            corrected = {user_id: {_ALTERED} for user_id in page.corrected_user_ids}
            if corrected:
                await report.add_drift(corrected)
            await report.step(page.checked)
            after = page.through_user_id or None
