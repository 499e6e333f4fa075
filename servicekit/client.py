"""Channels on which generated stubs raise ServiceError, keep deadlines, retry and pass traces on.

The channel is wrapped: interceptors of grpc.aio would make a further task for each call and return
call objects that raise AioRpcError.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import grpc
import grpc.aio

from servicekit import deadline, metrics, telemetry
from servicekit.backoff import Backoff
from servicekit.error_codec import from_grpc, has_details
from servicekit.errors import DeadlineExceeded, ServiceError
from servicekit.spans import Kind, Span

# Kept of the caller's time, to turn a late answer into an error with a reason.
MARGIN_SECONDS = 0.005

# Reaching no server for this long has the name asked anew.
REPLACE_SECONDS = 5.0
# As long as a server leaves streams on a connection that it ends for its age.
_LONGEST_CALL_SECONDS = 600.0

Metadata = Sequence[tuple[str, str | bytes]]

_OPTIONS = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # Of DNS: after 30 s by default, in which a roll-out has replaced every server.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
)

_BACKOFF = Backoff(0.05, 1.0, jitter=(0.5, 1.5))
# CANCELLED is how a server that stops refuses a call that was on its way: when the caller gives
# up, no answer is waited for.
_RETRY_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class RetryBudget:
    """Limits retries to a share of the calls, so that they cannot multiply an overload."""

    def __init__(self, ratio: float = 0.1, capacity: float = 10.0) -> None:
        self._ratio = ratio
        self._capacity = capacity
        self._tokens = capacity

    def earn(self) -> None:
        """Count a call, which adds `ratio` of a retry to the budget."""
        if self._tokens < self._capacity:
            self._tokens = min(self._capacity, self._tokens + self._ratio)

    def spend(self) -> bool:
        """Take one retry from the budget; returns False if less than one is left."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which failures are retried, how often, and after which delay."""

    codes: Collection[grpc.StatusCode] = _RETRY_CODES
    attempts: int = 3
    backoff: Backoff = _BACKOFF
    budget: RetryBudget = field(default_factory=RetryBudget)

    def delay_seconds(
        self, attempt: int, code: grpc.StatusCode, error: ServiceError, left_seconds: float
    ) -> float | None:
        """Return the delay after the failed `attempt` (from 1); None for no retry."""
        if code not in self.codes or attempt >= self.attempts:
            return None
        delay = self.backoff.delay_seconds(attempt, error.retry_after_seconds)
        return delay if delay < left_seconds and self.budget.spend() else None


def connect(
    target: str,
    *,
    name: str,
    default_timeout_seconds: float,
    retry_codes: Collection[grpc.StatusCode] = _RETRY_CODES,
    attempts: int = 3,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """Return a channel to `target` (host:port or dns:///host:port); connects at the first call.

    `name` is the upstream's, for errors. Awaiting a call raises ServiceError, never AioRpcError.
    A unary call is limited by its `timeout`, else by the default, and by the deadline of the
    current request; a stream only by its `timeout` and that deadline. Calls must be repeatable:
    pass no `retry_codes` where they are not.
    """

    def make() -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)

    policy = RetryPolicy(codes=frozenset(retry_codes), attempts=attempts)
    return _Channel(make, name, default_timeout_seconds, policy)


