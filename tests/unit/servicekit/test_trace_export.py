"""OpenTelemetry's own variables: whether, by which exporter and how much is sent."""

import os

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

from servicekit import telemetry, trace_export

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
FOR_TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def set_all(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        ENDPOINT | {"OTEL_SDK_DISABLED": "true"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_sent_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    set_all(monkeypatch, environment)
    assert trace_export.exporter() is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (ENDPOINT, GrpcExporter),
        (FOR_TRACES, GrpcExporter),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, GrpcExporter),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, HttpExporter),
        (
            ENDPOINT
            | {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            HttpExporter,
        ),
    ],
)
def test_the_protocol_chooses_the_exporter(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: type
) -> None:
    set_all(monkeypatch, environment)
    made = trace_export.exporter()
    assert made is not None
    made.shutdown()
    assert type(made) is expected


def test_another_exporter_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, ENDPOINT | {"OTEL_TRACES_EXPORTER": "zipkin"})
    with pytest.raises(ValueError, match=r"^OTEL_TRACES_EXPORTER must be otlp or none$"):
        trace_export.exporter()


@pytest.mark.parametrize(
    ("environment", "ours", "theirs"),
    [
        ({}, True, True),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, False, True),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, False, False),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
            False,
            True,
        ),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
            False,
            False,
        ),
    ],
)
def test_the_sampler_decides_of_our_traces_and_of_sampled_ones(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, ours: bool, theirs: bool
) -> None:
    set_all(monkeypatch, environment)
    tracing = telemetry._Tracing()
    tracing.sampler = trace_export.sampler()
    assert tracing.is_sampled(7, "work", None) is ours
    assert tracing.is_sampled(7, "work", f"00-{7:032x}-{8:016x}-01") is theirs


def test_a_trace_that_its_sender_does_not_sample_is_sampled_where_the_sampler_asks_no_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsampled = f"00-{7:032x}-{8:016x}-00"
    tracing = telemetry._Tracing()
    tracing.sampler = trace_export.sampler()
    assert not tracing.is_sampled(7, "work", unsampled)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    tracing.sampler = trace_export.sampler()
    assert tracing.is_sampled(7, "work", unsampled)


def test_a_resource_is_ours_until_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert trace_export.resource("queue").attributes["service.name"] == "queue"
    set_all(
        monkeypatch,
        {
            "OTEL_SERVICE_NAME": "dialler-queue",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=staging",
        },
    )
    attributes = trace_export.resource("queue").attributes
    assert attributes["service.name"] == "dialler-queue"
    assert attributes["service.namespace"] == "dialler"
    assert attributes["deployment.environment.name"] == "staging"
