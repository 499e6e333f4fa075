"""A pause ends only when an operator ends it."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from servicekit.errors import Unavailable
from services.cdc_ingest.sqs.pause import Pause
from services.cdc_ingest.sqs.queue import SqsStore
from services.cdc_ingest.sqs.receive_gate import CloseReason, ReceiveGate
from tests.fakes.clock import FakeClock

NOW = datetime(2025, 6, 2, 12, tzinfo=UTC)


@dataclass
class FakeTags:
    """A queue that may refuse its tag."""

    is_marked: bool = False
    is_refusing: bool = False

    def mark_paused(self) -> None:
        if self.is_refusing:
            raise Unavailable("SQS_UNAVAILABLE", "not now")
        self.is_marked = True

    def unmark_paused(self) -> None:
        self.is_marked = False

    def is_marked_paused(self) -> bool:
        return self.is_marked


@dataclass
class FakePipeline:
    """Resumes as the real one does."""

    gate: ReceiveGate

    def resume(self) -> None:
        for reason in (CloseReason.OPERATOR, CloseReason.DEAD_LETTERS):
            self.gate.open(reason)


@dataclass
class Bench:
    """A pause, its queue, and the time."""

    tags: FakeTags = field(default_factory=FakeTags)
    gate: ReceiveGate = field(default_factory=lambda: ReceiveGate(100, 1_000_000))
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))

    def __post_init__(self) -> None:
        resume = FakePipeline(self.gate).resume
        self.pause = Pause(cast(SqsStore, self.tags), self.gate, resume, self.clock)

    async def pass_minutes(self, minutes: int) -> None:
        for _ in range(minutes * 4):
            self.clock.advance(timedelta(seconds=15))
            await self.pause.run_once(self.clock.now())


async def test_an_alarm_whose_tag_was_refused_is_not_forgotten() -> None:
    bench = Bench()
    bench.tags.is_refusing = True
    bench.gate.close(CloseReason.DEAD_LETTERS)
    await bench.pass_minutes(5)
    assert bench.gate.is_closed_for(CloseReason.DEAD_LETTERS)
    bench.tags.is_refusing = False
    await bench.pass_minutes(5)
    assert bench.gate.is_closed_for(CloseReason.DEAD_LETTERS)
    assert bench.tags.is_marked, "the other replicas are paused too"
    await bench.pause.end()
    assert not bench.gate.is_closed_for(CloseReason.DEAD_LETTERS)


async def test_a_pause_whose_tag_was_refused_holds_and_is_tagged_later() -> None:
    bench = Bench()
    bench.tags.is_refusing = True
    with pytest.raises(Unavailable):
        await bench.pause.begin()
    await bench.pass_minutes(5)
    assert bench.gate.is_closed_for(CloseReason.OPERATOR)
    bench.tags.is_refusing = False
    await bench.pass_minutes(1)
    assert bench.tags.is_marked


async def test_a_pause_that_another_copy_ended_ends() -> None:
    bench = Bench()
    await bench.pause.begin()
    await asyncio.to_thread(bench.tags.unmark_paused)
    await bench.pass_minutes(2)
    assert not bench.gate.is_closed_for(CloseReason.OPERATOR)
