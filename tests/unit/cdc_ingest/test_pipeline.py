"""Each message in the pipeline ends exactly once, also after any failure."""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import pytest
from prometheus_client import REGISTRY

from mainapp import description
from servicekit.errors import Unavailable
from services.cdc_ingest.domain.backlog import MessageTicket, RefreshBatch
from services.cdc_ingest.domain.messages import Message
from services.cdc_ingest.domain.rereading import StalenessCheck
from services.cdc_ingest.domain.staleness import RowObserver
from services.cdc_ingest.metrics import PipelineMetrics
from services.cdc_ingest.refresh.pipeline import RefreshPipeline
from services.cdc_ingest.refresh.readings import FactsReading
from services.cdc_ingest.refresh.refresher import Refresher
from services.cdc_ingest.sqs.in_flight import InFlight
from services.cdc_ingest.sqs.message_reader import read_message
from services.cdc_ingest.sqs.receive_gate import CloseReason, ReceiveGate
from tests.fakes import waiting
from tests.fakes.clock import FakeClock
from tests.unit.cdc_ingest.bodies import PEOPLE, arrival, dms, message

UNAVAILABLE = Unavailable("UNAVAILABLE", "unavailable")
BUG = RuntimeError("a bug of ours")


@dataclass
class FakeInFlight:
    """Records how each message ended."""

    ends: list[str] = field(default_factory=list)

    def hold(self, _: Iterable[object]) -> None:
        pass

    def delete(self, message: Message) -> None:
        self.ends.append(f"{message.message_id} deleted")

    def put_back(self, message: Message, seconds: int | None = None) -> None:
        self.ends.append(f"{message.message_id} put back")

    def dead_letter(self, message: Message, reason: str) -> None:
        self.ends.append(f"{message.message_id} {reason}")


@dataclass
class FakeRefresher:
    """Fails as set; `gate` holds refreshes, `probes` are raised one after the other."""

    refresh_error: Exception | None = None
    full_run_error: Exception | None = None
    reading: FactsReading = field(default_factory=lambda: FactsReading([]))
    probes: list[Exception] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    full_run_gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.full_run_gate.set()

    async def refresh(self, batch: RefreshBatch) -> FactsReading:
        self.sizes.append(len(batch.waiting))
        await self.gate.wait()
        if self.refresh_error is not None:
            raise self.refresh_error
        return self.reading

    async def ask_full_run(self, _: MessageTicket, __: str) -> bool:
        await self.full_run_gate.wait()
        if self.full_run_error is not None:
            raise self.full_run_error
        return True

    async def probe(self) -> None:
        if self.probes:
            raise self.probes.pop(0)


class BrokenReading(FactsReading):
    """A reading that raises when it is compared."""

    def row(self, *_: object) -> None:
        raise BUG


