"""Two counters derived from a histogram."""

import pytest
from prometheus_client import CollectorRegistry, Histogram

from servicekit.slo import FAULTS, Slo


def test_what_is_late_or_failed_is_missed() -> None:
    registry = CollectorRegistry()
    seconds = Histogram(
        "served", "", ("method", "code"), buckets=(0.1, 0.5, 1.0), registry=registry
    )
    Slo(
        "answered",
        seconds,
        0.5,
        concerns=lambda labels: labels["method"] == "/Claim",
        fails=lambda labels: labels["code"] in FAULTS,
        registry=registry,
    )
    for method, code, took in (
        ("/Claim", "OK", 0.05),
        ("/Claim", "OK", 0.5),
        ("/Claim", "OK", 0.6),
        ("/Claim", "OK", 7.0),
        ("/Claim", "NOT_FOUND", 0.01),
        ("/Claim", "UNAVAILABLE", 0.01),
        ("/Other", "OK", 7.0),
    ):
        seconds.labels(method, code).observe(took)

    assert registry.get_sample_value("answered_promised_total") == 6
    assert registry.get_sample_value("answered_missed_total") == 3


def test_nothing_observed_is_nothing_missed() -> None:
    registry = CollectorRegistry()
    Slo("visible", Histogram("seen", "", buckets=(3.0,), registry=registry), 3.0, registry=registry)
    assert registry.get_sample_value("visible_promised_total") == 0
    assert registry.get_sample_value("visible_missed_total") == 0


def test_a_bound_that_is_no_bucket_is_refused() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("seen", "", buckets=(1.0, 5.0), registry=registry)
    with pytest.raises(ValueError, match="bucket"):
        Slo("visible", histogram, 3.0, registry=registry)
