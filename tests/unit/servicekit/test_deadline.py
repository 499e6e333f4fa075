"""The current request's deadline."""

import asyncio

import pytest

from servicekit import deadline
from servicekit.errors import DeadlineExceeded


def left() -> float:
    seconds = deadline.remaining_seconds()
    assert seconds is not None
    return seconds


def test_none_outside_any_request() -> None:
    assert deadline.remaining_seconds() is None
    deadline.require(1e9)


def test_limit_shortens_and_is_undone() -> None:
    with deadline.limit(10.0):
        assert 9.0 < left() <= 10.0
        with deadline.limit(1.0):
            assert 0.5 < left() <= 1.0
        assert 9.0 < left() <= 10.0
    assert deadline.remaining_seconds() is None


def test_limit_never_lengthens() -> None:
    with deadline.limit(1.0), deadline.limit(10.0):
        assert left() <= 1.0


def test_never_negative() -> None:
    with deadline.limit(-5.0):
        assert deadline.remaining_seconds() == 0.0


def test_require_refuses_what_cannot_be_done() -> None:
    with deadline.limit(1.0):
        deadline.require(0.5)
        with pytest.raises(DeadlineExceeded):
            deadline.require(2.0)


def test_detached_has_none() -> None:
    with deadline.limit(1.0):
        with deadline.detached():
            assert deadline.remaining_seconds() is None
        assert left() <= 1.0


async def test_task_takes_the_deadline_in_force_where_it_is_made() -> None:
    async def look() -> float | None:
        return deadline.remaining_seconds()

    with deadline.limit(1.0):
        bound = asyncio.create_task(look())
        with deadline.detached():
            free = asyncio.create_task(look())
    assert await bound is not None
    assert await free is None


async def test_start_is_for_one_task_only() -> None:
    async def request(seconds: float) -> float:
        deadline.start(seconds)
        await asyncio.sleep(0)
        return left()

    short, long = await asyncio.gather(request(1.0), request(100.0))
    assert short <= 1.0 < 90.0 < long
    assert deadline.remaining_seconds() is None


async def test_a_timeout_is_the_deadline_within_its_block() -> None:
    with deadline.Timeout(5.0):
        assert 4.0 < left() <= 5.0
    assert deadline.remaining_seconds() is None


async def test_a_timeout_cancels_each_task_at_its_own_moment() -> None:
    timeout, ended = deadline.Timeout(0.2), []

    async def work(name: str) -> None:
        try:
            with timeout:
                await asyncio.Event().wait()
        finally:
            assert deadline.remaining_seconds() is None
            ended.append(name)

    async with asyncio.timeout(30.0):
        first = asyncio.create_task(work("first"))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(work("second"))
        with pytest.raises(DeadlineExceeded):
            await first
        assert ended == ["first"]
        with pytest.raises(DeadlineExceeded):
            await second
        # The timer ran out with no task in a block, and begins anew.
        with pytest.raises(DeadlineExceeded):
            await work("third")


async def test_a_timeout_leaves_work_that_is_done_in_time_alone() -> None:
    timeout = deadline.Timeout(0.05)
    with timeout:
        pass
    await asyncio.sleep(0.1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timeout_passes_the_cancellation_of_another_on() -> None:
    timeout, begun = deadline.Timeout(30.0), asyncio.Event()

    async def work() -> None:
        with timeout:
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_does_not_hide_another_error() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("its own error") from None

    with pytest.raises(ValueError, match="own"), deadline.Timeout(0.05):
        await fail_when_cancelled()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
