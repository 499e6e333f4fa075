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
