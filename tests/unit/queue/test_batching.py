"""Requests that wait together are served together, and each gets an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, Histogram

from servicekit.errors import Internal, ServiceError, Unavailable
from services.queue.calls.batching import Batching


@dataclass
class Asked:
    name: str
    traceparent: str | None = None
    answer: asyncio.Future[str] = field(default_factory=asyncio.Future)

    @property
    def is_waiting(self) -> bool:
        return not self.answer.done()

    def fail(self, error: ServiceError) -> None:
        if self.is_waiting:
            self.answer.set_exception(error)


Serve = Callable[[Sequence[Asked]], Awaitable[None]]


def batching(serve: Serve, *, workers: int = 1, batch: int = 10) -> Batching[Asked]:
    sizes = Histogram("sizes", "How many together.", registry=CollectorRegistry())
    return Batching("test", serve, sizes, workers=workers, batch=batch, relief_seconds=0.0)


@dataclass
class Served:
    """Answers each request with its name, as soon as it may."""

    together: list[list[str]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    has_begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def __call__(self, batch: Sequence[Asked]) -> None:
        self.together.append([it.name for it in batch])
        self.has_begun.release()
        await self.may_answer.wait()
        for it in batch:
            it.answer.set_result(it.name)


async def test_requests_that_arrive_during_a_batch_are_served_together_after_it() -> None:
    served = Served()
    requests = batching(served, batch=2)
    asked = [Asked(name) for name in "abcd"]
    requests.join(asked[0])
    await served.has_begun.acquire()
    for it in asked[1:]:
        requests.join(it)
    served.may_answer.set()
    assert [await it.answer for it in asked] == ["a", "b", "c", "d"]
    assert served.together == [["a"], ["b", "c"], ["d"]]


async def test_a_batch_that_takes_long_does_not_hold_up_other_requests() -> None:
    never = asyncio.Event()

    async def serve(batch: Sequence[Asked]) -> None:
        if batch[0].name == "slow":
            await never.wait()
        for it in batch:
            it.answer.set_result(it.name)

    requests = batching(serve, workers=2)
    slow, quick = Asked("slow"), Asked("quick")
    requests.join(slow)
    requests.join(quick)
    await asyncio.sleep(0)
    requests.join(late := Asked("late"))
    assert await late.answer == "late"
    never.set()
    assert await slow.answer == "slow"


async def test_no_more_batches_run_than_there_are_workers() -> None:
    served = Served()
    requests = batching(served, workers=2, batch=1)
    asked = [Asked(name) for name in "abc"]
    for it in asked:
        requests.join(it)
    for _ in range(2):
        await served.has_begun.acquire()
    assert served.together == [["a"], ["b"]]
    served.may_answer.set()
    assert await asked[2].answer == "c"


@pytest.mark.parametrize(
    ("raised", "answered"),
    [
        (Unavailable("AWAY", "away"), Unavailable),
        (ValueError("a defect"), Internal),
        (None, Internal),
    ],
)
async def test_a_request_that_a_batch_leaves_unanswered_gets_an_error(
    raised: Exception | None, answered: type[ServiceError]
) -> None:
    async def serve(batch: Sequence[Asked]) -> None:
        if raised is not None:
            raise raised

    requests = batching(serve)
    requests.join(asked := Asked("a"))
    with pytest.raises(answered):
        await asked.answer


async def test_requests_given_up_are_passed_over_and_a_stop_waits_for_the_end() -> None:
    served = Served()
    served.may_answer.set()
    requests = batching(served)
    gone, here = Asked("gone"), Asked("here")
    gone.answer.cancel()
    requests.join(gone)
    requests.join(here)
    await requests.stop()
    assert here.answer.result() == "here"
    assert served.together == [["here"]]
