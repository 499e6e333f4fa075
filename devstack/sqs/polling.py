"""Wakes the requests that wait for a message."""

import asyncio
from collections import deque


class Doorbell:
    """Each ring wakes at most one waiter; without a waiter it has no effect."""

    def __init__(self) -> None:
        self._waiters: deque[asyncio.Future[None]] = deque()

    def ring(self) -> None:
        """Wake the waiter that has waited longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def ring_all(self) -> None:
        """Wake every waiter."""
        for _ in range(len(self._waiters)):
            self.ring()

    async def wait(self, seconds: float) -> None:
        """Return at the next ring for this waiter or after that many seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            self._leave(waiter)
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.ring()
            self._leave(waiter)
            raise

    def _leave(self, waiter: "asyncio.Future[None]") -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
