"""The moment by which the current request must be answered."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from servicekit.errors import DeadlineExceeded

_current: ContextVar[float | None] = ContextVar("deadline", default=None)


def remaining_seconds() -> float | None:
    """Return the seconds left for the current request, never below 0; None means no deadline."""
    moment = _current.get()
    return None if moment is None else max(0.0, moment - time.monotonic())


def require(seconds: float) -> None:
    """Raise DeadlineExceeded (DEADLINE_TOO_SHORT) unless at least `seconds` are left."""
    moment = _current.get()
    if moment is not None and moment - time.monotonic() < seconds:
        raise DeadlineExceeded("DEADLINE_TOO_SHORT", "not enough time left to do the work")


def start(seconds: float) -> None:
    """Give the running task and the tasks it creates a deadline `seconds` from now."""
    _current.set(time.monotonic() + seconds)


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Limit the time left to `seconds` within the block, or to the present deadline if earlier.

    Calls made through `servicekit.client` obey it; it does not interrupt other work.
    """
    moment = time.monotonic() + seconds
    outer = _current.get()
    token = _current.set(moment if outer is None else min(outer, moment))
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def detached() -> Iterator[None]:
    """Remove the deadline within the block, for work that outlives its request.

    A task has the deadline of the place where it is created, not where it is awaited.
    """
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