class _Channel(grpc.aio.Channel):
    """A channel whose calls behave as `connect` describes.

    gRPC resolves a name without a server again after up to two minutes, and offers no way to do so
    earlier: an inner channel that reaches no server is replaced by one that asks at once.
    Methods that stream both ways are gRPC's own: no service of ours has any.
    """

    def __init__(
        self,
        make: Callable[[], grpc.aio.Channel],
        name: str,
        timeout_seconds: float,
        policy: RetryPolicy,
    ) -> None:
        self._make = make
        self._inner = make()
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._policy = policy
        self._methods: WeakKeyDictionary[Any, Callable[[grpc.aio.Channel], Any]] = (
            WeakKeyDictionary()
        )
        self._replaced: dict[grpc.aio.Channel, asyncio.Task[None]] = {}
        self._unreachable_since: float | None = None
        self._last_unreachable = 0.0

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable for a method with one request and one answer."""
        made = _UnaryMethod(method, self, self._name, self._timeout_seconds, self._policy)
        return self._bound(made, lambda inner: inner.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable for a method with one request and many answers."""
        made = _StreamMethod(self, self._name)
        return self._bound(made, lambda inner: inner.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the callable for a method with many requests and one answer."""
        made = _UploadMethod(method, self, self._name, self._timeout_seconds)
        return self._bound(made, lambda inner: inner.stream_unary(method, *args, **kwargs))

    def _bound(self, made: Any, bind: Callable[[grpc.aio.Channel], Any]) -> Any:
        made.call = bind(self._inner)
        self._methods[made] = bind
        return made

    def answered(self) -> None:
        """Note that a server answered a call."""
        self._unreachable_since = None

    def failed(self, failure: grpc.aio.AioRpcError) -> None:
        """Note a failure; when no server has been reached for a while, replace the inner channel.

        Calls in progress go on where they are.
        """
        if has_details(failure):
            self.answered()
        if has_details(failure) or failure.code() is not grpc.StatusCode.UNAVAILABLE:
            return
        now = time.monotonic()
        since, last = self._unreachable_since, self._last_unreachable
        self._last_unreachable = now
        if since is None or now - last > 2 * REPLACE_SECONDS:
            self._unreachable_since = now
        elif now - since >= REPLACE_SECONDS:
            self._unreachable_since = now
            old, self._inner = self._inner, self._make()
            closing = asyncio.ensure_future(old.close(_LONGEST_CALL_SECONDS))
            self._replaced[old] = closing
            closing.add_done_callback(lambda _: self._replaced.pop(old, None))
            for made, bind in self._methods.items():
                made.call = bind(self._inner)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return gRPC's own callable."""
        return self._inner.stream_stream(*args, **kwargs)

    async def close(self, grace: float | None = None) -> None:
        """Close; calls in progress get `grace` seconds, or none."""
        for old, closing in list(self._replaced.items()):
            closing.cancel()
            await old.close(grace)
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connection."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state differs from the one given."""
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
    """The client's span of a call made within a trace; streams have the server's span only."""

    __slots__ = ("_span",)

    def __init__(self, method: str) -> None:
        name = method[1:]
        self._span: Span | None = telemetry.begin_child(
            name, Kind.CLIENT, {"rpc.system.name": "grpc", "rpc.method": name}
        )

    def metadata(self, given: Metadata | None) -> Metadata | None:
        """Return the metadata that makes the server's span a child of this one."""
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

    __slots__ = (
        "__weakref__",
        "_channel",
        "_method",
        "_policy",
        "_succeeded",
        "_timeout_seconds",
        "_upstream",
        "call",
    )
    call: grpc.aio.UnaryUnaryMultiCallable[Any, Any]

    def __init__(
        self,
        method: str,
        channel: _Channel,
        upstream: str,
        timeout_seconds: float,
        policy: RetryPolicy,
    ) -> None:
        self._method = method
        self._channel = channel
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
                    answer = await self.call(request, timeout=left, metadata=sent, **options)
                except grpc.aio.AioRpcError as failure:
                    left = given - (time.perf_counter() - started)
                    code, error = failure.code(), from_grpc(failure, self._upstream)
                    self._channel.failed(failure)
                    delay = self._policy.delay_seconds(attempt, code, error, left)
                    if delay is None:
                        seconds = time.perf_counter() - started
                        metrics.called(self._method, code.name).observe(seconds)
                        raise error from failure
                    metrics.retried(self._method).inc()
                    await asyncio.sleep(delay)
                else:
                    self._channel.answered()
                    self._succeeded.observe(time.perf_counter() - started)
                    return answer
                attempt += 1
                left = given - (time.perf_counter() - started)


class _UploadMethod:
    """Callable like gRPC's, but the call is a plain coroutine. It is never retried: the stream of
    requests cannot be sent again.
    """

    __slots__ = ("__weakref__", "_channel", "_method", "_timeout_seconds", "_upstream", "call")
    call: grpc.aio.StreamUnaryMultiCallable[Any, Any]

    def __init__(
        self, method: str, channel: _Channel, upstream: str, timeout_seconds: float
    ) -> None:
        self._method = method
        self._channel = channel
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
                return await self.call(requests, timeout=given, metadata=sent, **options)
            except grpc.aio.AioRpcError as failure:
                code = failure.code().name
                self._channel.failed(failure)
                raise from_grpc(failure, self._upstream) from failure
            finally:
                metrics.called(self._method, code).observe(time.perf_counter() - started)


class _StreamMethod:
    """Callable like gRPC's; iterating the call raises ServiceError."""

    __slots__ = ("__weakref__", "_channel", "_upstream", "call")
    call: grpc.aio.UnaryStreamMultiCallable[Any, Any]

    def __init__(self, channel: _Channel, upstream: str) -> None:
        self._channel = channel
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
        call = self.call(
            request, timeout=given, metadata=_with_trace(metadata, telemetry.inject()), **options
        )
        return _StreamCall(call, self._channel, self._upstream)


class _StreamCall:
    """The answers of one call; `cancel` it when leaving before the last one."""

    __slots__ = ("_answers", "_call", "_channel", "_upstream")

    def __init__(self, call: Any, channel: _Channel, upstream: str) -> None:
        self._call = call
        self._channel = channel
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
            self._channel.failed(failure)
            raise from_grpc(failure, self._upstream) from failure

    async def read(self) -> Any:
        """Return the next answer, or `grpc.aio.EOF` at the end."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as failure:
            self._channel.failed(failure)
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
