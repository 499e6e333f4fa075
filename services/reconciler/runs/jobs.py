"""What each kind of run does."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from dialler.queue.v1 import queue_pb2

from servicekit.backoff import Backoff
from servicekit.clock import Clock
from services.reconciler.compare.comparison import Candidates, Comparison
from services.reconciler.compare.rechecking import Rechecking
from services.reconciler.compare.repair import Repair
from services.reconciler.compare.snapshots import pages
from services.reconciler.domain.drift import Difference, DriftKind
from services.reconciler.domain.freshness import FreshnessMode
from services.reconciler.domain.runs import RunKind, RunPhase
from services.reconciler.report import RunReport
from services.reconciler.retry import UpstreamRetry
from services.reconciler.run_context import RunContext
from services.reconciler.store import RunStore
from services.reconciler.upstreams import QUEUES, MySqlCost, ReconcilerUpstreams

_ALTERED = Difference(DriftKind.ALTERED)
# A snapshot and its findings take more than a kilobyte: those of every user do not fit in memory.
_USERS_RECHECKED_AT_ONCE = 20_000
# Of the first page of users, a queue that knows fewer was never filled.
_FEW_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How much a run does at once, how it retries, and how far back it looks."""

    page_users: int
    pages_in_flight: int
    load_share: float
    recheck_seconds: float
    recheck_longest_seconds: float
    backoff: Backoff
    give_up_seconds: float
    changed_overlap: timedelta
    changed_every: timedelta
    warming_users: int
    runs_kept: timedelta
    gone_share_at_most: float


