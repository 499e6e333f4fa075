"""Figures of the queues for operators, kept up to date."""

import asyncio
from datetime import datetime

from services.cdc_ingest import metrics
from services.cdc_ingest.store import SqsStore


class Gauges:
    """Asks SQS how many messages wait."""

    def __init__(self, store: SqsStore) -> None:
        self._store = store

    async def run_once(self, _now: datetime) -> None:
        """Ask once; raises Unavailable when SQS does not answer."""
        depths = await asyncio.to_thread(self._store.depths)
        metrics.depths(depths.backlog, depths.dead_letter)
