"""Light spans, and the decision at the end of a process's part of a trace which are kept.

A span that is dropped has cost a small object and no more; OpenTelemetry's own is made of it only
when it is kept, for the SDK's processors and exporters.
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

__all__ = ["Attribute", "Journey", "Keeping", "Kind", "Span"]

Attribute = str | bool | int | float

# Held back until a trace's part ends here; a stream of hours must not grow without end.
MOST_HELD = 512
# Why a span is there although the lottery did not draw its trace: error or slow.
KEPT_FOR = "dialler.kept_for"
# How many of an unsampled part were too many to be held back.
DROPPED = "dialler.spans_dropped"

_SCOPE = InstrumentationScope("dialler")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where spans go that are kept, and above which time an unsampled part is."""

    processor: SpanProcessor
    resource: Resource
    slow_seconds: float


class Journey:
    """One process's part of a trace: its spans wait for the first one's end if not sampled.

    Afterwards the decision stands for stragglers too.
    """

    __slots__ = ("_dropped", "_held", "_is_kept", "has_failed", "is_sampled", "keeping", "root")

    def __init__(self, keeping: Keeping | None, is_sampled: bool) -> None:
        self.keeping = keeping
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
        reason = self._reason(root)
        self._is_kept = reason is not None
        held, self._held = self._held, []
        if reason is None:
            return
        root.set_attribute(KEPT_FOR, reason)
        if self._dropped:
            root.set_attribute(DROPPED, self._dropped)
        for span in (*held, root):
            self._export(span)

    def _reason(self, root: "Span") -> str | None:
        if self.keeping is None:
            return None
        if self.has_failed:
            return "error"
        is_slow = (root.end_ns - root.start_ns) / 1e9 >= self.keeping.slow_seconds
        return "slow" if is_slow and not root.may_last else None

    def _export(self, span: "Span") -> None:
        if self.keeping is not None:
            self.keeping.processor.on_end(span.readable(self.keeping.resource))


_NOWHERE = Journey(None, False)


class Span:
    """A piece of work in a trace; `end` it once."""

    __slots__ = (
        "_links", "_traceparent", "attributes", "end_ns", "error", "journey", "kind", "may_last",
        "name", "parent_id", "span_id", "start_ns", "trace_id",
    )  # fmt: skip

    def __init__(
        self,
        journey: Journey,
        name: str,
        trace_id: int,
        parent_id: int | None,
        kind: Kind,
        attributes: Mapping[str, Attribute] | None,
        start_ns: int | None,
    ) -> None:
        self.journey = journey
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
        if journey.root is None:
            journey.root = self
        self.start_ns = time.time_ns() if start_ns is None else start_ns

    @classmethod
    def nowhere(cls, traceparent: str) -> Self:
        """Return one that only passes a trace on: nothing is recorded."""
        made = cls(_NOWHERE, "", 0, None, Kind.INTERNAL, None, 0)
        made._traceparent = traceparent
        return made

    @property
    def is_recorded(self) -> bool:
        """Whether it may be kept, so that it is worth describing."""
        return self.journey is not _NOWHERE

    @property
    def here(self) -> "Span | str":
        """What a task is in while this is its span."""
        return self if self.journey is not _NOWHERE else self.traceparent

    @property
    def traceparent(self) -> str:
        """The W3C traceparent that makes others its children."""
        if self._traceparent is None:
            flags = "01" if self.journey.is_sampled else "00"
            self._traceparent = f"00-{self.trace_id:032x}-{self.span_id:016x}-{flags}"
        return self._traceparent

    def set_attribute(self, name: str, value: Attribute) -> None:
        """Describe it; the value must be an id or a code, never personal data."""
        self.attributes[name] = value

    def add_link(self, traceparent: str) -> None:
        """Link it to a place in another trace."""
        if self._links is None:
            self._links = []
        self._links.append(traceparent)

    def fail(self, error_type: str, *, keeps: bool = True) -> None:
        """Mark it as failed, by a code; `keeps` unless such failures are everyday's."""
        self.error = error_type
        if keeps:
            self.journey.has_failed = True

    def end(self) -> None:
        """Take the time and hand it to what decides."""
        journey = self.journey
        if journey is _NOWHERE:
            return
        self.end_ns = time.time_ns()
        journey.ended(self)

    def readable(self, resource: Resource) -> ReadableSpan:
        """Return it as OpenTelemetry's exporters want it."""
        if self.error is not None:
            self.attributes.setdefault("error.type", self.error)
        parent = None
        if self.parent_id is not None:
            is_remote = self.journey.root is self
            parent = _context(self.trace_id, self.parent_id, is_remote=is_remote)
        return ReadableSpan(
            name=self.name,
            context=_context(self.trace_id, self.span_id),
            parent=parent,
            resource=resource,
            attributes=self.attributes,
            links=[Link(_linked(each)) for each in self._links or ()],
            kind=self.kind,
            status=Status(StatusCode.UNSET if self.error is None else StatusCode.ERROR),
            start_time=self.start_ns,
            end_time=max(self.start_ns, self.end_ns),
            instrumentation_scope=_SCOPE,
        )


def _context(trace_id: int, span_id: int, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=is_remote, trace_flags=_SAMPLED)


def _linked(traceparent: str) -> SpanContext:
    return _context(int(traceparent[3:35], 16), int(traceparent[36:52], 16), is_remote=True)
