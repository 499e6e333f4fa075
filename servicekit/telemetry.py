"""Traces, the trace id in logs, and the metrics endpoint.

Spans are our own light ones (servicekit/spans.py); an OpenTelemetry span is built only when it is
exported. Where a trace begins, sampling decides whether all of it is exported; of the other traces
each process exports its local trace when that failed or was slow. Spans carry ids and codes, never
personal data.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import prometheus_client
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)

from servicekit import logs, trace_export
from servicekit.errors import DeadlineExceeded, Internal, ServiceError, Unavailable
from servicekit.settings import ServiceSettings
from servicekit.spans import Attribute, Kind, LocalTrace, Span, TraceExporter

SLOW_SECONDS = 1.0
# A shared piece of work links this many of those it is done for.
MOST_LINKS = 32

# Errors that are failures; the others are answers, such as NOT_FOUND.
_FAULTS = (DeadlineExceeded, Internal, Unavailable)
# Later versions may append fields; what they share with version 00 is all we read.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


@dataclass(frozen=True, slots=True)
class RemoteTrace:
    """The span of another process that is the parent of the next one here."""

    traceparent: str

    @property
    def is_sampled(self) -> bool:
        """Whether all of that trace is exported."""
        return bool(int(self.traceparent[53:55], 16) & 1)


# The span of the running task, or its traceparent while nothing is recorded.
_current: ContextVar[Span | str | None] = ContextVar("span", default=None)


class _Tracing:
    """This process's sampling and export; without `exporter` nothing is recorded."""

    def __init__(self) -> None:
        self.sampler: Sampler = ALWAYS_OFF
        self.exporter: TraceExporter | None = None

    def replace(self, sampler: Sampler, exporter: TraceExporter | None) -> None:
        self.shutdown()
        self.sampler = sampler
        self.exporter = exporter

    def shutdown(self) -> None:
        exporter, self.exporter = self.exporter, None
        if exporter is not None:
            exporter.processor.shutdown()

    def is_sampled(self, trace_number: int, name: str, parent: str | None) -> bool:
        """Whether all of a trace is exported, which `parent`, a traceparent, may have decided."""
        if parent is not None and isinstance(self.sampler, ParentBased):
            return bool(int(parent[53:55], 16) & 1)
        decided = self.sampler.should_sample(None, trace_number, name).decision
        return decided is Decision.RECORD_AND_SAMPLE


# A process has one log and one tracer: this is the tracer.
_tracing = _Tracing()


def configure(service: str, settings: ServiceSettings) -> None:
    """Set up this process's logs, and its traces as `OTEL_*` says; a repeat replaces the first.

    Raises `ValueError` when these ask for what there is not.
    """
    logs.configure(service, settings.log_level, trace_id)
    exporter = trace_export.exporter()
    if exporter is None:
        _tracing.replace(ALWAYS_OFF, None)
        return
    processor = BatchSpanProcessor(exporter)
    _record(service, trace_export.sampler(), processor, settings.trace_slow_seconds)


def record_to(
    service: str, ratio: float, exporter: SpanExporter, slow_seconds: float = SLOW_SECONDS
) -> None:
    """Send each span to `exporter` at once, instead of to the exporter before."""
    sampler = ParentBased(TraceIdRatioBased(ratio))
    _record(service, sampler, SimpleSpanProcessor(exporter), slow_seconds)


def shutdown() -> None:
    """Send the spans that are waiting to be exported, and stop recording."""
    _tracing.shutdown()


def inject() -> str | None:
    """Return the W3C traceparent of the current span, to be sent along; None outside a trace."""
    current = _current.get()
    return current.traceparent if isinstance(current, Span) else current


def extract(traceparent: str | None) -> RemoteTrace | None:
    """Return the sender's span; None if the value is absent or malformed."""
    if traceparent is None or _TRACEPARENT.fullmatch(traceparent) is None:
        return None
    if len(traceparent) == 55 and traceparent.startswith("00"):
        return RemoteTrace(traceparent)
    # A later version is read as version 00.
    return None if traceparent.startswith("00") else RemoteTrace(f"00{traceparent[2:55]}")


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

    An exception marks the span as failed, by its type or reason, and passes on. A span that
    `may_last` is not exported for being slow. Link only sampled traces: others are not exported.
    """
    made = _begin(name, parent, kind, start_ns, attributes)
    for link in links:
        made.add_link(link.traceparent)
    made.may_last = may_last
    token = _current.set(made.current)
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
    """Return a context for one piece of work for several requests, each with a trace of its own.

    The span belongs to the first sampled trace, else to the first trace. It links to the other
    sampled traces; each of these gets a span of the same name and time that links back.
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

    For a loop that works for many traces: the traceparent of one that is not sampled is returned
    unchanged, at no cost.
    """
    parent = extract(traceparent)
    if _tracing.exporter is None or parent is None or not parent.is_sampled:
        return traceparent
    made = _begin(name, parent, kind, start_ns, attributes)
    for link in links:
        made.add_link(link.traceparent)
    made.end()
    return made.traceparent


def fail(failed: Span, error: Exception) -> None:
    """Mark a span as failed; only errors that are failures have its local trace exported."""
    if isinstance(error, ServiceError):
        failed.fail(error.reason, keeps=isinstance(error, _FAULTS))
    else:
        failed.fail(type(error).__name__)


def begin_child(name: str, kind: Kind, attributes: Mapping[str, Attribute]) -> Span | None:
    """Begin a child of the current span that does not become current; None outside a trace.

    The caller ends it.
    """
    current = _current.get()
    if not isinstance(current, Span):
        return None
    return Span(
        current.local_trace, name, current.trace_id, current.span_id, kind, attributes, None
    )


def enter_server_call(
    traceparent: str | None, name: str, attributes: Mapping[str, Attribute], *, may_last: bool
) -> Span | None:
    """Make the running task part of the caller's trace; return the call's span, if one is recorded.

    The caller ends the span. Nothing is reset: the task belongs to this one call.
    """
    if _tracing.exporter is None:
        parent = extract(traceparent)
        _current.set(_new_traceparent() if parent is None else parent.traceparent)
        return None
    made = _begin(name, extract(traceparent), Kind.SERVER, None, attributes, is_new=True)
    made.may_last = may_last
    _current.set(made.current)
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
    """Return a span in the trace of `parent`, else in the current trace, else in a new one.

    `is_new` leaves the current trace out of account.
    """
    current = None if is_new or parent is not None else _current.get()
    if isinstance(current, Span):
        return Span(
            current.local_trace, name, current.trace_id, current.span_id, kind, attributes, start_ns
        )
    traceparent = parent.traceparent if parent is not None else current
    exporter = _tracing.exporter
    if exporter is None:
        return Span.unrecorded(traceparent or _new_traceparent())
    if traceparent is None:
        trace_number, parent_number = _new_trace_id(), None
    else:
        trace_number, parent_number = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    local_trace = LocalTrace(exporter, _tracing.is_sampled(trace_number, name, traceparent))
    return Span(local_trace, name, trace_number, parent_number, kind, attributes, start_ns)


def _new_traceparent() -> str:
    # Ids need no secrecy, and neither is 0.
    both = f"{random.getrandbits(192) | 1 << 64 | 1:048x}"
    return f"00-{both[:32]}-{both[32:]}-00"


def _new_trace_id() -> int:
    return random.getrandbits(128) or 1  # ids need no secrecy


def _record(service: str, sampler: Sampler, processor: SpanProcessor, slow_seconds: float) -> None:
    exporter = TraceExporter(processor, trace_export.resource(service), slow_seconds)
    _tracing.replace(sampler, exporter)
