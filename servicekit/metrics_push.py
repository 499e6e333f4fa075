"""Sends the process's Prometheus metrics by OTLP as well.

The histograms that OpenTelemetry has names for are sent under those, so that a backend's ready
views of RPC and HTTP show them; all other metrics keep their names.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeAlias, cast

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

# Our name: OpenTelemetry's name, and our labels: its attributes.
CONVENTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "dialler_grpc_server_seconds": (
        "rpc.server.call.duration",
        {"method": "rpc.method", "code": "rpc.response.status_code"},
    ),
    "dialler_grpc_client_seconds": (
        "rpc.client.call.duration",
        {"method": "rpc.method", "code": "rpc.response.status_code"},
    ),
    "dialler_http_server_seconds": (
        "http.server.request.duration",
        {
            "route": "http.route",
            "method": "http.request.method",
            "status": "http.response.status_code",
        },
    ),
}

_SCOPE = InstrumentationScope("dialler")
_CUMULATIVE = AggregationTemporality.CUMULATIVE
# The exporter leaves out None, which the type of the field does not allow.
_UNKNOWN = cast(float, None)
_log = logging.getLogger(__name__)

Labels: TypeAlias = tuple[tuple[str, str], ...]


class MetricsPush:
    """Exports the registry every `seconds`, from a thread of its own, and once at the end."""

    def __init__(
        self,
        exporter: MetricExporter,
        resource: Resource,
        seconds: float,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._exporter = exporter
        self._resource = resource
        self._seconds = seconds
        self._registry = registry
        self._began_ns = time.time_ns()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics push", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send once more and stop."""
        self._closing.set()
        self._thread.join(timeout=5)
        self._exporter.shutdown()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._closing.wait(self._seconds)
            try:
                metrics = converted(self._registry.collect(), self._began_ns, time.time_ns())
                scope = ScopeMetrics(_SCOPE, list(metrics), "")
                resource = ResourceMetrics(self._resource, [scope], "")
                self._exporter.export(MetricsData([resource]))
            except Exception:
                _log.exception("metrics_not_sent")


def converted(families: Iterable[Family], began_ns: int, now_ns: int) -> Iterator[Metric]:
    """Return the families of a registry as OpenTelemetry's metrics."""
    for family in families:
        name, renamed = CONVENTIONS.get(family.name, (family.name, {}))
        unit = "s" if family.name.endswith("_seconds") else ""
        if family.type == "histogram":
            points = list(_histograms(family.samples, renamed, began_ns, now_ns))
            yield Metric(name, family.documentation, unit, Histogram(points, _CUMULATIVE))
        elif family.type == "counter":
            numbers = _numbers(family.samples, "_total", began_ns, now_ns)
            total = Sum(numbers, _CUMULATIVE, is_monotonic=True)
            yield Metric(name, family.documentation, unit, total)
        elif family.type == "gauge":
            level = Gauge(_numbers(family.samples, "", None, now_ns))
            yield Metric(name, family.documentation, unit, level)


def _numbers(
    samples: Iterable[Sample], suffix: str, began_ns: int | None, now_ns: int
) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(dict(each.labels), began_ns or 0, now_ns, each.value)
        for each in samples
        if each.name.endswith(suffix) and not each.name.endswith("_created")
    ]


def _histograms(
    samples: Iterable[Sample], renamed: dict[str, str], began_ns: int, now_ns: int
) -> Iterator[HistogramDataPoint]:
    bounds: defaultdict[Labels, list[tuple[float, float]]] = defaultdict(list)
    sums: dict[Labels, float] = {}
    for each in samples:
        labels = {name: value for name, value in each.labels.items() if name != "le"}
        key = tuple(sorted(labels.items()))
        if each.name.endswith("_bucket"):
            bounds[key].append((float(each.labels["le"]), each.value))
        elif each.name.endswith("_sum"):
            sums[key] = each.value
    for key, cumulative in bounds.items():
        cumulative.sort()
        counts = [count for _, count in cumulative]
        each_count = [int(b - a) for a, b in zip([0.0, *counts], counts, strict=False)]
        yield HistogramDataPoint(
            attributes={
                # A method is written as package.Service/Method, a route as it is.
                renamed.get(name, name): value[1:] if value.startswith("/dialler.") else value
                for name, value in key
            },
            start_time_unix_nano=began_ns,
            time_unix_nano=now_ns,
            count=int(counts[-1]),
            sum=sums.get(key, 0.0),
            bucket_counts=each_count,
            explicit_bounds=[bound for bound, _ in cumulative[:-1]],
            min=_UNKNOWN,
            max=_UNKNOWN,
        )
