"""A call through our server and our client, over a real loopback connection."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from prometheus_client import REGISTRY

from servicekit import deadline, telemetry
from servicekit.client import MARGIN_SECONDS, connect
from servicekit.errors import (
    DeadlineExceeded,
    Exhausted,
    Internal,
    InvalidArgument,
    NotFound,
    ServiceError,
    Unavailable,
)
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings
from tests.fakes import waiting
from tests.fakes.server import serving

Handler = Callable[[bytes, Any], Any]


def registering(**handlers: Handler) -> Callable[[grpc.aio.Server], None]:
    """Register unary methods of raw bytes, and streams for async generators."""

    def register(server: grpc.aio.Server) -> None:
        made = {}
        for name, handler in handlers.items():
            is_stream = name.startswith("Stream")
            make: Any = (
                grpc.unary_stream_rpc_method_handler
                if is_stream
                else grpc.unary_unary_rpc_method_handler
            )
            made[name] = make(handler)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Bytes", made),))

    return register


async def call(channel: grpc.aio.Channel, method: str, request: bytes = b"", **options: Any) -> Any:
    stub = channel.unary_unary(f"/test.Bytes/{method}", None, None)
    return await stub(request, **options)


def stream(channel: grpc.aio.Channel, method: str, request: bytes = b"", **options: Any) -> Any:
    stub = channel.unary_stream(f"/test.Bytes/{method}", None, None)
    return stub(request, **options)


async def collect(answers: AsyncIterator[bytes], into: list[bytes]) -> None:
    async for message in answers:
        into.append(message)


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def test_bytes_pass_through_unchanged() -> None:
    async with serving(registering(Echo=echo)) as channel:
        assert await call(channel, "Echo", b"\x00\xff") == b"\x00\xff"


async def test_service_error_arrives_as_it_was_raised() -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        raise NotFound("USER_NOT_FOUND", "no such user", user_id="17")

    async with serving(registering(Fail=fail)) as channel:
        with pytest.raises(NotFound) as caught:
            await call(channel, "Fail")
    assert caught.value.reason == "USER_NOT_FOUND"
    assert caught.value.message == "no such user"
    assert caught.value.metadata == {"user_id": "17"}


async def test_unknown_exception_is_internal_without_detail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        raise ValueError("Jane Example")

    async with serving(registering(Fail=fail)) as channel:
        with pytest.raises(Internal) as caught:
            await call(channel, "Fail")
    assert "Jane" not in str(caught.value)
    assert caught.value.reason == "INTERNAL"
    logged = [record for record in caplog.records if record.getMessage() == "unexpected_error"]
    assert len(logged) == 1
    assert logged[0].exc_info is not None


async def test_stream_yields_then_raises_the_error_of_the_server() -> None:
    async def fail(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"
        raise InvalidArgument("BAD_CURSOR", "cannot go on")

    async with serving(registering(StreamFail=fail)) as channel:
        seen: list[bytes] = []
        with pytest.raises(InvalidArgument, match="BAD_CURSOR"):
            await collect(stream(channel, "StreamFail"), seen)
    assert seen == [b"1", b"2"]


async def test_stream_written_through_the_context() -> None:
    async def write(request: bytes, context: Any) -> None:
        await context.write(b"a")
        await context.write(b"b")

    async with serving(registering(StreamWrite=write)) as channel:
        assert [message async for message in stream(channel, "StreamWrite")] == [b"a", b"b"]


async def test_read_of_a_stream_raises_our_errors() -> None:
    async def fail(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"1"
        raise NotFound("GONE", "gone")

    async with serving(registering(StreamFail=fail)) as channel:
        answers = stream(channel, "StreamFail")
        assert await answers.read() == b"1"
        with pytest.raises(NotFound):
            await answers.read()


async def test_unimplemented_method_is_internal_and_names_the_upstream() -> None:
    async with serving(registering(Echo=echo), name="queue") as channel:
        with pytest.raises(Internal) as caught:
            await call(channel, "Absent")
    assert caught.value.reason == "UPSTREAM_FAILED"
    assert caught.value.metadata == {"upstream": "queue", "upstream_code": "UNIMPLEMENTED"}


async def test_a_port_without_a_listener_is_unavailable() -> None:
    server = GrpcServer(ServiceSettings(drain_seconds=0.0), "gone", registering(), ())
    await server.start()
    address = server.address
    await server.stop()
    async with connect(address, name="gone", default_timeout_seconds=2.0) as channel:
        with pytest.raises(Unavailable) as caught:
            await call(channel, "Echo")
    assert caught.value.reason == "UPSTREAM_UNAVAILABLE"


async def test_deadline_travels_and_shrinks() -> None:
    seen: list[float | None] = []

    async def look(request: bytes, context: Any) -> bytes:
        seen.append(deadline.remaining_seconds())
        return b""

    async with serving(registering(Look=look), default_timeout_seconds=5.0) as channel:
        await call(channel, "Look")
        with deadline.limit(1.0):
            await call(channel, "Look")
            await call(channel, "Look", timeout=0.5)
    plain, limited, shorter = seen
    assert plain is not None
    assert limited is not None
    assert shorter is not None
    assert 4.0 < plain < 5.1
    assert 0.6 < limited < 1.0
    assert shorter < 0.6


async def test_call_that_has_no_time_left_is_not_made() -> None:
    calls = []

    async def count(request: bytes, context: Any) -> bytes:
        calls.append(request)
        return b""

    async with serving(registering(Count=count)) as channel:
        await call(channel, "Count")
        with (
            deadline.limit(MARGIN_SECONDS * 0.9),
            pytest.raises(DeadlineExceeded, match="no time left"),
        ):
            await call(channel, "Count")
    assert len(calls) == 1


async def test_late_answer_is_deadline_exceeded_and_stops_the_work() -> None:
    cancelled = asyncio.Event()

    async def hang(request: bytes, context: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with serving(registering(Hang=hang)) as channel:
        with pytest.raises(DeadlineExceeded):
            await call(channel, "Hang", timeout=0.1)
        async with waiting.limit(5):
            await cancelled.wait()


async def test_caller_without_deadline_gets_the_default() -> None:
    async def hang(request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    settings = ServiceSettings(default_deadline_seconds=0.1, drain_seconds=0.0)
    server = GrpcServer(settings, "test", registering(Hang=hang), ())
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test.Bytes/Hang", None, None)(b"")
    await server.stop()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_stream_outlives_the_default_deadline() -> None:
    release = asyncio.Event()

    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        assert deadline.remaining_seconds() is None
        yield b"first"
        await release.wait()
        yield b"second"

    settings = ServiceSettings(default_deadline_seconds=0.05, drain_seconds=0.0)
    async with serving(registering(StreamWatch=watch), settings=settings) as channel:
        answers = stream(channel, "StreamWatch")
        assert await answers.read() == b"first"
        asyncio.get_running_loop().call_later(0.2, release.set)
        assert await answers.read() == b"second"


async def test_unavailable_is_tried_again() -> None:
    attempts = []

    async def flaky(request: bytes, context: Any) -> bytes:
        attempts.append(request)
        if len(attempts) < 3:
            raise Unavailable("DATABASE_UNAVAILABLE", "away")
        return b"done"

    async with serving(registering(Flaky=flaky)) as channel:
        assert await call(channel, "Flaky") == b"done"
    assert len(attempts) == 3


@pytest.mark.parametrize(
    "error",
    [NotFound("GONE", "gone"), Unavailable("UNAVAILABLE", "unavailable", retry_after_seconds=60.0)],
)
async def test_not_tried_again(error: ServiceError) -> None:
    attempts = []

    async def fail(request: bytes, context: Any) -> bytes:
        attempts.append(request)
        raise error

    async with serving(registering(Fail=fail)) as channel:
        with pytest.raises(type(error)) as caught:
            await call(channel, "Fail")
    assert len(attempts) == 1
    assert caught.value.retry_after_seconds == error.retry_after_seconds


async def test_retries_end_when_the_budget_is_spent() -> None:
    attempts = []

    async def fail(request: bytes, context: Any) -> bytes:
        attempts.append(request)
        raise Unavailable("UNAVAILABLE", "unavailable")

    calls = 40
    async with serving(registering(Fail=fail)) as channel:
        results = await asyncio.gather(
            *(call(channel, "Fail") for _ in range(calls)), return_exceptions=True
        )
    assert all(isinstance(result, Unavailable) for result in results)
    assert calls + 8 <= len(attempts) <= calls + 14


async def test_successful_calls_earn_retries_again() -> None:
    attempts = []

    async def fail_if_told(request: bytes, context: Any) -> bytes:
        attempts.append(request)
        if request:
            raise Unavailable("UNAVAILABLE", "unavailable")
        return b""

    async with serving(registering(Fail=fail_if_told)) as channel:
        spending = (call(channel, "Fail", b"x") for _ in range(40))
        await asyncio.gather(*spending, return_exceptions=True)
        for _ in range(40):
            await call(channel, "Fail")
        attempts.clear()
        with pytest.raises(Unavailable):
            await call(channel, "Fail", b"x")
    assert len(attempts) == 3


async def test_overload_is_refused_at_once() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def hold(request: bytes, context: Any) -> bytes:
        entered.set()
        await release.wait()
        return b""

    settings = ServiceSettings(max_concurrent_calls=1, drain_seconds=0.0)
    async with serving(registering(Hold=hold), settings=settings) as channel:
        first = asyncio.ensure_future(call(channel, "Hold"))
        await entered.wait()
        with pytest.raises(Exhausted) as caught:
            await call(channel, "Hold")
        release.set()
        await first
        assert await call(channel, "Hold") == b""
    assert caught.value.reason == "OVERLOADED"


async def test_cancelled_caller_cancels_the_work() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(request: bytes, context: Any) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with serving(registering(Hang=hang)) as channel:
        task = asyncio.ensure_future(call(channel, "Hang"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with waiting.limit(5):
            await cancelled.wait()


async def test_trace_id_is_the_same_on_both_sides() -> None:
    async def trace(request: bytes, context: Any) -> bytes:
        return (telemetry.trace_id() or "").encode()

    async with serving(registering(Trace=trace)) as channel:
        with telemetry.span("outer"):
            here = telemetry.trace_id()
            assert await call(channel, "Trace") == (here or "").encode()
        fresh = await call(channel, "Trace")
    assert re.fullmatch(rb"[0-9a-f]{32}", fresh)
    assert here is not None
    assert fresh != here.encode()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    telemetry.record_to("test", 1.0, exporter)
    yield exporter
    telemetry.shutdown()


async def test_span_of_a_failed_call_has_its_status(spans: InMemorySpanExporter) -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        raise NotFound("USER_NOT_FOUND", "no such user")

    async def fail_late(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b""
        raise NotFound("USER_NOT_FOUND", "no such user")

    async with serving(registering(Fail=fail, StreamFail=fail_late)) as channel:
        with telemetry.span("outer"):
            with pytest.raises(NotFound):
                await call(channel, "Fail")
            with pytest.raises(NotFound):
                await collect(stream(channel, "StreamFail"), [])
    # The server may end its span after the client has had its answer.
    found = {(span.name, span.kind): span for span in spans.get_finished_spans()}
    unary = found["test.Bytes/Fail", SpanKind.SERVER]
    calling = found["test.Bytes/Fail", SpanKind.CLIENT]
    streamed = found["test.Bytes/StreamFail", SpanKind.SERVER]
    outer = found["outer", SpanKind.INTERNAL]
    assert len(found) == 4
    for span in (unary, streamed):
        assert span.attributes is not None
        assert span.attributes["rpc.response.status_code"] == "NOT_FOUND"
        # That is an answer; only the one who asked can tell whether it is a failure.
        assert span.status.status_code is StatusCode.UNSET
    assert calling.attributes is not None
    assert calling.attributes["error.type"] == "USER_NOT_FOUND"
    assert parent_of(unary) == calling.context
    assert parent_of(calling) == parent_of(streamed) == outer.context


def parent_of(span: ReadableSpan) -> SpanContext | None:
    """The parent as its own span has it, which is not remote."""
    parent = span.parent
    if parent is None:
        return None
    return SpanContext(parent.trace_id, parent.span_id, False, parent.trace_flags)


async def test_calls_are_counted_by_method_and_code() -> None:
    method = f"Counted{uuid.uuid4().hex}"

    async def sometimes(request: bytes, context: Any) -> bytes:
        if request:
            raise NotFound("USER_NOT_FOUND", "no such user")
        return b""

    async with serving(registering(**{method: sometimes})) as channel:
        await call(channel, method)
        with pytest.raises(NotFound):
            await call(channel, method, b"x")
    for side in ("server", "client"):
        for code in ("OK", "NOT_FOUND"):
            labels = {"method": f"/test.Bytes/{method}", "code": code}
            count = REGISTRY.get_sample_value(f"dialler_grpc_{side}_seconds_count", labels)
            assert count == 1.0
