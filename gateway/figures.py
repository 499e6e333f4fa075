"""Figures for many screens: read once for the whole process, sent when they change."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson

from servicekit.clock import Clock

_log = logging.getLogger(__name__)

Reading = dict[str, Any]
Queues = frozenset[str] | None


class Screen(Protocol):
    """Whoever shows figures; a later block of the same name takes the place of an earlier one."""

    def show(self, name: str, block: bytes) -> None:
        """Take the block; must not wait."""


def _everything(reading: Reading, _queues: Queues) -> Reading:
    return reading


class Board:
    """One kind of figures. Nothing is read while no screen follows it.

    `narrow` cuts a reading down to what a screen limited to some queues may see.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[Reading]],
        clock: Clock,
        seconds: float,
        narrow: Callable[[Reading, Queues], Reading] = _everything,
    ) -> None:
        self._name = name
        self._read = read
        self._clock = clock
        self._seconds = seconds
        self._narrow = narrow
        self._screens: dict[Screen, Queues] = {}
        self._waiting: set[Screen] = set()
        self._reading: Reading | None = None
        self._read_at = 0.0
        self._blocks: dict[Queues, bytes] = {}
        self._lock = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    def join(self, screen: Screen, queues: Queues = None) -> None:
        """Show the figures on the screen, at once if they are known; again shows them again."""
        self._screens[screen] = queues
        if self._reading is not None and self._is_current():
            screen.show(self._name, self._block(self._reading, queues))
        else:
            self._waiting.add(screen)
        if self._following is None or self._following.done():
            # Not in the context of whoever came first, whose deadline would hold for all.
            self._following = asyncio.create_task(
                self._follow(), name=f"board {self._name}", context=contextvars.Context()
            )

    def leave(self, screen: Screen) -> None:
        """Forget the screen; one that is not there is no matter."""
        self._screens.pop(screen, None)
        self._waiting.discard(screen)

    async def stop(self) -> None:
        """Read no more."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.wait((following,))

    async def current(self) -> Reading:
        """Return figures no older than the board's period, reading them if need be."""
        async with self._lock:
            if self._reading is None or not self._is_current():
                began = self._clock.monotonic()
                reading = await self._read()
                self._read_at = began
                if reading != self._reading:
                    self._reading = reading
                    self._blocks.clear()
            return self._reading

    def _is_current(self) -> bool:
        # Less than the period, or a loop that wakes a moment early would skip a turn.
        return self._clock.monotonic() - self._read_at < self._seconds * 0.9

    async def _follow(self) -> None:
        shown: Reading | None = None
        while self._screens:
            began = self._clock.monotonic()
            try:
                reading = await self.current()
                self._show(reading, is_new=reading is not shown)
                shown = reading
            except Exception as error:
                # One reading that fails must not end all that would follow.
                _log.error("figures_not_read", exc_info=error, extra={"board": self._name})
            await asyncio.sleep(max(0.0, began + self._seconds - self._clock.monotonic()))

    def _show(self, reading: Reading, *, is_new: bool) -> None:
        waiting, self._waiting = self._waiting, set()
        for screen in tuple(self._screens if is_new else waiting):
            screen.show(self._name, self._block(reading, self._screens[screen]))

    def _block(self, reading: Reading, queues: Queues) -> bytes:
        block = self._blocks.get(queues)
        if block is None:
            data = orjson.dumps(self._narrow(reading, queues))
            # Without an id: a resume goes by events, and figures are sent whole.
            block = b"event: %b\ndata: %b\n\n" % (self._name.encode(), data)
            self._blocks[queues] = block
        return block
