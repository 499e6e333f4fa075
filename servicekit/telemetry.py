"""Traces, the trace id in logs, and the metrics endpoint.

Whether a trace is recorded is decided once, at its start, before anything is built: what is not
recorded costs one context variable. Spans carry ids and codes, never personal data.
"""

import random
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

import prometheus_client
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace import TraceFlags as Flags

from servicekit import logs
from servicekit.errors import ServiceError
from servicekit.settings import ServiceSettings

# An absent collector may hold up the end of the process for about this long.
EXPORT_SECONDS = 2

Attribute = str | bool | int | float

# Later versions may append fields; what they share with version 00 is all we read.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


@dataclass(frozen=True, slots=True)
class RemoteTrace:
    """The place in a trace that another process was at, ready to be continued."""

    traceparent: str


@dataclass
class _Tracing:
    """This process's tracer; without a provider nothing is ever recorded."""

    ratio: float = 0.0
    provider: TracerProvider | None = None
    tracer: trace.Tracer = trace.NoOpTracer()  # noqa: RUF009 - stateless

    def replace(self, ratio: float, provider: TracerProvider | None) -> None:
        self.shutdown()
        self.ratio = ratio
        self.provider = provider
        self.tracer = provider.get_tracer("dialler") if provider else trace.NoOpTracer()

    def shutdown(self) -> None:
        if self.provider is not None:
            self.provider.shutdown()
            self.provider = None
            self.tracer = trace.NoOpTracer()


# A process has one log and one tracer; this is where the latter is kept.
_tracing = _Tracing()


def configure(service: str, settings: ServiceSettings) -> None:
    """Set up this process's logs and traces; a repeat replaces the first."""
    logs.configure(service, settings.log_level, trace_id)
    if settings.otlp_endpoint is None:
        _tracing.replace(0.0, None)
        return
    exporter = OTLPSpanExporter(
        endpoint=settings.otlp_endpoint,
        insecure=not settings.otlp_endpoint.startswith("https://"),
        timeout=EXPORT_SECONDS,
    )
    _record(service, settings.trace_sample_ratio, BatchSpanProcessor(exporter))


def record_to(service: str, ratio: float, exporter: SpanExporter) -> None:
    """Send each span to `exporter` as soon as it ends, instead of where it went before."""
    _record(service, ratio, SimpleSpanProcessor(exporter))


def shutdown() -> None:
    """Send what is still held back and stop recording."""
    _tracing.shutdown()


def tracer() -> trace.Tracer:
    """Return the OpenTelemetry tracer; it knows nothing of our sampling, so prefer `span`."""
    return _tracing.tracer


def inject() -> str | None:
    """Return the W3C traceparent of where we are, to send along; None outside any trace."""
    return _current.get()


def extract(traceparent: str | None) -> RemoteTrace | None:
    """Return where the sender was; None if the value is absent or malformed."""
    checked = _checked(traceparent)
    return None if checked is None else RemoteTrace(checked)


def trace_id() -> str | None:
    """Return the id of the current trace in hex; None outside any trace."""
    traceparent = _current.get()
    return None if traceparent is None else traceparent[3:35]


def span(
    name: str, *, parent: RemoteTrace | None = None, **attributes: Attribute
) -> AbstractContextManager[Span]:
    """Return a context that is a child of `parent`, else of the current span, else a new trace.

    An exception marks the span as failed, by its type or reason, and passes on.
    """
    traceparent = parent.traceparent if parent else _current.get()
    if traceparent is not None and not _is_recorded(traceparent):
        return _unrecorded(traceparent) if parent else nullcontext(trace.INVALID_SPAN)
    if traceparent is None and not _begins_recorded():
        return _unrecorded(_new_traceparent())
    return _recorded(name, traceparent, attributes)


def enter_server_call(traceparent: str | None, method: str) -> Span | None:
    """Make the running task part of the caller's trace; return the call's span if recorded.

    The caller ends the span. Nothing is reset: the task belongs to this one call.
    """
    remote = _checked(traceparent)
    if remote is not None and not _is_recorded(remote):
        _current.set(remote)
        return None
    if remote is None and not _begins_recorded():
        _current.set(_new_traceparent())
        return None
    call_span = _tracing.tracer.start_span(
        method,
        context=_parent_context(remote),
        kind=SpanKind.SERVER,
        attributes={"rpc.system": "grpc", "rpc.method": method},
    )
    _current.set(_traceparent_of(call_span))
    otel_context.attach(trace.set_span_in_context(call_span))
    return call_span


def serve_metrics(settings: ServiceSettings) -> "MetricsEndpoint | None":
    """Serve this process's metrics in the background if a port is set."""
    if settings.metrics_port is None:
        return None
    return MetricsEndpoint(settings.bind_host, settings.metrics_port)


class MetricsEndpoint:
    """Prometheus's text format over HTTP, from a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._server, self._thread = prometheus_client.start_http_server(port, addr=host)
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving; returns once the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def _unrecorded(traceparent: str) -> Iterator[Span]:
    token = _current.set(traceparent)
    try:
        yield trace.INVALID_SPAN
    finally:
        _current.reset(token)


@contextmanager
def _recorded(
    name: str, traceparent: str | None, attributes: dict[str, Attribute]
) -> Iterator[Span]:
    made = _tracing.tracer.start_span(
        name, context=_parent_context(traceparent), attributes=attributes
    )
    token = _current.set(_traceparent_of(made))
    otel_token = otel_context.attach(trace.set_span_in_context(made))
    try:
        yield made
    except BaseException as error:
        made.set_status(Status(StatusCode.ERROR, _failure(error)))
        raise
    finally:
        otel_context.detach(otel_token)
        _current.reset(token)
        made.end()


def _checked(traceparent: str | None) -> str | None:
    """Return the value as version 00 if it is well formed."""
    if traceparent is None or _TRACEPARENT.fullmatch(traceparent) is None:
        return None
    if len(traceparent) == 55 and traceparent.startswith("00"):
        return traceparent
    return None if traceparent.startswith("00") else f"00{traceparent[2:55]}"


def _failure(error: BaseException) -> str:
    return error.reason if isinstance(error, ServiceError) else type(error).__name__


def _is_recorded(traceparent: str) -> bool:
    return _tracing.provider is not None and bool(int(traceparent[53:55], 16) & Flags.SAMPLED)


def _begins_recorded() -> bool:
    # The lottery of sampling needs no secrecy.
    return _tracing.provider is not None and random.random() < _tracing.ratio  # noqa: S311


def _new_traceparent() -> str:
    number = random.getrandbits(192) or 1
    return f"00-{number >> 64:032x}-{number & 0xFFFFFFFFFFFFFFFF:016x}-00"


def _traceparent_of(made: Span) -> str:
    where = made.get_span_context()
    return f"00-{where.trace_id:032x}-{where.span_id:016x}-{where.trace_flags:02x}"


def _parent_context(traceparent: str | None) -> otel_context.Context:
    if traceparent is None:
        return otel_context.Context()
    parent = SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=Flags(int(traceparent[53:55], 16)),
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), otel_context.Context())


def _record(service: str, ratio: float, processor: SpanProcessor) -> None:
    # We shut the provider down ourselves; its own exit hook could block the process.
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}), shutdown_on_exit=False
    )
    provider.add_span_processor(processor)
    _tracing.replace(ratio, provider)
