"""Traces, the trace id in logs, and the metrics endpoint.

Spans are our own light ones (servicekit/spans.py): nothing of OpenTelemetry's is built until a
span is known to be kept. Where a trace begins the lottery says whether all of it is kept; of the
others each process keeps its own part when that failed or was slow. Spans carry ids and codes,
never personal data.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import prometheus_client
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter

from servicekit import logs
from servicekit.errors import DeadlineExceeded, Internal, ServiceError, Unavailable
from servicekit.metrics_push import MetricsPush
from servicekit.settings import ServiceSettings
from servicekit.spans import Attribute, Journey, Keeping, Kind, Span

# An absent collector may hold up the end of the process for about this long.
EXPORT_SECONDS = 2
SLOW_SECONDS = 1.0
# A shared piece of work links this many of those it is done for.
MOST_LINKS = 32

# Errors that nobody asked for; the others answer a question, as NOT_FOUND does.
_FAULTS = (DeadlineExceeded, Internal, Unavailable)
# Later versions may append fields; what they share with version 00 is all we read.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


@dataclass(frozen=True, slots=True)
class RemoteTrace:
    """The place in a trace that another process was at, ready to be continued."""

    traceparent: str

    @property
    def is_sampled(self) -> bool:
        """Whether all of that trace is kept."""
        return bool(int(self.traceparent[53:55], 16) & 1)


# What the running task is in: a span of ours, or, while nothing is recorded, a traceparent.
_current: ContextVar[Span | str | None] = ContextVar("span", default=None)


class _Tracing:
    """This process's sampling and export; without `keeping` nothing is ever recorded."""

    def __init__(self) -> None:
        self.ratio = 0.0
        self.keeping: Keeping | None = None
        self.push: MetricsPush | None = None

    def replace(self, ratio: float, keeping: Keeping | None) -> None:
        self.shutdown()
        self.ratio = ratio
        self.keeping = keeping

    def shutdown(self) -> None:
        keeping, self.keeping = self.keeping, None
        if keeping is not None:
            keeping.processor.shutdown()
        push, self.push = self.push, None
        if push is not None:
            push.close()


# A process has one log and one tracer; this is where the latter is kept.
_tracing = _Tracing()


def configure(service: str, settings: ServiceSettings) -> None:
    """Set up this process's logs, traces and pushed metrics; a repeat replaces the first."""
    logs.configure(service, settings.log_level, trace_id)
    if settings.otlp_endpoint is None:
        _tracing.replace(0.0, None)
        return
    insecure = not settings.otlp_endpoint.startswith("https://")
    exporter = OTLPSpanExporter(
        endpoint=settings.otlp_endpoint, insecure=insecure, timeout=EXPORT_SECONDS
    )
    processor = BatchSpanProcessor(exporter)
    _record(service, settings.trace_sample_ratio, processor, settings.trace_slow_seconds)
    if settings.otlp_metrics_seconds is not None:
        _tracing.push = MetricsPush(
            OTLPMetricExporter(
                endpoint=settings.otlp_endpoint, insecure=insecure, timeout=EXPORT_SECONDS
            ),
            _resource(service),
            settings.otlp_metrics_seconds,
        )


def record_to(
    service: str, ratio: float, exporter: SpanExporter, slow_seconds: float = SLOW_SECONDS
) -> None:
    """Send each span to `exporter` as soon as it is kept, instead of where it went before."""
    _record(service, ratio, SimpleSpanProcessor(exporter), slow_seconds)


def shutdown() -> None:
    """Send what is still held back and stop recording."""
    _tracing.shutdown()


def inject() -> str | None:
    """Return the W3C traceparent of where we are, to send along; None outside any trace."""
    here = _current.get()
    return here.traceparent if isinstance(here, Span) else here


def extract(traceparent: str | None) -> RemoteTrace | None:
    """Return where the sender was; None if the value is absent or malformed."""
    checked = _checked(traceparent)
    return None if checked is None else RemoteTrace(checked)


def trace_id() -> str | None:
    """Return the id of the current trace in hex; None outside any trace."""
    traceparent = inject()
    return None if traceparent is None else traceparent[3:35]


@contextmanager
def span(
    name: str,
    *,
    parent: RemoteTrace | None = None,
    kind: Kind = Kind.INTERNAL,
    start_ns: int | None = None,
    attributes: Mapping[str, Attribute] | None = None,
    links: Sequence[RemoteTrace] = (),
    may_last: bool = False,
) -> Iterator[Span]:
    """Return a context that is a child of `parent`, else of the current span, else a new trace.

    An exception marks the span as failed, by its type or reason, and passes on. One that
    `may_last` is not kept for being slow. Link only what is sampled: the rest is nowhere.
    """
    made = _begin(name, parent, kind, start_ns, attributes)
    for link in links:
        made.add_link(link.traceparent)
    made.may_last = may_last
    token = _current.set(made.here)
    try:
        yield made
    except BaseException as error:
        if isinstance(error, Exception):
            fail(made, error)
        raise
    finally:
        _current.reset(token)
        made.end()


