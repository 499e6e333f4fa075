"""Channels on which generated stubs raise ServiceError, keep deadlines, retry and pass traces on.

The channel is wrapped instead of using grpc.aio's interceptors: those make a further task for
each call and hand out call objects that raise AioRpcError.
"""

import asyncio
import json
import math
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from servicekit import deadline, metrics, telemetry
from servicekit.error_codec import from_grpc
from servicekit.errors import DeadlineExceeded, ServiceError
from servicekit.spans import Kind, Span

# Left to ourselves to turn a late answer into a good error, out of what the caller gave us.
MARGIN_SECONDS = 0.005

Metadata = Sequence[tuple[str, str | bytes]]

_OPTIONS = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
)


class RetryBudget:
    """Bounds retries to a share of the calls, so that they cannot multiply an overload."""

    def __init__(self, ratio: float = 0.1, capacity: float = 10.0) -> None:
        self._ratio = ratio
        self._capacity = capacity
        self._tokens = capacity

    def earn(self) -> None:
        """Count a call; `ratio` of a retry becomes affordable."""
        if self._tokens < self._capacity:
            self._tokens = min(self._capacity, self._tokens + self._ratio)

    def spend(self) -> bool:
        """Take the price of one retry; False if there is not enough left."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which failures are tried again, how often, and how long after."""

    codes: Collection[grpc.StatusCode] = (grpc.StatusCode.UNAVAILABLE,)
    attempts: int = 3
    first_delay_seconds: float = 0.05
    longest_delay_seconds: float = 1.0
    budget: RetryBudget = field(default_factory=RetryBudget)

    def delay_seconds(
        self, attempt: int, code: grpc.StatusCode, error: ServiceError, left_seconds: float
    ) -> float | None:
        """Return how long to wait after the failed `attempt` (from 1); None is the end of it."""
        if code not in self.codes or attempt >= self.attempts:
            return None
        delay = min(self.longest_delay_seconds, self.first_delay_seconds * 2 ** (attempt - 1))
        # Spreading retries needs no secrecy.
        delay *= random.uniform(0.5, 1.5)  # noqa: S311
        if error.retry_after_seconds is not None:
            delay += error.retry_after_seconds
        return delay if delay < left_seconds and self.budget.spend() else None


def connect(
    target: str,
    *,
    name: str,
    default_timeout_seconds: float,
    retry_codes: Collection[grpc.StatusCode] = (grpc.StatusCode.UNAVAILABLE,),
    attempts: int = 3,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """Return a channel to `target` (host:port or dns:///host:port); connects at the first call.

    `name` is the upstream's, for errors. Awaiting a call raises ServiceError, never AioRpcError.
    Unary calls take the shortest of `timeout`, or else the default, and what the current
    request has left; streams only what they are given and what is left. Retries assume that
    calls may be repeated: pass no `retry_codes` where they may not.
    """
    if credentials is None:
        inner = grpc.aio.insecure_channel(target, options=_OPTIONS)
    else:
        inner = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
    policy = RetryPolicy(codes=frozenset(retry_codes), attempts=attempts)
    return _Channel(inner, name, default_timeout_seconds, policy)


class _Channel(grpc.aio.Channel):
    """A channel whose calls behave as `connect` promises.

    Streaming both ways is passed through as it is: no service of ours has any.
    """

    def __init__(
        self, inner: grpc.aio.Channel, name: str, timeout_seconds: float, policy: RetryPolicy
    ) -> None:
        self._inner = inner
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._policy = policy

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable for a method with one request and one answer."""
        call = self._inner.unary_unary(method, *args, **kwargs)
        return _UnaryMethod(method, call, self._name, self._timeout_seconds, self._policy)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable for a method with one request and many answers."""
        return _StreamMethod(self._inner.unary_stream(method, *args, **kwargs), self._name)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable for a method with many requests and one answer."""
        call = self._inner.stream_unary(method, *args, **kwargs)
        return _UploadMethod(method, call, self._name, self._timeout_seconds)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return gRPC's own callable."""
        return self._inner.stream_stream(*args, **kwargs)

    async def close(self, grace: float | None = None) -> None:
        """Close; calls in progress get `grace` seconds, or none."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connection."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state is another than the one given."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Return when connected."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close(None)


class _Traced:
    """The client's span of a call made within a trace; streams are left to the server's."""

    __slots__ = ("_span",)

    def __init__(self, method: str) -> None:
        name = method[1:]
        self._span: Span | None = telemetry.begin_child(
            name, Kind.CLIENT, {"rpc.system.name": "grpc", "rpc.method": name}
        )

    def metadata(self, given: Metadata | None) -> Metadata | None:
        """Return what to send so that the server's span is this one's child."""
        span = self._span
        return _with_trace(given, telemetry.inject() if span is None else span.traceparent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        span = self._span
        if span is None:
            return
        if isinstance(error, ServiceError):
            span.set_attribute("rpc.response.status_code", error.grpc_code_name)
            telemetry.fail(span, error)
        elif error is not None:
            span.fail(type(error).__name__, keeps=isinstance(error, Exception))
        else:
            span.set_attribute("rpc.response.status_code", "OK")
        span.end()


class _UnaryMethod:
    """Callable like gRPC's, but the call is a plain coroutine."""

    __slots__ = ("_call", "_method", "_policy", "_succeeded", "_timeout_seconds", "_upstream")

    def __init__(
        self,
        method: str,
        call: grpc.aio.UnaryUnaryMultiCallable[Any, Any],
        upstream: str,
        timeout_seconds: float,
        policy: RetryPolicy,
    ) -> None:
        self._method = method
        self._call = call
        self._upstream = upstream
        self._timeout_seconds = timeout_seconds
        self._policy = policy
        self._succeeded = metrics.called(method, "OK")

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Any,
    ) -> Any:
        started = time.perf_counter()
        given = self._timeout_seconds if timeout is None else timeout
        given = min(given, _seconds_left(given))
        self._policy.budget.earn()
        attempt, left = 1, given
        with _Traced(self._method) as traced:
            sent = traced.metadata(metadata)
            while True:
                try:
                    answer = await self._call(request, timeout=left, metadata=sent, **options)
                except grpc.aio.AioRpcError as failure:
                    left = given - (time.perf_counter() - started)
                    await self._pause_or_raise(failure, attempt, left, started)
                else:
                    self._succeeded.observe(time.perf_counter() - started)
                    return answer
                attempt += 1
                left = given - (time.perf_counter() - started)

    async def _pause_or_raise(
        self, failure: grpc.aio.AioRpcError, attempt: int, left_seconds: float, started: float
    ) -> None:
        code = failure.code()
        error = from_grpc(failure, self._upstream)
        delay = self._policy.delay_seconds(attempt, code, error, left_seconds)
        if delay is None:
            metrics.called(self._method, code.name).observe(time.perf_counter() - started)
            raise error from failure
        metrics.retried(self._method).inc()
        await asyncio.sleep(delay)


