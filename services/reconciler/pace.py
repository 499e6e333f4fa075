"""Leaving MySQL alone for as long as what it did asks for."""

import asyncio

from services.reconciler.upstreams import Cost


class Pace:
    """Keeps MySQL at work on a run for no more than a share of the time."""

    def __init__(self, load_share: float) -> None:
        self._rest_for_each_second = 1.0 / load_share - 1.0

    async def rest(self, cost: Cost) -> None:
        """Return once MySQL has rested for what it did."""
        await asyncio.sleep(cost.seconds * self._rest_for_each_second)