@contextmanager
def shared(
    name: str,
    parents: Iterable[str | None],
    *,
    kind: Kind = Kind.INTERNAL,
    start_ns: int | None = None,
    attributes: Mapping[str, Attribute] | None = None,
) -> Iterator[Span]:
    """Return a context for work that is done once for many, each in a trace of its own.

    It is part of the first's trace that is sampled, else of the first's, and linked to the other
    sampled ones; each of these gets a span of the same name and time that links to it.
    """
    traces = [trace for trace in map(extract, dict.fromkeys(parents)) if trace is not None]
    sampled = [trace for trace in traces if trace.is_sampled]
    parent = next(iter(sampled or traces), None)
    others = [trace for trace in sampled if trace is not parent][:MOST_LINKS]
    with span(
        name, parent=parent, kind=kind, start_ns=start_ns, attributes=attributes, links=others
    ) as made:
        try:
            yield made
        finally:
            for other in others:
                follower = _begin(name, other, kind, made.start_ns or None, attributes)
                follower.add_link(made.traceparent)
                follower.end()


def note(
    name: str,
    traceparent: str | None,
    *,
    kind: Kind,
    start_ns: int | None = None,
    attributes: Mapping[str, Attribute] | None = None,
    links: Sequence[RemoteTrace] = (),
) -> str | None:
    """Add a finished span to a sampled trace and return its traceparent.

    For what one loop does for many traces: it costs nothing for those not sampled, whose
    traceparent is returned as it came.
    """
    parent = extract(traceparent)
    if _tracing.keeping is None or parent is None or not parent.is_sampled:
        return traceparent
    made = _begin(name, parent, kind, start_ns, attributes)
    for link in links:
        made.add_link(link.traceparent)
    made.end()
    return made.traceparent


def fail(failed: Span, error: Exception) -> None:
    """Mark a span by the error's type or reason; one that a caller can expect keeps nothing."""
    if isinstance(error, ServiceError):
        failed.fail(error.reason, keeps=isinstance(error, _FAULTS))
    else:
        failed.fail(type(error).__name__)


def begin_child(name: str, kind: Kind, attributes: Mapping[str, Attribute]) -> Span | None:
    """Begin a child of the current span that is nobody's current one; None outside any trace.

    The caller ends it.
    """
    here = _current.get()
    if not isinstance(here, Span):
        return None
    return Span(here.journey, name, here.trace_id, here.span_id, kind, attributes, None)


def enter_server_call(
    traceparent: str | None, name: str, attributes: Mapping[str, Attribute], *, may_last: bool
) -> Span:
    """Make the running task part of the caller's trace; return the call's span.

    The caller ends the span. Nothing is reset: the task belongs to this one call.
    """
    made = _begin(name, extract(traceparent), Kind.SERVER, None, attributes, is_new=True)
    made.may_last = may_last
    _current.set(made.here)
    return made


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


def _begin(
    name: str,
    parent: RemoteTrace | None,
    kind: Kind,
    start_ns: int | None,
    attributes: Mapping[str, Attribute] | None,
    *,
    is_new: bool = False,
) -> Span:
    """Return a span in the trace of `parent`, else the current one's unless `is_new`, else new."""
    here = None if is_new or parent is not None else _current.get()
    if isinstance(here, Span):
        return Span(here.journey, name, here.trace_id, here.span_id, kind, attributes, start_ns)
    traceparent = parent.traceparent if parent is not None else here
    keeping = _tracing.keeping
    if keeping is None:
        return Span.nowhere(traceparent or _new_traceparent())
    if traceparent is None:
        # The lottery of sampling needs no secrecy.
        is_sampled = random.random() < _tracing.ratio  # noqa: S311
        return Span(
            Journey(keeping, is_sampled), name, _new_trace_id(), None, kind, attributes, start_ns
        )
    journey = Journey(keeping, bool(int(traceparent[53:55], 16) & 1))
    trace_number, parent_number = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    return Span(journey, name, trace_number, parent_number, kind, attributes, start_ns)


def _checked(traceparent: str | None) -> str | None:
    """Return the value as version 00 if it is well formed."""
    if traceparent is None or _TRACEPARENT.fullmatch(traceparent) is None:
        return None
    if len(traceparent) == 55 and traceparent.startswith("00"):
        return traceparent
    return None if traceparent.startswith("00") else f"00{traceparent[2:55]}"


def _new_trace_id() -> int:
    return random.getrandbits(128) or 1  # ids need no secrecy


def _new_traceparent() -> str:
    return f"00-{_new_trace_id():032x}-{random.getrandbits(64) or 1:016x}-00"


def _resource(service: str) -> Resource:
    return Resource.create({"service.name": service, "service.namespace": "dialler"})


def _record(service: str, ratio: float, processor: SpanProcessor, slow_seconds: float) -> None:
    _tracing.replace(ratio, Keeping(processor, _resource(service), slow_seconds))
