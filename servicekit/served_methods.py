"""The interceptor of our gRPC servers: trace and metrics, errors, deadline, admission.

It is one interceptor, since each further one costs every call a coroutine. The order is in `_unary`
and `_stream`: the trace is outermost, so that it sees the status with which an error ends the call.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from prometheus_client import Histogram

from servicekit import deadline, metrics, telemetry
from servicekit.error_codec import to_grpc
from servicekit.errors import DeadlineExceeded, Exhausted, Internal, ServiceError, Unavailable
from servicekit.spans import Span

# Codes that are failures of the server, by OpenTelemetry's conventions for gRPC; whether the others
# are failures depends on the caller.
_FAILURES = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

# A call with less time than this is refused.
LEAST_USEFUL_SECONDS = 0.002

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
# Generic in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Any]


class Admission:
    """Lets a bounded number of unary calls be in progress and refuses the rest at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted = 0
        metrics.in_progress_is(lambda: self._admitted)

    def __enter__(self) -> None:
        if self._admitted >= self._limit:
            raise Exhausted("OVERLOADED", "too many calls in progress", retry_after_seconds=1.0)
        self._admitted += 1

    def __exit__(self, *_: object) -> None:
        self._admitted -= 1


class OpenStreams:
    """The streaming calls without a deadline, which would hold up a drain for ever."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.are_ending = False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Add the running task for the block; `end` makes the block raise Unavailable."""
        task = asyncio.current_task()
        if task is None or self.are_ending:
            raise _stopping()
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.are_ending:
                raise
            task.uncancel()
            raise _stopping() from None
        finally:
            self._tasks.discard(task)

    def end(self) -> None:
        """End all of them, and each that joins later."""
        self.are_ending = True
        for task in list(self._tasks):
            task.cancel()


class MethodInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not at run time
    """Wraps each method once, except unary methods of gRPC's own services such as health.

    Requests and responses are passed through unchanged.
    """

    def __init__(
        self, default_deadline_seconds: float, admission: Admission, streams: OpenStreams
    ) -> None:
        self._default_deadline_seconds = default_deadline_seconds
        self._admission = admission
        self._streams = streams
        self._wrapped: dict[str, tuple[object, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the method's handler, wrapped."""
        handler = cast("Handler | None", await continuation(handler_call_details))
        method = handler_call_details.method
        cached = self._wrapped.get(method)
        if cached is not None and cached[0] is handler:
            return cached[1]
        # Only existing methods are cached, so callers cannot make the cache grow.
        if handler is None or (method.startswith("/grpc.") and not handler.response_streaming):
            return cast(Handler, handler)
        asked, answered = bool(handler.request_streaming), bool(handler.response_streaming)
        make: Any
        inner: Any
        make, inner = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }[asked, answered]
        around = self._stream if answered else self._unary
        wrapped: Handler = make(
            around(method, inner), handler.request_deserializer, handler.response_serializer
        )
        self._wrapped[method] = (handler, wrapped)
        return wrapped

    def _unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        admission, default_seconds = self._admission, self._default_deadline_seconds
        succeeded = metrics.served(method, "OK")

        async def answer(request: Any, context: Context) -> Any:
            with _Observed(method, context, succeeded, is_stream=False):
                async with _Errors(method, context):
                    with admission:
                        if _accept_deadline(context):
                            return await behaviour(request, context)
                        return await _within(default_seconds, behaviour(request, context))

        return answer

    def _stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        succeeded = metrics.served(method, "OK")
        streams = self._streams

        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            with _Observed(method, context, succeeded, is_stream=True):
                async with _Errors(method, context):
                    with nullcontext() if _accept_deadline(context) else streams.joined():
                        answers = behaviour(request, context)
                        if hasattr(answers, "__aiter__"):
                            async for message in answers:
                                yield message
                        else:
                            await answers

        return answer


class _Observed:
    """Measures a call, makes it part of the caller's trace, and sets the status of its span."""

    __slots__ = ("_context", "_is_stream", "_method", "_span", "_started", "_succeeded")

    def __init__(
        self, method: str, context: Context, succeeded: Histogram, *, is_stream: bool
    ) -> None:
        self._method = method
        self._is_stream = is_stream
        self._context = context
        self._succeeded = succeeded
        self._span: Span | None = None
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        traceparent = None
        pairs: Any = self._context.invocation_metadata()
        for key, value in pairs or ():
            if key == "traceparent":
                traceparent = value
                break
        name = self._method[1:]
        self._span = telemetry.enter_server_call(
            traceparent,
            name,
            {"rpc.system.name": "grpc", "rpc.method": name},
            # A stream may be open for hours.
            may_last=self._is_stream,
        )

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._started
        if error is None:
            code = "OK"
            self._succeeded.observe(seconds)
        else:
            if isinstance(error, grpc.aio.AbortError):
                code = self._context.code().name
            elif isinstance(error, (asyncio.CancelledError, GeneratorExit)):
                code = "CANCELLED"
            else:
                code = "UNKNOWN"
            metrics.served(self._method, code).observe(seconds)
        span = self._span
        if span is not None:
            span.set_attribute("rpc.response.status_code", code)
            if code in _FAILURES:
                span.fail(code)
            span.end()


class _Errors:
    """Ends a call that raised with a status; INTERNAL for what is no ServiceError."""

    __slots__ = ("_context", "_method")

    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._context = context

    async def __aenter__(self) -> None:
        return

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError):
            return
        answer: ServiceError
        if isinstance(error, ServiceError):
            answer = error
        elif isinstance(error, TimeoutError) and deadline.remaining_seconds() == 0.0:
            answer = _too_late()
        else:
            _log.error("unexpected_error", exc_info=error, extra={"method": self._method})
            answer = Internal("INTERNAL", "internal error")
        code, message, trailing = to_grpc(answer)
        await self._context.abort(code, message, trailing)


def _accept_deadline(context: Context) -> bool:
    """Set the caller's deadline and return whether there is one; raises when it is too short."""
    seconds: float | None = context.time_remaining()
    if seconds is None:
        return False
    if seconds < LEAST_USEFUL_SECONDS:
        raise _too_late()
    deadline.start(seconds)
    return True


async def _within(seconds: float, work: Awaitable[Any]) -> Any:
    deadline.start(seconds)
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise _too_late() from None
        raise


def _stopping() -> Unavailable:
    return Unavailable("SERVER_STOPPING", "the server is stopping; ask another")


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed")
