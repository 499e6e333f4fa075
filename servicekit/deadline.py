"""The moment by which the current request must be answered."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any

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


class Timeout:
    """Gives the running task a deadline, at which it is cancelled within the block.

    The block then raises DeadlineExceeded. All tasks have the same time, so they end in the order
    in which they begin, and one timer serves them: `asyncio.timeout` makes one for each, which
    costs more than all else around a call. A task may be in one block at a time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[asyncio.Task[Any], tuple[float, Token[float | None]]] = {}
        self._late: dict[asyncio.Task[Any], Token[float | None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        moment = time.monotonic() + self._seconds
        self._running[task] = moment, _current.set(moment)
        if self._timer is None:
            self._timer = task.get_loop().call_later(self._seconds, self._cancel_late)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        running = self._running.pop(task, None)
        if running is not None:
            _current.reset(running[1])
            return
        _current.reset(self._late.pop(task))
        # As in asyncio.timeout: a cancellation for another reason passes on.
        if not task.uncancel() and kind is asyncio.CancelledError:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed")

    def _cancel_late(self) -> None:
        self._timer = None
        now = time.monotonic()
        late = []
        for task, (moment, token) in self._running.items():
            if moment > now:
                self._timer = task.get_loop().call_later(moment - now, self._cancel_late)
                break
            late.append((task, token))
        for task, token in late:
            del self._running[task]
            self._late[task] = token
            task.cancel()


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
