"""Prometheus's registry as OpenTelemetry's metrics."""

import itertools
from collections.abc import Sequence
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Gauge as PrometheusGauge
from prometheus_client import Histogram as PrometheusHistogram

from servicekit.metrics_push import MetricsPush, converted

METHOD = "/dialler.queue.v1.QueueService/ClaimNext"


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    PrometheusCounter("dialler_things", "Things.", ("kind",), registry=made).labels("a").inc(3)
    PrometheusGauge("dialler_level", "A level.", registry=made).set(1.5)
    timed = PrometheusHistogram(
        "dialler_grpc_server_seconds",
        "Time.",
        ("method", "code"),
        buckets=(0.1, 0.5),
        registry=made,
    ).labels(METHOD, "OK")
    for seconds in (0.05, 0.3, 0.3, 9.0):
        timed.observe(seconds)
    return made


def by_name() -> dict[str, Metric]:
    return {each.name: each for each in converted(registry().collect(), 1, 2)}


def test_a_counter_is_a_growing_sum() -> None:
    data = by_name()["dialler_things"].data
    assert isinstance(data, Sum)
    assert data.is_monotonic
    assert [(dict(p.attributes or {}), p.value) for p in data.data_points] == [({"kind": "a"}, 3)]


def test_a_gauge_is_a_gauge() -> None:
    data = by_name()["dialler_level"].data
    assert isinstance(data, Gauge)
    assert [point.value for point in data.data_points] == [1.5]


def test_a_histogram_has_its_own_buckets_and_the_conventions_names() -> None:
    metric = by_name()["rpc.server.call.duration"]
    assert metric.unit == "s"
    assert isinstance(metric.data, Histogram)
    (point,) = metric.data.data_points
    assert point.attributes == {"rpc.method": METHOD[1:], "rpc.response.status_code": "OK"}
    assert list(point.explicit_bounds) == [0.1, 0.5]
    assert list(point.bucket_counts) == [1, 2, 1]
    assert (point.count, round(point.sum, 2)) == (4, 9.65)


class Collecting(MetricExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[MetricsData] = []

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        self.given.append(metrics_data)
        return MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True


def test_the_last_state_is_sent_at_the_end_and_can_be_encoded() -> None:
    exporter = Collecting()
    push = MetricsPush(exporter, Resource({"service.name": "queue"}), 3600.0, registry())
    push.close()
    (given,) = exporter.given
    request = encode_metrics(given)
    sent = request.resource_metrics[0].scope_metrics[0].metrics
    assert {"dialler_things", "rpc.server.call.duration"} <= {each.name for each in sent}
    histogram = next(each for each in sent if each.name == "rpc.server.call.duration").histogram
    assert not histogram.data_points[0].HasField("min")


def test_time_stands_where_it_should() -> None:
    points = list(
        itertools.chain.from_iterable(
            cast("Sequence[Any]", each.data.data_points) for each in by_name().values()
        )
    )
    assert all(point.time_unix_nano == 2 for point in points)
