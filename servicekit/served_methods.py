"""What surrounds each method of our gRPC servers: trace and metrics, errors, deadline, admission.

Methods are wrapped when they are first called: an interceptor of grpc.aio costs every call several
coroutines. The order is in `_unary` and `_stream`: the trace is outermost, so that it sees the
status with which an error ends the call.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias

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

# The metadata of the task's call: `ServicerContext.invocation_metadata` makes it anew at each call,
# which takes as long as all else of a trace.
_sent: ContextVar[Sequence[tuple[str, str | bytes]]] = ContextVar("metadata", default=())

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
# Generic in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handlers: TypeAlias = "grpc.GenericRpcHandler[Any, Any]"
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


class ServedMethods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not at run time
    """The methods of one server, each wrapped once, but for unary ones of gRPC's own services.

    Generated code registers services with it as if it were the server. Requests and responses are
    passed through unchanged.
    """

    def __init__(
        self, default_deadline_seconds: float, admission: Admission, streams: OpenStreams
    ) -> None:
        self._timeout = deadline.Timeout(default_deadline_seconds)
        self._admission = admission
        self._streams = streams
        self._services: list[Handlers] = []
        self._wrapped: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, services: Sequence[Handlers]) -> None:
        """Add the methods of services; takes the place of the server's own method."""
        self._services += services

    def add_registered_method_handlers(self, *_: object) -> None:
        """Do nothing: the same methods are added as generic handlers too.

        Where each is registered with the server by itself, every call costs grpc.aio a look at the
        queue of every method.
        """

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        """Return the method's handler, wrapped; None if there is no such method."""
        # grpc.aio asks in the call's own task.
        _sent.set(handler_call_details.invocation_metadata or ())
        wrapped = self._wrapped.get(handler_call_details.method)
        if wrapped is not None:
            return wrapped
        for service in self._services:
            handler = service.service(handler_call_details)
            if handler is not None:
                break
        else:
            return None
        method = handler_call_details.method
        # Only existing methods are kept, so callers cannot make the dictionary grow.
        self._wrapped[method] = wrapped = self._around(method, handler)
        return wrapped

    def _around(self, method: str, handler: Handler) -> Handler:
        if method.startswith("/grpc.") and not handler.response_streaming:
            return handler
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
        made: Handler = make(
            around(method, inner), handler.request_deserializer, handler.response_serializer
        )
        return made

    def _unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        admission, timeout = self._admission, self._timeout
        observed = _observed(method, is_stream=False)

        async def answer(request: Any, context: Context) -> Any:
            with observed(context):
                try:
                    with admission:
                        if _accept_deadline(context):
                            return await behaviour(request, context)
                        with timeout:
                            return await behaviour(request, context)
                except Exception as error:
                    await _abort(method, context, error)
                    raise

        return answer

    def _stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        observed = _observed(method, is_stream=True)
        streams = self._streams

        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            with observed(context):
                try:
                    with nullcontext() if _accept_deadline(context) else streams.joined():
                        answers = behaviour(request, context)
                        if hasattr(answers, "__aiter__"):
                            async for message in answers:
                                yield message
                        else:
                            await answers
                except Exception as error:
                    await _abort(method, context, error)
                    raise

        return answer


class _Observed:
    """Measures a call, makes it part of the caller's trace, and sets the status of its span."""

    __slots__ = (
        "_attributes", "_context", "_is_stream", "_method", "_span", "_started", "_succeeded",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        attributes: Mapping[str, str],
        succeeded: Histogram,
        context: Context,
        *,
        is_stream: bool,
    ) -> None:
        self._method = method
        self._attributes = attributes
        self._is_stream = is_stream
        self._context = context
        self._succeeded = succeeded
        self._span: Span | None = None
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        traceparent = None
        for key, value in _sent.get():
            if key == "traceparent":
                traceparent = str(value)
                break
        self._span = telemetry.enter_server_call(
            traceparent,
            self._attributes["rpc.method"],
            self._attributes,
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


def _observed(method: str, *, is_stream: bool) -> "Callable[[Context], _Observed]":
    attributes = {"rpc.system.name": "grpc", "rpc.method": method[1:]}
    return partial(_Observed, method, attributes, metrics.served(method, "OK"), is_stream=is_stream)


async def _abort(method: str, context: Context, error: Exception) -> None:
    """End a call that raised with a status; INTERNAL for what is no ServiceError."""
    if isinstance(error, grpc.aio.AbortError):
        return
    answer: ServiceError
    if isinstance(error, ServiceError):
        answer = error
    elif isinstance(error, TimeoutError) and deadline.remaining_seconds() == 0.0:
        answer = _too_late()
    else:
        _log.error("unexpected_error", exc_info=error, extra={"method": method})
        answer = Internal("INTERNAL", "internal error")
    code, message, trailing = to_grpc(answer)
    await context.abort(code, message, trailing)


def _accept_deadline(context: Context) -> bool:
    """Set the caller's deadline and return whether there is one; raises when it is too short."""
    seconds: float | None = context.time_remaining()
    if seconds is None:
        return False
    if seconds < LEAST_USEFUL_SECONDS:
        raise _too_late()
    deadline.start(seconds)
    return True


def _stopping() -> Unavailable:
    return Unavailable("SERVER_STOPPING", "the server is stopping; ask another")


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed")
