"""Concurrent requests share readings, and never one that began before they arrived."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from servicekit import deadline
from servicekit.coalescing import Coalescer
from servicekit.errors import Unavailable
from tests.fakes import waiting


class Source:
    """Readings that wait until they are let go; each answers with its own number."""

    def __init__(self) -> None:
        self.batches: list[Sequence[int]] = []
        self.most_at_once = 0
        self.began = asyncio.Event()
        self._gates: list[asyncio.Event] = []
        self._under_way = 0
        self.failure: Exception | None = None
        self.deadlines: list[float | None] = []

    async def read(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.batches.append(keys)
        self.deadlines.append(deadline.remaining_seconds())
        number, gate = len(self.batches), asyncio.Event()
        self._gates.append(gate)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        self.began.set()
        try:
            await gate.wait()
        finally:
            self._under_way -= 1
        if self.failure is not None:
            raise self.failure
        return dict.fromkeys(keys, number)

    def let_go(self, number: int) -> None:
        self._gates[number - 1].set()

    async def until_batches(self, count: int) -> None:
        async with waiting.limit(5):
            while len(self.batches) < count:
                self.began.clear()
                await self.began.wait()


def _ask(batches: Coalescer[int, int], *keys: int) -> asyncio.Task[Mapping[int, int]]:
    return asyncio.create_task(_asked(batches, keys))


async def _asked(batches: Coalescer[int, int], keys: Sequence[int]) -> Mapping[int, int]:
    return await batches.get(keys)


async def test_what_arrives_during_a_reading_gets_the_next_one() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=1)
    first = _ask(batches, 1)
    await source.until_batches(1)

    later = [_ask(batches, 1), _ask(batches, 2, 1), _ask(batches, 3)]
    await asyncio.sleep(0)
    source.let_go(1)
    await source.until_batches(2)
    source.let_go(2)

    assert (await first)[1] == 1
    assert [set((await task).values()) for task in later] == [{2}, {2}, {2}]
    assert source.batches == [(1,), (1, 2, 3)]


async def test_requests_of_one_turn_share_a_reading() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=4)
    tasks = [_ask(batches, key) for key in range(50)]
    await source.until_batches(1)
    source.let_go(1)
    await asyncio.gather(*tasks)

    assert [sorted(keys) for keys in source.batches] == [list(range(50))]


async def test_readings_at_once_are_bounded() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=1, max_batches=3)
    tasks = [_ask(batches, key) for key in range(9)]
    for number in range(1, 10):
        await source.until_batches(number)
        source.let_go(number)
    await asyncio.gather(*tasks)

    assert source.most_at_once == 3
    assert source.batches == [(key,) for key in range(9)]


async def test_a_batch_holds_no_more_keys_than_it_may_unless_one_request_does() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=4, max_batches=1)
    tasks = [_ask(batches, 1, 2, 3), _ask(batches, 4), _ask(batches, 5), _ask(batches, *range(9))]
    for number in range(1, 4):
        await source.until_batches(number)
        source.let_go(number)
    await asyncio.gather(*tasks)

    assert source.batches == [(1, 2, 3, 4), (5,), tuple(range(9))]


async def test_exclusive_readings_never_share_a_key() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=4, is_exclusive=True)
    first = _ask(batches, 1, 2)
    await source.until_batches(1)

    blocked = [_ask(batches, 2, 3) for _ in range(10)]
    free = _ask(batches, 4)
    await source.until_batches(2)
    source.let_go(2)
    assert (await free)[4] == 2

    source.let_go(1)
    await source.until_batches(3)
    source.let_go(3)
    await asyncio.gather(first, *blocked)

    assert source.batches == [(1, 2), (4,), (2, 3)]


async def test_a_request_for_many_is_not_put_off_by_later_ones_for_few() -> None:
    """As misses of single people kept a batch of 500 waiting for seconds."""
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=2, is_exclusive=True)
    under_way = [_ask(batches, 1)]
    await source.until_batches(1)
    under_way.append(_ask(batches, 2))
    await source.until_batches(2)

    many = _ask(batches, *range(1, 51))
    later = []
    # Whenever one of the two batches ends, another single request for its key is there.
    for number, key in enumerate((1, 2), start=1):
        later.append(_ask(batches, key))
        await asyncio.sleep(0)
        source.let_go(number)
    await source.until_batches(3)
    source.let_go(3)
    await asyncio.gather(many, *under_way, *later)

    assert source.batches == [(1,), (2,), tuple(range(1, 51))]
    assert {many.result()[key] for key in range(1, 51)} == {3}


async def test_requests_behind_one_that_waits_go_on_when_they_have_no_key_in_common() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=2, is_exclusive=True)
    first = _ask(batches, 1)
    await source.until_batches(1)
    behind = [_ask(batches, 1, 2), _ask(batches, 2, 3)]
    free = _ask(batches, 4)
    await source.until_batches(2)
    source.let_go(2)
    assert (await free)[4] == 2

    source.let_go(1)
    await source.until_batches(3)
    source.let_go(3)
    await asyncio.gather(first, *behind)
    assert source.batches == [(1,), (4,), (1, 2, 3)]


async def test_an_unavailable_source_fails_every_request_of_the_batch_and_no_other() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=1)
    source.failure = Unavailable("UNAVAILABLE", "no answer")
    failing = [_ask(batches, 1), _ask(batches, 2)]
    await source.until_batches(1)
    following = _ask(batches, 1)
    await asyncio.sleep(0)
    source.let_go(1)
    results = await asyncio.gather(*failing, return_exceptions=True)
    source.failure = None
    await source.until_batches(2)
    source.let_go(2)

    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert (await following)[1] == 2


async def test_a_key_that_cannot_be_read_fails_only_who_asked_for_it() -> None:
    readings: list[Sequence[int]] = []

    async def read(keys: Sequence[int]) -> Mapping[int, int]:
        readings.append(keys)
        if 13 in keys:
            raise ValueError("13 cannot be read")
        return dict.fromkeys(keys, 0)

    batches = Coalescer(read, max_keys=100, max_batches=1)
    results = await asyncio.gather(
        *(_ask(batches, *keys) for keys in ((1, 2), (13, 3), (2,))), return_exceptions=True
    )

    assert results[0] == {1: 0, 2: 0}
    assert isinstance(results[1], ValueError)
    assert results[2] == {2: 0}
    assert readings == [(1, 2, 13, 3), (1, 2), (13, 3), (2,)]


async def test_cancelling_a_request_leaves_the_reading_to_the_others() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=1)
    given_up, patient = _ask(batches, 1), _ask(batches, 1)
    await source.until_batches(1)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    source.let_go(1)

    assert (await patient)[1] == 1


async def test_a_request_cancelled_while_waiting_is_not_read() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=1)
    first = _ask(batches, 1)
    await source.until_batches(1)
    given_up, patient = _ask(batches, 2), _ask(batches, 3)
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    source.let_go(1)
    await source.until_batches(2)
    source.let_go(2)
    await asyncio.gather(first, patient)

    assert source.batches == [(1,), (3,)]


async def test_a_reading_has_nobodys_deadline() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=1)
    with deadline.limit(0.5):
        task = _ask(batches, 1)
        await source.until_batches(1)
    source.let_go(1)
    await task

    assert source.deadlines == [None]


async def test_nothing_asked_for_is_nothing_read() -> None:
    source = Source()

    assert await Coalescer(source.read, max_keys=1, max_batches=1).get(()) == {}
    assert source.batches == []


@pytest.mark.parametrize("is_first_read", [False, True])
async def test_stopping_while_each_is_read_by_itself_ends_all_of_them(is_first_read: bool) -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=1)
    source.failure = ValueError("one of them cannot be read")
    tasks = [_ask(batches, key) for key in (1, 2, 3)]
    await source.until_batches(1)
    source.let_go(1)
    await source.until_batches(2)
    if is_first_read:
        source.let_go(2)
        await source.until_batches(3)
    await batches.stop()

    async with waiting.limit(5):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    ended = [asyncio.CancelledError] * 3
    assert [type(it) for it in results] == ([ValueError, *ended[1:]] if is_first_read else ended)


async def test_stopping_before_a_reading_has_begun_ends_its_callers() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=1)
    task = _ask(batches, 1)
    # The request, then the turn that makes the batch, which has not begun by then.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await batches.stop()

    async with waiting.limit(5):
        results = await asyncio.gather(task, return_exceptions=True)
    assert source.batches == []
    assert [type(result) for result in results] == [asyncio.CancelledError]


async def test_stopping_ends_waiting_requests() -> None:
    source = Source()
    batches = Coalescer(source.read, max_keys=100, max_batches=1)
    reading = _ask(batches, 1)
    await source.until_batches(1)
    waiting = _ask(batches, 2)
    await asyncio.sleep(0)
    await batches.stop()

    results = await asyncio.gather(reading, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
