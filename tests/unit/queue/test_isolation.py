"""Work on many items: those at fault are found, the others done, and an absence ends it all."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import (
    Conflict,
    DeadlineExceeded,
    Exhausted,
    Internal,
    ServiceError,
    Unavailable,
)
from services.queue.people.isolation import isolated


class Work:
    """Fails for any batch with one of `faulty`."""

    def __init__(self, faulty: set[int], error: Exception) -> None:
        self._faulty = faulty
        self._error = error
        self.done: list[int] = []
        self.found: list[int] = []
        self.calls = 0

    async def work(self, items: Sequence[int]) -> None:
        self.calls += 1
        if not self._faulty.isdisjoint(items):
            raise self._error
        self.done += items

    async def on_fault(self, item: int, error: Exception) -> None:
        assert error is self._error
        self.found.append(item)


@pytest.mark.parametrize(
    "error", [Internal("A_DEFECT", ""), Conflict("BUSY_ROWS", ""), ValueError(), KeyError()]
)
@given(items=st.lists(st.integers(0, 60), unique=True), faulty=st.sets(st.integers(0, 60)))
async def test_each_item_is_done_once_or_found_at_fault_in_order(
    error: Exception, items: list[int], faulty: set[int]
) -> None:
    work = Work(faulty, error)
    await isolated(items, work.work, work.on_fault)
    assert work.done == [it for it in items if it not in faulty]
    assert work.found == [it for it in items if it in faulty]


async def test_one_at_fault_among_many_costs_few_calls() -> None:
    work = Work({77}, Internal("A_DEFECT", ""))
    await isolated(range(128), work.work, work.on_fault)
    assert work.calls == 1 + 2 * 7


@pytest.mark.parametrize("kind", [Unavailable, DeadlineExceeded, Exhausted])
async def test_what_is_away_is_no_items_fault(kind: type[ServiceError]) -> None:
    work = Work({3}, kind("AWAY", ""))
    with pytest.raises(kind):
        await isolated(range(8), work.work, work.on_fault)
    assert (work.calls, work.done, work.found) == (1, [], [])


async def test_what_a_fault_leads_to_may_end_everything() -> None:
    work = Work(set(range(8)), Internal("A_DEFECT", ""))

    async def enough(item: int, error: Exception) -> None:
        await work.on_fault(item, error)
        if item == 2:
            raise Unavailable("ENOUGH", "")

    with pytest.raises(Unavailable):
        await isolated(range(8), work.work, enough)
    assert work.found == [0, 1, 2]
