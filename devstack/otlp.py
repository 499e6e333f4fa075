"""An OTLP receiver for this machine: what a collector is in production.

It keeps spans in memory and, when given a folder, writes them to a file that another process can
read. Both ends speak OpenTelemetry's own protocol, so that what tests see is what any
collector would get.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from devstack.processes import free_port

MOST_SPANS = 200_000
LARGEST_FILE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class SpanSeen:
    """A span as it came over the wire; ids are hex, times nanoseconds since 1970."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    is_error: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    links: list[tuple[str, str]] = field(default_factory=list)

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e6


class OtlpReceiver:
    """Takes traces by gRPC on a loopback port, from start to stop."""

    def __init__(
        self, file: Path | None = None, *, port: int | None = None, keeps: bool = True
    ) -> None:
        self.spans: list[SpanSeen] = []
        # As they came, for tests that look for what must not be in them.
        self.raw: list[bytes] = []
        self._keeps_raw = keeps and file is None
        self._file = SpanFile(file) if file is not None else None
        self._changed = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(4, "otlp"))
        add = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(_Traces(self), self._server)  # type: ignore[no-untyped-call]  # generated without types
        self.port = port or free_port()
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(1.0).wait()

    def environment(self, ratio: float) -> dict[str, str]:
        """Return the variables that make every service of a stack send here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(ratio),
            # People who look at a trace should not wait five seconds for it.
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def of_trace(self, trace_id: str) -> list[SpanSeen]:
        """Return what has come of a trace."""
        with self._changed:
            return [span for span in self.spans if span.trace_id == trace_id]

    def take_spans(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """Keep what a service has sent."""
        if self._file is None and not self._keeps_raw:
            return
        seen = list(_read(request))
        with self._changed:
            if self._file is not None:
                self._file.write(seen)
            else:
                self.raw.append(request.SerializeToString())
                self.spans.extend(seen)
                del self.spans[:-MOST_SPANS]
            self._changed.notify_all()


class SpanFile:
    """Spans as lines of JSON, the latest; the older half goes when it has grown large."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._older = path.with_suffix(".older.jsonl")

    def write(self, spans: Iterable[SpanSeen]) -> None:
        """Append them."""
        if self._path.exists() and self._path.stat().st_size > LARGEST_FILE_BYTES:
            self._path.replace(self._older)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(span)) + "\n" for span in spans)

    def of_trace(self, trace_id: str) -> list[SpanSeen]:
        """Return what has been written of a trace."""
        found = []
        for path in (self._older, self._path):
            if path.exists():
                with path.open(encoding="utf-8") as lines:
                    found += [_parsed(line) for line in lines if trace_id in line]
        # A span of another trace may link to this one.
        return [span for span in found if span.trace_id == trace_id]


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self._receiver.take_spans(request)
        return trace_service_pb2.ExportTraceServiceResponse()


def _read(request: trace_service_pb2.ExportTraceServiceRequest) -> Iterator[SpanSeen]:
    for each in request.resource_spans:
        service = str(_values(each.resource.attributes).get("service.name"))
        for scope in each.scope_spans:
            for span in scope.spans:
                yield SpanSeen(
                    service=service,
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    attributes=_values(span.attributes),
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                )


def _values(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in pairs
    }


def _parsed(line: str) -> SpanSeen:
    raw = json.loads(line)
    return SpanSeen(**raw | {"links": [tuple(link) for link in raw["links"]]})


def main() -> None:
    """Take everything sent to a port and forget it, until killed."""
    with OtlpReceiver(port=int(sys.argv[1]), keeps=False):
        threading.Event().wait()


if __name__ == "__main__":
    main()