class _UploadMethod:
    """Callable like gRPC's, but the call is a plain coroutine. Never tried again: what has been
    sent cannot be sent once more.
    """

    __slots__ = ("_call", "_method", "_timeout_seconds", "_upstream")

    def __init__(
        self,
        method: str,
        call: grpc.aio.StreamUnaryMultiCallable[Any, Any],
        upstream: str,
        timeout_seconds: float,
    ) -> None:
        self._method = method
        self._call = call
        self._upstream = upstream
        self._timeout_seconds = timeout_seconds

    async def __call__(
        self,
        requests: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Any,
    ) -> Any:
        started = time.perf_counter()
        given = self._timeout_seconds if timeout is None else timeout
        given = min(given, _seconds_left(given))
        code = "OK"
        with _Traced(self._method) as traced:
            sent = traced.metadata(metadata)
            try:
                return await self._call(requests, timeout=given, metadata=sent, **options)
            except grpc.aio.AioRpcError as failure:
                code = failure.code().name
                raise from_grpc(failure, self._upstream) from failure
            finally:
                metrics.called(self._method, code).observe(time.perf_counter() - started)


class _StreamMethod:
    """Callable like gRPC's; iterating the call raises ServiceError."""

    __slots__ = ("_call", "_upstream")

    def __init__(self, call: grpc.aio.UnaryStreamMultiCallable[Any, Any], upstream: str) -> None:
        self._call = call
        self._upstream = upstream

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Any,
    ) -> "_StreamCall":
        left = _seconds_left(math.inf if timeout is None else timeout)
        shortest = left if timeout is None else min(timeout, left)
        given = None if math.isinf(shortest) else shortest
        call = self._call(
            request, timeout=given, metadata=_with_trace(metadata, telemetry.inject()), **options
        )
        return _StreamCall(call, self._upstream)


class _StreamCall:
    """The answers of one call; `cancel` it when leaving before the end."""

    __slots__ = ("_answers", "_call", "_upstream")

    def __init__(self, call: Any, upstream: str) -> None:
        self._call = call
        self._upstream = upstream
        self._answers: AsyncIterator[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._answers is None:
            self._answers = self._call.__aiter__()
        try:
            return await self._answers.__anext__()
        except grpc.aio.AioRpcError as failure:
            raise from_grpc(failure, self._upstream) from failure

    async def read(self) -> Any:
        """Return the next answer, or `grpc.aio.EOF` at the end."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as failure:
            raise from_grpc(failure, self._upstream) from failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def _seconds_left(unlimited: float) -> float:
    left = deadline.remaining_seconds()
    if left is None:
        return unlimited
    left -= MARGIN_SECONDS
    if left <= 0.0:
        raise DeadlineExceeded("DEADLINE_EXCEEDED", "no time left to make the call")
    return left


def _with_trace(metadata: Metadata | None, traceparent: str | None) -> Metadata | None:
    if traceparent is None:
        return metadata
    return (*(metadata or ()), ("traceparent", traceparent))
