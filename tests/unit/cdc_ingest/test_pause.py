"""A pause ends when somebody ends it."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from servicekit.errors import Unavailable
from servicekit.testing.clock import FakeClock
from services.cdc_ingest.intake import Intake, Stop
from services.cdc_ingest.pause import Pause
from services.cdc_ingest.store import SqsStore
from services.cdc_ingest.worker import Pipeline

NOW = datetime(2025, 6, 2, 12, tzinfo=UTC)


@dataclass
class FakeTags:
    """A queue whose tag cannot always be set."""

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

    intake: Intake

    def resume(self) -> None:
        for why in (Stop.OPERATOR, Stop.DEAD_LETTERS):
            self.intake.go(why)


@dataclass
class Bench:
    """A pause, its queue, and the time."""

    tags: FakeTags = field(default_factory=FakeTags)
    intake: Intake = field(default_factory=lambda: Intake(100, 1_000_000))
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))

    def __post_init__(self) -> None:
        pipeline = cast(Pipeline, FakePipeline(self.intake))
        self.pause = Pause(cast(SqsStore, self.tags), self.intake, pipeline, self.clock)

    async def pass_minutes(self, minutes: int) -> None:
        for _ in range(minutes * 4):
            self.clock.advance(timedelta(seconds=15))
            await self.pause.run_once(self.clock.now())


async def test_an_alarm_whose_tag_was_refused_is_not_forgotten() -> None:
    bench = Bench()
    bench.tags.is_refusing = True
    bench.intake.stop(Stop.DEAD_LETTERS)
    await bench.pass_minutes(5)
    assert bench.intake.is_stopped(Stop.DEAD_LETTERS)
    bench.tags.is_refusing = False
    await bench.pass_minutes(5)
    assert bench.intake.is_stopped(Stop.DEAD_LETTERS)
    assert bench.tags.is_marked, "the other copies are paused too"
    await bench.pause.end()
    assert not bench.intake.is_stopped(Stop.DEAD_LETTERS)


async def test_a_pause_whose_tag_was_refused_holds_and_is_tagged_later() -> None:
    bench = Bench()
    bench.tags.is_refusing = True
    with pytest.raises(Unavailable):
        await bench.pause.begin()
    await bench.pass_minutes(5)
    assert bench.intake.is_stopped(Stop.OPERATOR)
    bench.tags.is_refusing = False
    await bench.pass_minutes(1)
    assert bench.tags.is_marked


async def test_a_pause_that_somebody_else_ended_is_ended_here() -> None:
    bench = Bench()
    await bench.pause.begin()
    await asyncio.to_thread(bench.tags.unmark_paused)
    await bench.pass_minutes(2)
    assert not bench.intake.is_stopped(Stop.OPERATOR)
