"""Spans of a whole process reach a collector as `OTEL_EXPORTER_OTLP_*` says."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc

from tests.fakes.certificates import Authority

pytestmark = pytest.mark.integration

PROGRAM = """
from servicekit import telemetry
from servicekit.settings import ServiceSettings

telemetry.configure("queue", ServiceSettings())
with telemetry.span("work"):
    pass
telemetry.shutdown()
"""


class Received:
    """What a collector got: spans by name with their service, and each request's headers."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []

    def take(self, request: pb.ExportTraceServiceRequest, headers: dict[str, str]) -> None:
        self.headers.append(headers)
        for each in request.resource_spans:
            resource = {it.key: it.value.string_value for it in each.resource.attributes}
            self.spans += [
                (resource["service.name"], span.name)
                for scope in each.scope_spans
                for span in scope.spans
            ]


class GrpcCollector(rpc.TraceServiceServicer):
    """OTLP over gRPC."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(
        self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        self._received.take(request, metadata)
        return pb.ExportTraceServiceResponse()


@pytest.fixture
def received() -> Received:
    return Received()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def grpc_port(received: Received, authority: Authority) -> Iterator[int]:
    """The port of a collector that takes gRPC over TLS only."""
    signed = authority.sign("collector")
    credentials = grpc.ssl_server_credentials(
        [(signed.key.read_bytes(), signed.certificate.read_bytes())]
    )
    server = grpc.server(ThreadPoolExecutor(2))
    rpc.add_TraceServiceServicer_to_server(GrpcCollector(received), server)  # type: ignore[no-untyped-call]  # generated without types
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield port
    server.stop(1.0).wait()


@pytest.fixture
def http_port(received: Received) -> Iterator[int]:
    """The port of a collector that takes protobuf over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                request = pb.ExportTraceServiceRequest.FromString(body)
                received.take(request, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def run_with(**environment: str) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=True,
        timeout=60,
    )


def test_spans_come_by_grpc_over_verified_tls(
    received: Received, authority: Authority, grpc_port: int
) -> None:
    run_with(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"https://127.0.0.1:{grpc_port}",
        OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority.file),
        OTEL_EXPORTER_OTLP_HEADERS="x-api-key=abc",
        OTEL_SERVICE_NAME="another",
    )
    assert received.spans == [("another", "work")]
    assert received.headers[0]["x-api-key"] == "abc"


def test_a_collector_whose_certificate_is_not_trusted_gets_nothing(
    received: Received, grpc_port: int
) -> None:
    run_with(OTEL_EXPORTER_OTLP_ENDPOINT=f"https://127.0.0.1:{grpc_port}")
    assert received.spans == []


def test_spans_come_by_http(received: Received, http_port: int) -> None:
    run_with(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{http_port}",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_HEADERS="x-api-key=abc",
    )
    assert received.spans == [("queue", "work")]
    assert received.headers[0]["x-api-key"] == "abc"


def test_a_sampler_that_takes_none_sends_nothing_that_went_well(
    received: Received, http_port: int
) -> None:
    run_with(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{http_port}",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_TRACES_SAMPLER="always_off",
    )
    assert received.spans == []
