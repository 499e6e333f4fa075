"""How long tests wait for what is to happen: longer on a machine that does other work."""

import asyncio
import os
import time


def _scale() -> float:
    """Return the factor of DIALLER_TEST_TIME_SCALE, or one that fits the machine's load now."""
    named = os.environ.get("DIALLER_TEST_TIME_SCALE")
    if named:
        return float(named)
    return min(10.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


SCALE = _scale()


def limit(seconds: float) -> asyncio.Timeout:
    """Fail the block when it takes this long, times the scale."""
    return asyncio.timeout(seconds * SCALE)


def deadline(seconds: float) -> float:
    """Return the moment of `time.monotonic` until which a test waits."""
    return time.monotonic() + seconds * SCALE
