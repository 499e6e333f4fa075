"""Refreshes users page by page, by the same two calls as change capture.

Users that the main app no longer has are applied last, and only if their number is plausible.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence, Set

from dialler.queue.v1.queue_pb2 import AppliedFacts

from servicekit.errors import FailedPrecondition, ServiceError
from services.reconciler import metrics
from services.reconciler.compare.snapshots import pages
from services.reconciler.domain.drift import GONE_ALWAYS, is_gone_plausible
from services.reconciler.domain.runs import RunPhase
from services.reconciler.run_context import RunContext

_log = logging.getLogger(__name__)


class Repair:
    """Refreshes users, a few pages at a time; counts and leaves out the users who are refused.

    Users found to be gone wait for `settle_gone`, which knows their number.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        page_users: int,
        pages_in_flight: int,
        gone_share_at_most: float,
    ) -> None:
        self._context = context
        self._page_users = page_users
        self._free = asyncio.Semaphore(pages_in_flight)
        self._gone_share_at_most = gone_share_at_most
        self._gone: set[int] = set()

    async def refresh(self, user_ids: Set[int], gone: Set[int] = frozenset()) -> None:
        """Refresh and apply these users, except those of `gone`, which the main app lacks."""
        self._gone |= user_ids & gone
        await self._refresh_all(user_ids - gone, applies_gone=False)

    async def settle_gone(self) -> None:
        """Apply the users found to be gone.

        Raises:
            FailedPrecondition: TOO_MANY_GONE. Then the users whom the queue has stay as they are,
                unless the run allows any number.
        """
        context, report = self._context, self._context.report
        gone, withheld, known = self._gone, set[int](), 0
        if gone and not report.run.allow_gone:
            is_blind = not await context.retry.call(context.upstreams.list_users, 0, page_size=1)
            if is_blind or len(gone) > GONE_ALWAYS:
                lost, known = await self._known_among(gone)
                share = self._gone_share_at_most
                if not is_gone_plausible(len(lost), known, share, is_blind=is_blind):
                    withheld = lost
        if gone - withheld:
            await self._refresh_all(gone - withheld, applies_gone=True)
        report.figures.users_withheld = len(withheld)
        metrics.WITHHELD.labels(report.run.kind.value.lower()).set(len(withheld))
        if not withheld:
            return
        await report.save()
        run_id = str(report.run.run_id)
        extra = {"run_id": run_id, "people_gone": len(withheld), "people_known": known}
        _log.error("run_too_many_gone", extra=extra)
        raise FailedPrecondition(
            "TOO_MANY_GONE",
            f"{len(withheld)} of {known} people would be gone from the main app, so none was taken"
            " for gone; the rest is repaired. See whether the main app's tables are whole, then"
            " have another run done, with allow_gone if these people are gone indeed",
        )

    async def _known_among(self, gone: Set[int]) -> tuple[set[int], int]:
        """Return which of these users the queue has, and how many users it has in all."""
        lost: set[int] = set()
        known = last_user_id = 0

        def begin() -> AsyncIterator[AppliedFacts]:
            return self._context.upstreams.stream_applied(last_user_id)

        async for block in self._context.retry.stream(begin):
            present = set(block.user_ids).difference(block.absent_user_ids)
            lost |= present & gone
            known += len(present)
            last_user_id = block.user_ids[-1]
        return lost, known

    async def _refresh_all(self, user_ids: Iterable[int], *, applies_gone: bool) -> None:
        report = self._context.report
        wanted = sorted(user_ids)
        await report.enter(RunPhase.REPAIRING, len(wanted))

        async def refresh_page(page: Sequence[int]) -> None:
            async with self._free:
                await self._refresh(page, applies_gone)
                await report.step(len(page))

        tasks = [
            asyncio.create_task(refresh_page(page)) for page in pages(wanted, self._page_users)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await report.save()

    async def _refresh(self, user_ids: Sequence[int], applies_gone: bool) -> None:
        """Refresh users; on a refusal, find the refused users by halving the page."""
        figures = self._context.report.figures
        try:
            refreshed, moved = await self._context.retry.call(
                self._read_and_apply, user_ids, applies_gone
            )
        except ServiceError as error:
            if len(user_ids) == 1:
                _log.warning("user_failed", extra={"user_id": user_ids[0], "error": error.reason})
                metrics.USERS.labels("failed").inc()
                figures.count_failed(user_ids[0])
                return
            middle = len(user_ids) // 2
            await self._refresh(user_ids[:middle], applies_gone)
            await self._refresh(user_ids[middle:], applies_gone)
        else:
            figures.users_refreshed += refreshed
            figures.users_moved += moved
            metrics.USERS.labels("refreshed").inc(refreshed)
            metrics.USERS.labels("moved").inc(moved)

    async def _read_and_apply(self, user_ids: Sequence[int], applies_gone: bool) -> tuple[int, int]:
        """Return how many users were applied, and how many of them moved in the queue."""
        upstreams = self._context.upstreams
        facts = await upstreams.refresh(user_ids)
        if not applies_gone:
            # A row may be gone by now that an earlier read of the user found.
            self._gone.update(it.user_id for it in facts if not it.exists)
            facts = [it for it in facts if it.exists]
        return len(facts), await upstreams.apply(facts) if facts else 0