@dataclass
class Bench:
    """A pipeline with fakes around it."""

    refresher: FakeRefresher = field(default_factory=FakeRefresher)
    in_flight: FakeInFlight = field(default_factory=FakeInFlight)

    def __post_init__(self) -> None:
        self.gate = ReceiveGate(100, 1_000_000)
        self.clock = FakeClock(datetime(2100, 6, 2, 12, tzinfo=UTC))
        self.pipeline = RefreshPipeline(
            cast(Refresher, self.refresher),
            cast(InFlight, self.in_flight),
            self.gate,
            PipelineMetrics(),
            StalenessCheck(settle_seconds=0, retry_seconds=60),
            # Later than any message: the first reading may stand.
            self.clock,
            batch_users=500,
            batches_in_flight=3,
            bulk_above_users=50,
            max_receives=5,
            dead_letters_per_minute=5,
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def until(holds: Callable[[], bool]) -> None:
    async with waiting.limit(5):
        for _ in iter(holds, True):
            await asyncio.sleep(0)


CHANGE = dms("users", data={"id": 5, "status": "x"}, before={"id": 5, "status": None})
BOTH = [CHANGE, dms("claims", "truncate-table", **{"record-type": "control"})]


@pytest.mark.parametrize("error", [UNAVAILABLE, BUG])
async def test_a_message_of_which_two_things_fail_goes_back_once(
    bench: Bench, error: Exception
) -> None:
    bench.refresher.refresh_error = UNAVAILABLE
    bench.refresher.full_run_error = error
    bench.refresher.full_run_gate.clear()
    bench.pipeline.accept([arrival(BOTH)])
    await until(lambda: bool(bench.in_flight.ends))
    bench.refresher.full_run_gate.set()
    await bench.pipeline.stop(5)
    assert bench.in_flight.ends == ["m put back"]


async def test_a_message_given_back_at_the_end_is_not_given_back_again(bench: Bench) -> None:
    bench.refresher.refresh_error = UNAVAILABLE
    bench.refresher.full_run_gate.clear()
    bench.pipeline.accept([arrival(BOTH)])
    await until(lambda: bool(bench.in_flight.ends))
    await bench.pipeline.stop(0)
    assert bench.in_flight.ends == ["m put back"]


async def test_a_full_run_that_cannot_be_asked_for_does_not_keep_its_message_for_ever(
    bench: Bench,
) -> None:
    bench.refresher.full_run_error = BUG
    bench.pipeline.accept([arrival(BOTH[1])])
    await until(lambda: bool(bench.in_flight.ends))
    assert bench.in_flight.ends == ["m put back"]


async def test_a_reading_that_cannot_be_judged_does_not_keep_its_message_for_ever(
    bench: Bench,
) -> None:
    bench.refresher.reading = BrokenReading([])
    told = read_message(message(json.dumps(CHANGE)), PEOPLE, RowObserver(description.load()))
    bench.pipeline.accept([told])
    await until(lambda: bool(bench.in_flight.ends))
    assert bench.in_flight.ends == ["m put back"]


@pytest.mark.parametrize("error", [BUG, UNAVAILABLE])
async def test_a_probe_that_breaks_does_not_stop_the_ingest_for_ever(
    bench: Bench, error: Exception
) -> None:
    bench.refresher.refresh_error = UNAVAILABLE
    bench.refresher.probes = [error]
    bench.pipeline.accept([arrival(CHANGE)])
    await until(lambda: bench.gate.is_closed_for(CloseReason.DOWNSTREAM))
    bench.refresher.refresh_error = None
    await until(lambda: not bench.gate.is_closed_for(CloseReason.DOWNSTREAM))
    bench.pipeline.accept([arrival(CHANGE)])
    await until(lambda: len(bench.in_flight.ends) == 2)
    assert bench.in_flight.ends == ["m put back", "m deleted"]


async def test_who_waits_is_shown_while_nothing_is_begun(bench: Bench) -> None:
    bench.refresher.refresh_error = UNAVAILABLE
    bench.refresher.probes = [UNAVAILABLE] * 100
    bench.pipeline.accept([arrival(CHANGE)])
    await until(lambda: bool(bench.in_flight.ends))
    bench.pipeline.accept([arrival([dms("users", data={"id": n}) for n in range(1, 8)])])
    assert _waiting() == 7
    await bench.pipeline.stop(0)
    assert _waiting() == 0


async def test_bulk_batches_are_smaller_while_small_changes_come(bench: Bench) -> None:
    bulk = arrival([dms("users", data={"id": n}) for n in range(101, 401)])
    bench.pipeline.accept([bulk])
    await until(lambda: len(bench.in_flight.ends) == 1)
    assert bench.refresher.sizes == [300]

    bench.pipeline.accept([arrival(CHANGE), bulk])
    await until(lambda: len(bench.in_flight.ends) == 3)
    assert bench.refresher.sizes[1:] == [1, 100, 100, 100]

    bench.clock.advance(2)
    bench.pipeline.accept([bulk])
    await until(lambda: len(bench.in_flight.ends) == 4)
    assert bench.refresher.sizes[5:] == [300]


def _waiting() -> float | None:
    return REGISTRY.get_sample_value("dialler_cdc_ingest_waiting", {"lane": "fresh"})


def test_places_held_are_shown_when_they_are_given_back() -> None:
    gate = ReceiveGate(100, 1_000_000)
    assert gate.reserve()
    held = message("x")
    gate.fill_reservation([held])
    assert _held() == 1
    gate.release([held])
    assert _held() == 0


def _held() -> float | None:
    return REGISTRY.get_sample_value("dialler_cdc_ingest_messages_in_flight")
