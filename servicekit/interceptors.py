"""What surrounds every method of our servers: trace and metrics, errors, deadline, admission.

One gRPC interceptor composes them, since each further one costs every call a coroutine. The
order is in `_unary` and `_stream`: the trace is outermost, so that it sees the status which the
errors end the call with.
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

# Codes that are a server's failure; the others are for the caller to judge (OpenTelemetry's
# conventions for gRPC).
_FAILURES = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

# Work that cannot be answered in this time is refused instead of begun.
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
    """The answers being streamed without a deadline, which would hold up a drain for ever."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.are_ending = False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Count the running task among them; when ended it raises Unavailable to the caller."""
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
        """End them all, and those to come."""
        self.are_ending = True
        for task in list(self._tasks):
            task.cancel()


class MethodInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not at run time
    """Wraps each method once; unary methods of gRPC's own services, as health, are left alone.

    Requests and responses are passed through untouched, whatever their type.
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
        """Return the method's handler, surrounded."""
        handler = cast("Handler | None", await continuation(handler_call_details))
        method = handler_call_details.method
        cached = self._wrapped.get(method)
        if cached is not None and cached[0] is handler:
            return cached[1]
        # Only methods that exist are kept, so callers cannot make the cache grow.
        if handler is None or (method.startswith("/grpc.") and not handler.response_streaming):
            return cast(Handler, handler)
        wrapped = self._wrap(method, handler)
        self._wrapped[method] = (handler, wrapped)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
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
    """Measures a call, puts it in its caller's trace, and ends its span with its status."""

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
            # A watch goes on for hours.
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
            code = self._failure_code(error)
            metrics.served(self._method, code).observe(seconds)
        if self._span is not None:
            self._end_span(self._span, code)

    @staticmethod
    def _end_span(span: Span, code: str) -> None:
        span.set_attribute("rpc.response.status_code", code)
        if code in _FAILURES:
            span.fail(code)
        span.end()

    def _failure_code(self, error: BaseException) -> str:
        if isinstance(error, grpc.aio.AbortError):
            return self._context.code().name
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            return "CANCELLED"
        return "UNKNOWN"


class _Errors:
    """Ends a call that raised with a status; what is not a ServiceError is a defect of ours."""

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
        code, message, trailing = to_grpc(self._answer_to(error))
        await self._context.abort(code, message, trailing)

    def _answer_to(self, error: Exception) -> ServiceError:
        if isinstance(error, ServiceError):
            return error
        if isinstance(error, TimeoutError) and deadline.remaining_seconds() == 0.0:
            return _too_late()
        _log.error("unexpected_error", exc_info=error, extra={"method": self._method})
        return Internal("INTERNAL", "internal error")


def _accept_deadline(context: Context) -> bool:
    """Take on the caller's deadline and say whether there is one; refuse hopeless work."""
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
