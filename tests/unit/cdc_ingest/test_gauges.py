"""How much waits in the queues is shown."""

from datetime import UTC, datetime
from typing import cast

from prometheus_client import REGISTRY

from services.cdc_ingest.gauges import Gauges
from services.cdc_ingest.store import QueueDepths, SqsStore


class Depths:
    """An SQS that has so much waiting."""

    def depths(self) -> QueueDepths:
        return QueueDepths(backlog=31, dead_letter=2)


async def test_depths_of_both_queues_are_shown() -> None:
    await Gauges(cast(SqsStore, Depths())).run_once(datetime.now(UTC))
    for name, value in (("backlog_messages", 31), ("dead_letter_messages", 2)):
        assert REGISTRY.get_sample_value(f"dialler_cdc_ingest_{name}") == value
