"""Counters and histograms of calls and loops: rate, errors and duration of each method."""

from collections.abc import Callable
from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from servicekit.version import VERSION

_BUCKETS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip

SERVED = Histogram(
    "dialler_grpc_server_seconds",
    "Time to answer a call, by method and status code.",
    ("method", "code"),
    buckets=_BUCKETS,
)
_CALLED = Histogram(
    "dialler_grpc_client_seconds",
    "Time a call took for the caller, retries included, by method and status code.",
    ("method", "code"),
    buckets=_BUCKETS,
)
_RETRIED = Counter("dialler_grpc_client_retries", "Attempts after the first.", ("method",))
_LOOPED = Histogram(
    "dialler_loop_run_seconds",
    "Time of one run of a periodic job, by its outcome.",
    ("loop", "outcome"),
    buckets=_BUCKETS,
)
_IN_PROGRESS = Gauge("dialler_grpc_server_in_progress", "Unary calls being answered.")
_BUILD = Gauge("dialler_build_info", "Always 1; its label is the release that runs.", ("version",))
_BUILD.labels(VERSION).set(1)


def in_progress_is(count: Callable[[], float]) -> None:
    """Read the calls in progress from `count` whenever metrics are read; the last server wins."""
    _IN_PROGRESS.set_function(count)


# Looking a child up by its labels costs more than observing it. The contracts fix the methods and
# codes, so the caches are bounded.
@lru_cache(maxsize=4096)
def served(method: str, code: str) -> Histogram:
    """Return the histogram of calls answered."""
    return SERVED.labels(method, code)


@lru_cache(maxsize=4096)
def called(method: str, code: str) -> Histogram:
    """Return the histogram of calls made."""
    return _CALLED.labels(method, code)


@lru_cache(maxsize=4096)
def retried(method: str) -> Counter:
    """Return the counter of repeated attempts."""
    return _RETRIED.labels(method)


@lru_cache(maxsize=256)
def looped(loop: str, outcome: str) -> Histogram:
    """Return the histogram of a periodic job's runs; outcome is `ok` or `error`."""
    return _LOOPED.labels(loop, outcome)
