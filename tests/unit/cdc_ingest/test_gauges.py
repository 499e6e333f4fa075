"""The gauges show how many messages wait in both queues."""

from datetime import UTC, datetime
from typing import cast

from prometheus_client import REGISTRY

from services.cdc_ingest.sqs.queue import QueueDepthGauges, QueueDepths, SqsStore


class Depths:
    """An SQS with these depths."""

    def depths(self) -> QueueDepths:
        return QueueDepths(backlog=31, dead_letter=2)


async def test_depths_of_both_queues_are_shown() -> None:
    await QueueDepthGauges(cast(SqsStore, Depths())).run_once(datetime.now(UTC))
    for name, value in (("backlog_messages", 31), ("dead_letter_messages", 2)):
        assert REGISTRY.get_sample_value(f"dialler_cdc_ingest_{name}") == value
