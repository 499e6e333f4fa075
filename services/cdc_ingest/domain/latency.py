"""Percentiles of the latest latencies."""

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Over `count` measurements; zeros when there are none."""

    count: int
    p50_seconds: float
    p99_seconds: float


class LatestLatencies:
    """Remembers the latest `size` measurements."""

    def __init__(self, size: int = 1000) -> None:
        self._seconds: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Count one; clocks that disagree may make it negative, which counts as 0."""
        self._seconds.append(max(0.0, seconds))

    def summary(self) -> LatencySummary:
        """Return the nearest-rank percentiles."""
        ranked = sorted(self._seconds)
        if not ranked:
            return LatencySummary(0, 0.0, 0.0)
        return LatencySummary(len(ranked), _percentile(ranked, 0.5), _percentile(ranked, 0.99))


def _percentile(ranked: list[float], share: float) -> float:
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]
