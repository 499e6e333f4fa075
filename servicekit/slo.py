"""SLOs about time as two counters each, for systems that read no histograms, such as CloudWatch."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

# Codes of failures of the server, an overload among them.
FAULTS = frozenset(
    {
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "RESOURCE_EXHAUSTED",
    }
)

Labels = Mapping[str, str]


class Slo(Collector):
    """Counts the observations of a histogram, and those that took too long or failed.

    `seconds` is the bound of one of its buckets, else ValueError is raised. The counters are
    derived when metrics are read: observing costs nothing more.
    """

    def __init__(
        self,
        name: str,
        histogram: Histogram,
        seconds: float,
        *,
        concerns: Callable[[Labels], bool] = lambda _: True,
        fails: Callable[[Labels], bool] = lambda _: False,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        # Anything else would count everything as missed.
        if seconds not in histogram._upper_bounds:
            raise ValueError(f"{seconds} is the bound of no bucket")
        self._name = name
        self._histogram = histogram
        self._bound = str(float(seconds))
        self._concerns = concerns
        self._fails = fails
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return the names without asking for values."""
        return self._families(0.0, 0.0)

    def collect(self) -> Iterable[Metric]:
        """Return both counters."""
        all_of_them = kept = 0.0
        for family in self._histogram.collect():
            for sample in family.samples:
                if not self._concerns(sample.labels):
                    continue
                if sample.name.endswith("_count"):
                    all_of_them += sample.value
                elif sample.labels.get("le") == self._bound and not self._fails(sample.labels):
                    kept += sample.value
        return self._families(all_of_them, all_of_them - kept)

    def _families(self, all_of_them: float, missed: float) -> list[Metric]:
        within = f"within {self._bound} s"
        return [
            CounterMetricFamily(
                f"{self._name}_promised", f"How many were promised {within}.", value=all_of_them
            ),
            CounterMetricFamily(
                f"{self._name}_missed", f"How many of them were not good {within}.", value=missed
            ),
        ]
