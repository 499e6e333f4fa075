"""Figures for many screens: read once for the process, sent when they change."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson

from servicekit.clock import Clock
from servicekit.lifecycle import cancelled

_log = logging.getLogger(__name__)

Reading = dict[str, Any]
AllowedQueues = frozenset[str] | None


class Screen(Protocol):
    """A receiver of figures; a later block of a name replaces an earlier one."""

    def show(self, name: str, block: bytes) -> None:
        """Take the block without waiting."""


class Board:
    """One kind of figures; `_follow` reads them while a screen follows, `current` on demand.

    `narrow` reduces a reading to what a screen limited to some queues may see.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[Reading]],
        clock: Clock,
        seconds: float,
        narrow: Callable[[Reading, AllowedQueues], Reading] | None = None,
    ) -> None:
        self._name = name
        self._read = read
        self._clock = clock
        self._seconds = seconds
        self._narrow = narrow
        self._screens: dict[Screen, AllowedQueues] = {}
        self._waiting: set[Screen] = set()
        self._reading: Reading | None = None
        self._read_at = 0.0
        self._blocks: dict[AllowedQueues, bytes] = {}
        self._lock = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    def join(self, screen: Screen, queues: AllowedQueues = None) -> None:
        """Show the figures on the screen, at once if current; a repeat shows them again."""
        self._screens[screen] = queues
        if self._reading is not None and self._is_current():
            screen.show(self._name, self._block(self._reading, queues))
        else:
            self._waiting.add(screen)
        if self._following is None or self._following.done():
            # In an empty context: the deadline of the first caller must not apply to all.
            self._following = asyncio.create_task(
                self._follow(), name=f"board {self._name}", context=contextvars.Context()
            )

    def leave(self, screen: Screen) -> None:
        """Remove the screen; one that has not joined is ignored."""
        self._screens.pop(screen, None)
        self._waiting.discard(screen)

    async def stop(self) -> None:
        """Stop reading."""
        following, self._following = self._following, None
        if following is not None:
            await cancelled(following)

    async def current(self) -> Reading:
        """Return figures no older than the board's period; reads them if necessary."""
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
        # Less than the period: a loop that wakes slightly early must not skip a reading.
        return self._clock.monotonic() - self._read_at < self._seconds * 0.9

    async def _follow(self) -> None:
        shown: Reading | None = None
        while self._screens:
            began = self._clock.monotonic()
            try:
                reading = await self.current()
                waiting, self._waiting = self._waiting, set()
                for screen in tuple(waiting if reading is shown else self._screens):
                    screen.show(self._name, self._block(reading, self._screens[screen]))
                shown = reading
            except Exception as error:
                # A failed reading must not end the loop.
                _log.error("figures_not_read", exc_info=error, extra={"board": self._name})
            await asyncio.sleep(max(0.0, began + self._seconds - self._clock.monotonic()))

    def _block(self, reading: Reading, queues: AllowedQueues) -> bytes:
        block = self._blocks.get(queues)
        if block is None:
            shown = reading if self._narrow is None else self._narrow(reading, queues)
            data = orjson.dumps(shown)
            # Without an id: only events are resumed, figures are sent whole.
            block = b"event: %b\ndata: %b\n\n" % (self._name.encode(), data)
            self._blocks[queues] = block
        return block
