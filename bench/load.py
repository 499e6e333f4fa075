"""Load for a time: so many in flight, rate and latencies out."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CallLoad:
    """What a stretch of load came to; latencies in seconds."""

    calls: int
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


async def drive(
    call: Callable[[int], Awaitable[object]], *, in_flight: int, seconds: float
) -> CallLoad:
    """Keep ``in_flight`` calls going for ``seconds``; ``call`` gets a running number."""
    latencies: list[float] = []
    numbers = iter(range(1_000_000_000))
    began = time.perf_counter()

    async def worker() -> None:
        while (at := time.perf_counter()) - began < seconds:
            await call(next(numbers))
            latencies.append(time.perf_counter() - at)

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return CallLoad(len(latencies), time.perf_counter() - began, latencies)


async def pace(
    call: Callable[[int], Awaitable[object]], *, per_second: float, seconds: float
) -> CallLoad:
    """Begin a call every 1 / ``per_second``, whether those before it have ended or not."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def one(number: int) -> None:
        at = time.perf_counter()
        await call(number)
        latencies.append(time.perf_counter() - at)

    async with asyncio.TaskGroup() as calls:
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            calls.create_task(one(number))
    return CallLoad(len(latencies), time.perf_counter() - began, latencies)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
