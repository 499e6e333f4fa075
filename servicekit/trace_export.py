"""What OpenTelemetry's own variables (`OTEL_*`) say about traces, read by its SDK.

Only what decides whether and by which exporter is read here; endpoint, headers, certificates,
compression, batching, sampler and resource attributes are the SDK's.
"""

import os

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk import environment_variables as names
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from servicekit.version import VERSION

# Unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise: an absent collector holds up the end of the
# process for about this long.
EXPORT_SECONDS = 2

_EXPORTERS: dict[str, type[GrpcExporter] | type[HttpExporter]] = {
    "grpc": GrpcExporter,
    "http/protobuf": HttpExporter,
}
_ENDPOINTS = (names.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, names.OTEL_EXPORTER_OTLP_ENDPOINT)
_PROTOCOLS = (names.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, names.OTEL_EXPORTER_OTLP_PROTOCOL)
_TIMEOUTS = (names.OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, names.OTEL_EXPORTER_OTLP_TIMEOUT)


def exporter() -> SpanExporter | None:
    """Return the exporter that the environment asks for; None where no endpoint is set.

    Raises `ValueError`, with the variable and what it may be, when there is no such exporter.
    """
    wanted = os.environ.get(OTEL_TRACES_EXPORTER) or "otlp"
    if wanted not in ("otlp", "none"):
        raise ValueError(f"{OTEL_TRACES_EXPORTER} must be otlp or none")
    is_disabled = os.environ.get(names.OTEL_SDK_DISABLED, "").strip().lower() == "true"
    if wanted == "none" or is_disabled or _first(_ENDPOINTS) is None:
        return None
    made = _EXPORTERS.get(_first(_PROTOCOLS) or "grpc")
    if made is None:
        raise ValueError(f"{' and '.join(_PROTOCOLS)} must be {' or '.join(_EXPORTERS)}")
    return made(timeout=EXPORT_SECONDS if _first(_TIMEOUTS) is None else None)


def sampler() -> Sampler:
    """Return the sampler of OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG."""
    return TracerProvider(shutdown_on_exit=False).sampler


def resource(service: str) -> Resource:
    """Return what spans say of their process; OTEL_SERVICE_NAME and _RESOURCE_ATTRIBUTES win."""
    ours = Resource.create(
        {"service.name": service, "service.namespace": "dialler", "service.version": VERSION}
    )
    return ours.merge(OTELResourceDetector().detect())


def _first(variables: tuple[str, ...]) -> str | None:
    return next((value for each in variables if (value := os.environ.get(each))), None)
