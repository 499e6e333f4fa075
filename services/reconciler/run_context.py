"""What every step of one run works with."""

import asyncio
from dataclasses import dataclass

from servicekit.clock import Clock
from services.reconciler.report import RunReport
from services.reconciler.retry import UpstreamRetry
from services.reconciler.upstreams import MySqlCost, ReconcilerUpstreams


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run's upstreams, retries and report; MySQL works on it for `load_share` of the time."""

    upstreams: ReconcilerUpstreams
    retry: UpstreamRetry
    report: RunReport
    clock: Clock
    load_share: float

    async def spend(self, cost: MySqlCost, steps: int = 0) -> None:
        """Count the cost of a read and its steps, and return once MySQL has rested for it."""
        self.report.spend(cost)
        if steps:
            await self.report.step(steps)
        await asyncio.sleep(cost.seconds * (1.0 / self.load_share - 1.0))
