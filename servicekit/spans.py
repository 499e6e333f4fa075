"""Light spans, and the decision at the end of a local trace which of them are exported.

A local trace is the part of a trace that one process records. A span that is dropped costs one
small object; it is converted to an OpenTelemetry span only when it is exported.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace import SpanKind as Kind

__all__ = ["Attribute", "Kind", "LocalTrace", "Span", "TraceExporter"]

Attribute = str | bool | int | float

# Spans held back until the local trace ends; a stream that is open for hours must stay bounded.
MOST_HELD = 512
# Why the spans of an unsampled trace are exported: "error" or "slow".
KEPT_FOR = "dialler.kept_for"
# How many spans of an unsampled local trace exceeded what is held back.
DROPPED = "dialler.spans_dropped"

_SCOPE = InstrumentationScope("dialler")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


@dataclass(frozen=True, slots=True)
class TraceExporter:
    """Where spans are exported to, and how long an unsampled local trace takes to be exported."""

    processor: SpanProcessor
    resource: Resource
    slow_seconds: float


class LocalTrace:
    """The spans of a trace in this process; unless it is sampled they wait for the first one's end.

    The decision then holds for spans that end later too.
    """

    __slots__ = ("_dropped", "_held", "_is_kept", "exporter", "has_failed", "is_sampled", "root")

    def __init__(self, exporter: TraceExporter | None, is_sampled: bool) -> None:
        self.exporter = exporter
        self.is_sampled = is_sampled
        self.root: Span | None = None
        self.has_failed = False
        self._is_kept: bool | None = True if is_sampled else None
        self._held: list[Span] = []
        self._dropped = 0

    def ended(self, span: "Span") -> None:
        """Export the span, drop it, or hold it back until the first one ends."""
        if self._is_kept is not None:
            if self._is_kept:
                self._export(span)
        elif span is self.root:
            self._decide(span)
        elif len(self._held) < MOST_HELD:
            self._held.append(span)
        else:
            self._dropped += 1

    def _decide(self, root: "Span") -> None:
        reason = None
        if self.exporter is not None:
            is_slow = (root.end_ns - root.start_ns) / 1e9 >= self.exporter.slow_seconds
            if self.has_failed:
                reason = "error"
            elif is_slow and not root.may_last:
                reason = "slow"
        self._is_kept = reason is not None
        held, self._held = self._held, []
        if reason is None:
            return
        root.set_attribute(KEPT_FOR, reason)
        if self._dropped:
            root.set_attribute(DROPPED, self._dropped)
        for span in (*held, root):
            self._export(span)

    def _export(self, span: "Span") -> None:
        if self.exporter is not None:
            self.exporter.processor.on_end(span.readable(self.exporter.resource))


_UNRECORDED = LocalTrace(None, False)


class Span:
    """A piece of work in a trace; `end` it once."""

    __slots__ = (
        "_links",
        "_traceparent",
        "attributes",
        "end_ns",
        "error",
        "kind",
        "local_trace",
        "may_last",
        "name",
        "parent_id",
        "span_id",
        "start_ns",
        "trace_id",
    )  # fmt: skip

    def __init__(
        self,
        local_trace: LocalTrace,
        name: str,
        trace_id: int,
        parent_id: int | None,
        kind: Kind,
        attributes: Mapping[str, Attribute] | None,
        start_ns: int | None,
    ) -> None:
        self.local_trace = local_trace
        self.name = name
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.kind = kind
        self.attributes: dict[str, Attribute] = dict(attributes) if attributes else {}
        # An id needs no secrecy.
        self.span_id = random.getrandbits(64) or 1
        self.end_ns = 0
        self.error: str | None = None
        self.may_last = False
        self._links: list[str] | None = None
        self._traceparent: str | None = None
        if local_trace.root is None:
            local_trace.root = self
        self.start_ns = time.time_ns() if start_ns is None else start_ns

    @classmethod
    def unrecorded(cls, traceparent: str) -> Self:
        """Return a span that passes a trace on and is never exported."""
        made = cls(_UNRECORDED, "", 0, None, Kind.INTERNAL, None, 0)
        made._traceparent = traceparent
        return made

    @property
    def current(self) -> "Span | str":
        """The value of the task's context variable while this is its span."""
        return self if self.local_trace is not _UNRECORDED else self.traceparent

    @property
    def traceparent(self) -> str:
        """The W3C traceparent for children of this span."""
        if self._traceparent is None:
            flags = "01" if self.local_trace.is_sampled else "00"
            self._traceparent = f"00-{self.trace_id:032x}-{self.span_id:016x}-{flags}"
        return self._traceparent

    def set_attribute(self, name: str, value: Attribute) -> None:
        """Set an attribute; the value must be an id or a code, never personal data."""
        self.attributes[name] = value

    def add_link(self, traceparent: str) -> None:
        """Link it to a span of another trace."""
        if self._links is None:
            self._links = []
        self._links.append(traceparent)

    def fail(self, error_type: str, *, keeps: bool = True) -> None:
        """Mark it as failed, by a code; `keeps`: the failure has the local trace exported."""
        self.error = error_type
        if keeps:
            self.local_trace.has_failed = True

    def end(self) -> None:
        """Set the end time and hand the span to its local trace."""
        local_trace = self.local_trace
        if local_trace is _UNRECORDED:
            return
        self.end_ns = time.time_ns()
        local_trace.ended(self)

    def readable(self, resource: Resource) -> ReadableSpan:
        """Return it as an OpenTelemetry span."""
        if self.error is not None:
            self.attributes.setdefault("error.type", self.error)
        parent = None
        if self.parent_id is not None:
            is_remote = self.local_trace.root is self
            parent = _context(self.trace_id, self.parent_id, is_remote=is_remote)
        return ReadableSpan(
            name=self.name,
            context=_context(self.trace_id, self.span_id),
            parent=parent,
            resource=resource,
            attributes=self.attributes,
            links=[
                Link(_context(int(each[3:35], 16), int(each[36:52], 16), is_remote=True))
                for each in self._links or ()
            ],
            kind=self.kind,
            status=Status(StatusCode.UNSET if self.error is None else StatusCode.ERROR),
            start_time=self.start_ns,
            end_time=max(self.start_ns, self.end_ns),
            instrumentation_scope=_SCOPE,
        )


def _context(trace_id: int, span_id: int, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=is_remote, trace_flags=_SAMPLED)
