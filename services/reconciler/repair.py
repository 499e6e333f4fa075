"""Refreshing people: the same two calls as change capture makes, page by page."""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from servicekit.errors import ServiceError
from services.reconciler import metrics
from services.reconciler.domain.runs import RunPhase
from services.reconciler.looking import pages
from services.reconciler.patience import Patience
from services.reconciler.report import Report
from services.reconciler.upstreams import Upstreams

_log = logging.getLogger(__name__)


class Repair:
    """Refreshes people, a few pages at a time; those who are refused are left out and counted."""

    def __init__(
        self,
        upstreams: Upstreams,
        patience: Patience,
        report: Report,
        *,
        page_users: int,
        pages_in_flight: int,
    ) -> None:
        self._upstreams = upstreams
        self._patience = patience
        self._report = report
        self._page_users = page_users
        self._free = asyncio.Semaphore(pages_in_flight)

    async def refresh(self, user_ids: Iterable[int]) -> None:
        """Have these people read anew and applied."""
        wanted = sorted(user_ids)
        await self._report.enter(RunPhase.REPAIRING, len(wanted))
        tasks = [
            asyncio.create_task(self._refresh_page(page))
            for page in pages(wanted, self._page_users)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._report.save()

    async def _refresh_page(self, user_ids: Sequence[int]) -> None:
        async with self._free:
            await self._refresh(user_ids)
            await self._report.step(len(user_ids))

    async def _refresh(self, user_ids: Sequence[int]) -> None:
        """Refresh people; those who are refused are found by halves."""
        figures = self._report.figures
        try:
            moved = await self._patience.ask(lambda: self._upstreams.reconcile(user_ids))
        except ServiceError as error:
            if len(user_ids) == 1:
                _log.warning("user_failed", extra={"user_id": user_ids[0], "error": error.reason})
                metrics.USERS.labels("failed").inc()
                figures.count_failed(user_ids[0])
                return
            middle = len(user_ids) // 2
            await self._refresh(user_ids[:middle])
            await self._refresh(user_ids[middle:])
        else:
            figures.users_refreshed += len(user_ids)
            figures.users_moved += moved
            metrics.USERS.labels("refreshed").inc(len(user_ids))
            metrics.USERS.labels("moved").inc(moved)
