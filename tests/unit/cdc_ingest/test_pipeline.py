"""The seams of the pipeline: each message ends once, and no failure leaves one without an end."""

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
from servicekit.testing.clock import FakeClock
from services.cdc_ingest.custody import Custody
from services.cdc_ingest.domain.backlog import Batch, Ticket
from services.cdc_ingest.domain.messages import Message
from services.cdc_ingest.domain.rereading import Guard
from services.cdc_ingest.domain.staleness import Witness
from services.cdc_ingest.intake import Intake, Stop
from services.cdc_ingest.metrics import Ledger
from services.cdc_ingest.reading import read
from services.cdc_ingest.readings import FactsReading
from services.cdc_ingest.refresher import Refresher
from services.cdc_ingest.worker import Pipeline
from tests.unit.cdc_ingest.bodies import PEOPLE, arrival, dms, message

AWAY = Unavailable("AWAY", "away")
BUG = RuntimeError("a bug of ours")


@dataclass
class FakeCustody:
    """Takes note of how each message ended."""

    ends: list[str] = field(default_factory=list)

    def hold(self, _: Iterable[object]) -> None:
        pass

    def delete(self, message: Message) -> None:
        self.ends.append(f"{message.message_id} deleted")

    def put_back(self, message: Message, seconds: int | None = None) -> None:
        self.ends.append(f"{message.message_id} put back")

    def bury(self, message: Message, reason: str) -> None:
        self.ends.append(f"{message.message_id} {reason}")


@dataclass
class FakeRefresher:
    """Fails as told; `gate` holds refreshes, `probes` are raised one after the other."""

    refresh_error: Exception | None = None
    full_run_error: Exception | None = None
    reading: FactsReading = field(default_factory=lambda: FactsReading([]))
    probes: list[Exception] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    full_run_gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.full_run_gate.set()

    async def refresh(self, _: Batch) -> FactsReading:
        await self.gate.wait()
        if self.refresh_error is not None:
            raise self.refresh_error
        return self.reading

    async def ask_full_run(self, _: Ticket, __: str) -> bool:
        await self.full_run_gate.wait()
        if self.full_run_error is not None:
            raise self.full_run_error
        return True

    async def probe(self) -> None:
        if self.probes:
            raise self.probes.pop(0)


class BrokenReading(FactsReading):
    """Cannot be judged."""

    def row(self, *_: object) -> None:
        raise BUG


@dataclass
class Bench:
    """A pipeline between fakes."""

    refresher: FakeRefresher = field(default_factory=FakeRefresher)
    custody: FakeCustody = field(default_factory=FakeCustody)

    def __post_init__(self) -> None:
        self.intake = Intake(100, 1_000_000)
        self.pipeline = Pipeline(
            cast(Refresher, self.refresher),
            cast(Custody, self.custody),
            self.intake,
            Ledger(),
            Guard(settle_seconds=0, patience_seconds=60),
            # Later than any message: the first reading may stand.
            FakeClock(datetime(2100, 6, 2, 12, tzinfo=UTC)),
            batch_users=10,
            batches_in_flight=3,
            bulk_above_users=50,
            max_receives=5,
            dead_letters_per_minute=5,
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        for _ in iter(holds, True):
            await asyncio.sleep(0)


CHANGE = dms("users", data={"id": 5, "status": "x"}, before={"id": 5, "status": None})
BOTH = [CHANGE, dms("claims", "truncate-table", **{"record-type": "control"})]


@pytest.mark.parametrize("error", [AWAY, BUG])
async def test_a_message_of_which_two_things_fail_goes_back_once(
    bench: Bench, error: Exception
) -> None:
    bench.refresher.refresh_error = AWAY
    bench.refresher.full_run_error = error
    bench.refresher.full_run_gate.clear()
    bench.pipeline.accept([arrival(BOTH)])
    await until(lambda: bool(bench.custody.ends))
    bench.refresher.full_run_gate.set()
    await bench.pipeline.stop(5)
    assert bench.custody.ends == ["m put back"]


async def test_a_message_given_back_at_the_end_is_not_given_back_again(bench: Bench) -> None:
    bench.refresher.refresh_error = AWAY
    bench.refresher.full_run_gate.clear()
    bench.pipeline.accept([arrival(BOTH)])
    await until(lambda: bool(bench.custody.ends))
    await bench.pipeline.stop(0)
    assert bench.custody.ends == ["m put back"]


async def test_a_full_run_that_cannot_be_asked_for_does_not_keep_its_message_for_ever(
    bench: Bench,
) -> None:
    bench.refresher.full_run_error = BUG
    bench.pipeline.accept([arrival(BOTH[1])])
    await until(lambda: bool(bench.custody.ends))
    assert bench.custody.ends == ["m put back"]


async def test_a_reading_that_cannot_be_judged_does_not_keep_its_message_for_ever(
    bench: Bench,
) -> None:
    bench.refresher.reading = BrokenReading([])
    told = read(message(json.dumps(CHANGE)), PEOPLE, Witness(description.load()))
    bench.pipeline.accept([told])
    await until(lambda: bool(bench.custody.ends))
    assert bench.custody.ends == ["m put back"]


@pytest.mark.parametrize("error", [BUG, AWAY])
async def test_a_probe_that_breaks_does_not_stop_the_ingest_for_ever(
    bench: Bench, error: Exception
) -> None:
    bench.refresher.refresh_error = AWAY
    bench.refresher.probes = [error]
    bench.pipeline.accept([arrival(CHANGE)])
    await until(lambda: bench.intake.is_stopped(Stop.DOWNSTREAM))
    bench.refresher.refresh_error = None
    await until(lambda: not bench.intake.is_stopped(Stop.DOWNSTREAM))
    bench.pipeline.accept([arrival(CHANGE)])
    await until(lambda: len(bench.custody.ends) == 2)
    assert bench.custody.ends == ["m put back", "m deleted"]


async def test_who_waits_is_shown_while_nothing_is_begun(bench: Bench) -> None:
    bench.refresher.refresh_error = AWAY
    bench.refresher.probes = [AWAY] * 100
    bench.pipeline.accept([arrival(CHANGE)])
    await until(lambda: bool(bench.custody.ends))
    bench.pipeline.accept([arrival([dms("users", data={"id": n}) for n in range(1, 8)])])
    assert _waiting() == 7
    await bench.pipeline.stop(0)
    assert _waiting() == 0


def _waiting() -> float | None:
    return REGISTRY.get_sample_value("dialler_cdc_ingest_waiting", {"lane": "fresh"})


def test_places_held_are_shown_when_they_are_given_back() -> None:
    intake = Intake(100, 1_000_000)
    assert intake.admit()
    held = message("x")
    intake.took([held])
    assert _held() == 1
    intake.left(held)
    assert _held() == 0


def _held() -> float | None:
    return REGISTRY.get_sample_value("dialler_cdc_ingest_messages_in_flight")