class Jobs:
    """Does a run from its beginning, whatever an earlier attempt at it did."""

    def __init__(
        self, upstreams: ReconcilerUpstreams, store: RunStore, limits: RunLimits, clock: Clock
    ) -> None:
        self._upstreams = upstreams
        self._store = store
        self._limits = limits
        self._clock = clock

    async def do(self, report: RunReport) -> None:
        """Do what the report's run is for.

        Raises:
            GaveUpError: nothing has succeeded for `give_up_seconds`.
            Conflict: RUN_TAKEN_OVER, another replica works on the run.
            ServiceError: a service refuses to do its part.
            FailedPrecondition: TOO_MANY_GONE, once everything except the gone users is repaired.
        """
        limits = self._limits
        retry = UpstreamRetry(limits.backoff, limits.give_up_seconds, self._clock)
        context = RunContext(self._upstreams, retry, report, self._clock, limits.load_share)
        kind = report.run.kind
        match kind:
            case RunKind.FULL if await self._is_first_fill(context):
                await self._fill(context)
            case RunKind.FULL:
                await self._settle(context, await Comparison(context).candidates())
            case RunKind.CHANGED:
                await self._settle(context, await self._changed_users(context))
            case RunKind.WARMING:
                await self._warm_cache(context)
            case RunKind.HOUSEKEEPING:
                await self._do_housekeeping(context)
            case _:
                assert_never(kind)

    async def _is_first_fill(self, context: RunContext) -> bool:
        """Return whether the queue has no user yet, or as good as none before the first full run.

        Change capture may have brought some users by then.
        """
        enough = 1.0
        if await self._store.last_success([RunKind.FULL], self._clock.now()) is None:
            first = await context.retry.call(self._upstreams.list_users, 0)
            enough = max(enough, len(first) * _FEW_SHARE)
        known = last_user_id = 0

        def begin() -> AsyncIterator[queue_pb2.AppliedFacts]:
            return self._upstreams.stream_applied(last_user_id)

        blocks = context.retry.stream(begin)
        async with aclosing(blocks):
            async for block in blocks:
                known += len(block.user_ids)
                last_user_id = block.user_ids[-1]
                if known >= enough:
                    return False
        return True

    async def _fill(self, context: RunContext) -> None:
        """Have the queue place all users at once, so that calls can begin; then refresh them all.

        The queue's rebuild reads only what decides who is called: without the refresh no later run
        could tell whether the rest is as it was applied.
        """
        upstreams, report, call = self._upstreams, context.report, context.retry.call
        await report.enter(RunPhase.FILLING)
        placed = 0
        async for progress in context.retry.stream(upstreams.rebuild, starts_over=True):
            report.figures.phase_total = progress.people_new
            placed = max(placed, progress.people_written)
            await report.step(placed - report.figures.phase_done)
        report.figures.users_moved += placed
        user_ids: set[int] = set()
        after = 0
        while page := await call(upstreams.list_users, after):
            user_ids.update(page)
            after = page[-1]
        report.figures.users_checked = len(user_ids)
        await self._settle(context, Candidates(user_ids, may_report_drift=False))

    async def _changed_users(self, context: RunContext) -> Candidates:
        limits, report = self._limits, context.report
        now = self._clock.now()
        last = await self._store.last_success([RunKind.CHANGED, RunKind.FULL], now)
        since = (last or now - limits.changed_every) - limits.changed_overlap
        await report.enter(RunPhase.READING)
        changed: set[int] = set()

        def begin() -> AsyncIterator[tuple[Sequence[int], MySqlCost]]:
            return self._upstreams.stream_changed(since, limits.load_share)

        async for user_ids, cost in context.retry.stream(begin, starts_over=True):
            changed.update(user_ids)
            report.spend(cost)
            await report.step(cost.rows)
        report.figures.users_checked = len(changed)
        blocks = context.retry.stream(lambda: self._upstreams.stream_applied(0))
        async with aclosing(blocks):
            async for block in blocks:
                return Candidates(changed, may_report_drift=bool(block.user_ids))
        return Candidates(changed, may_report_drift=False)

    async def _settle(self, context: RunContext, candidates: Candidates) -> None:
        """Refresh the candidates; while change capture works, report drift first.

        Without change capture, and while the queue has no user, differences are expected. Users
        that are gone come last, when their number is known.
        """
        limits, report = self._limits, context.report
        repair = Repair(
            context,
            page_users=limits.page_users,
            pages_in_flight=limits.pages_in_flight,
            gone_share_at_most=limits.gone_share_at_most,
        )
        if not candidates.may_report_drift or not await self._has_change_capture():
            await repair.refresh(candidates.user_ids, candidates.gone)
            await repair.settle_gone()
            return
        rechecking = Rechecking(
            context,
            shortest_seconds=limits.recheck_seconds,
            longest_seconds=limits.recheck_longest_seconds,
        )
        for some in pages(sorted(candidates.user_ids), _USERS_RECHECKED_AT_ONCE):
            findings = await rechecking.recheck(some)
            if not await self._has_change_capture():
                # It fell silent between the two reads, so these changes were never in flight.
                findings.discard_drift()
            await report.add_drift(findings.drifted)
            report.figures.users_unsettled += findings.unsettled
            await repair.refresh(findings.others | findings.drifted.keys(), findings.gone)
        await repair.settle_gone()

    async def _has_change_capture(self) -> bool:
        freshness = await self._store.freshness()
        return freshness is None or freshness.mode is FreshnessMode.CHANGE_CAPTURE

    async def _warm_cache(self, context: RunContext) -> None:
        upstreams, report, call = self._upstreams, context.report, context.retry.call
        await report.enter(RunPhase.REPAIRING, len(QUEUES) * self._limits.warming_users)
        for queue in QUEUES:
            token, left = "", self._limits.warming_users
            while left > 0:
                user_ids, token = await call(upstreams.head, queue, token)
                some = user_ids[:left]
                if some:
                    cached, too_large = await call(upstreams.warm, some)
                    report.figures.done["contexts_cached"] += cached
                    if too_large:
                        report.figures.done["contexts_too_large"] += too_large
                    await report.step(len(some))
                left -= len(some)
                if not token:
                    break

    async def _do_housekeeping(self, context: RunContext) -> None:
        upstreams, report, call = self._upstreams, context.report, context.retry.call
        await report.enter(RunPhase.REPAIRING)
        done = report.figures.done
        has_more = True
        while has_more:
            counts, has_more = await call(upstreams.purge_expired)
            done.update(counts)
            await report.step(sum(counts.values()))
        done["runs_deleted"] += await self._store.forget(self._clock.now() - self._limits.runs_kept)
        await report.enter(RunPhase.COMPARING)
        after: int | None = 0
        while after is not None:
            page = await call(upstreams.check_entries, after)
            report.figures.users_checked += page.checked
            if page.corrected_user_ids:
                await report.add_drift({it: {_ALTERED} for it in page.corrected_user_ids})
            await report.step(page.checked)
            after = page.through_user_id or None
