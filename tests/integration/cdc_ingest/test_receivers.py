"""A small change does not wait while a bulk is read, and no unread message is lost at the end."""

import asyncio
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from mainapp import description
from servicekit.clock import SystemClock
from services.cdc_ingest.domain.formats.records import Record
from services.cdc_ingest.domain.messages import SMALL_BYTES, Arrival
from services.cdc_ingest.domain.people import Demand, PersonMap
from services.cdc_ingest.domain.staleness import RowObserver
from services.cdc_ingest.sqs.queue import SqsStore
from services.cdc_ingest.sqs.receive_gate import ReceiveGate
from services.cdc_ingest.sqs.receivers import Receivers

if TYPE_CHECKING:
    from tests.integration.cdc_ingest.conftest import Bench

pytestmark = pytest.mark.integration


class SlowMap(PersonMap):
    """Reads bulks only once the test lets it."""

    def __init__(self) -> None:
        super().__init__(description.load())
        self.is_reading = threading.Event()
        self.may_go_on = threading.Event()

    def demand(self, records: Iterable[Record]) -> Demand:
        """Return the demand of the records."""
        records = list(records)
        if len(records) > 1:
            self.is_reading.set()
            self.may_go_on.wait(20)
        return super().demand(records)


async def test_a_lone_change_waits_for_no_bulk(bench: "Bench") -> None:
    slow = SlowMap()
    arrived: list[Arrival] = []
    receivers = _receivers(bench, slow)
    await bench.send(_bulk(bench))
    receivers.start(arrived.extend)
    await asyncio.to_thread(slow.is_reading.wait, 20)
    await bench.send(bench.change("users", {"id": 5}))
    await bench.until(lambda: len(arrived) == 1)
    assert arrived[0].demand.counts.total() == 1, "the lone one"
    slow.may_go_on.set()
    await bench.until(lambda: len(arrived) == 2)
    receivers.close()
    await receivers.ended(10)


async def test_what_has_not_been_read_at_the_end_goes_back(bench: "Bench") -> None:
    slow = SlowMap()
    arrived: list[Arrival] = []
    receivers = _receivers(bench, slow)
    for _ in range(3):
        await bench.send(_bulk(bench))
    receivers.start(arrived.extend)
    await asyncio.to_thread(slow.is_reading.wait, 20)
    receivers.close()
    slow.may_go_on.set()
    await receivers.ended(10)
    await asyncio.sleep(0)
    again = await asyncio.to_thread(
        bench.queue.client.receive_message, QueueUrl=bench.queue.url, MaxNumberOfMessages=10
    )
    assert len(arrived) + len(again.get("Messages", [])) == 3


def _receivers(bench: "Bench", slow: SlowMap) -> Receivers:
    queue, visibility_seconds = bench.queue, 60
    store = SqsStore(queue.client, queue.url, queue.dlq_url, SystemClock(), visibility_seconds)
    return Receivers(
        store,
        ReceiveGate(1_000, 1 << 24),
        slow,
        RowObserver(description.load()),
        threads=1,
        wait_seconds=1,
        visibility_seconds=visibility_seconds,
    )


def _bulk(bench: "Bench") -> list[object]:
    return [bench.change("users", {"id": it, "last_name": "x" * SMALL_BYTES}) for it in (7, 8)]
