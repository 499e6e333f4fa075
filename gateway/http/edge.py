"""The outermost layer: trace, deadline, body limit, headers, one log line, metrics."""

import logging
import time
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.problems import HttpError, answer_to, pattern_of
from servicekit import deadline, telemetry
from servicekit.errors import DeadlineExceeded, Internal, ServiceError
from servicekit.spans import Kind

NO_ROUTE = "none"

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
)
# Answers hold personal data unless they set a policy of their own.
_CACHE = (b"cache-control", b"no-store")
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")

_SECONDS = Histogram(
    "dialler_http_server_seconds",
    "Time to answer a request, by route, method and status; of an event stream, its whole life.",
    ("route", "method", "status"),
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 60.0, 3600.0),
)
_IN_PROGRESS = Gauge(
    "dialler_http_server_in_progress", "Requests being answered; event streams are not counted."
)
_log = logging.getLogger("gateway.access")

# The path parameters of these are not ids of this API: they may be a phone number.
_UNFOUND = frozenset({400, 404, 422})
# Of a path's parameters only ids are logged, and only what is written like one.
_LOGGED_IDS = frozenset({"user_id", "assignment_id", "callback_id", "rebuild_id", "run_id"})
_ID_CHARACTERS = frozenset("0123456789abcdef-")
# Kubernetes and load balancers ask every few seconds; the metrics count them.
_PROBES = frozenset({"/healthz", "/readyz"})

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Uploads:
    """Paths whose bodies are streamed, with limits of their own."""

    prefix: str
    most_bytes: int
    seconds: float


class Edge:
    """The outermost ASGI application: answers, logs and measures every request.

    `streaming` are paths without deadline. The log has ids, route pattern, status and time; never
    the query, the body or the path itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        deadline_seconds: float,
        max_body_bytes: int,
        streaming: frozenset[str],
        logs_access: bool,
        uploads: Uploads | None = None,
    ) -> None:
        self._app = app
        self._timeout = deadline.Timeout(deadline_seconds)
        self._max_body_bytes = max_body_bytes
        self._streaming = streaming
        self._logs_access = logs_access
        # Read when metrics are: a gauge that is set costs each request two locks.
        self._in_progress = 0
        _IN_PROGRESS.set_function(lambda: self._in_progress)
        self._uploads = uploads
        self._upload_timeout = deadline.Timeout(uploads.seconds if uploads else deadline_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = telemetry.extract(_header(scope, b"traceparent"))
        is_stream = scope["path"] in self._streaming
        with telemetry.span(
            scope["method"], parent=parent, kind=Kind.SERVER, may_last=is_stream
        ) as span:
            exchange = _Exchange(scope, send)
            if is_stream:
                await self._answer(scope, receive, exchange)
            else:
                self._in_progress += 1
                try:
                    await self._answer(scope, receive, exchange)
                finally:
                    self._in_progress -= 1
            route = _route(scope)
            # As OpenTelemetry's conventions for HTTP say; only a server's fault is a failure.
            span.name = f"{scope['method']} {route}" if route != NO_ROUTE else scope["method"]
            span.set_attribute("http.request.method", scope["method"])
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", exchange.status)
            if exchange.status >= 500:
                span.fail(str(exchange.status))
            self._record(scope, exchange, route)

    async def _answer(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            if scope["path"] in self._streaming and scope["method"] == "GET":
                await self._app(scope, receive, exchange.send)
                return
            uploads = self._uploads
            is_upload = uploads is not None and scope["path"].startswith(uploads.prefix)
            with self._upload_timeout if is_upload else self._timeout:
                body = await self._body(scope, receive, uploads if is_upload else None)
                await self._app(scope, body, exchange.send)
        except ServiceError as error:
            await exchange.fail(error)
        except TimeoutError:
            await exchange.fail(DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed"))
        except Exception as error:
            _log.error("unexpected_error", exc_info=error, extra={"route": _route(scope)})
            await exchange.fail(Internal("INTERNAL", "internal error"))

    async def _body(self, scope: Scope, receive: Receive, uploads: Uploads | None) -> Receive:
        """Return a `receive` that limits the body; only bodies of uploads are not read here."""
        if uploads is not None:
            most_bytes, received = uploads.most_bytes, 0

            async def counted() -> Message:
                nonlocal received
                message = await receive()
                received += len(message.get("body", b""))
                if received > most_bytes:
                    raise _too_large(most_bytes)
                return message

            return counted
        if scope["method"] not in _WITH_BODY:
            return receive
        declared = _header(scope, b"content-length")
        if declared is not None and declared.isdecimal() and int(declared) > self._max_body_bytes:
            raise _too_large(self._max_body_bytes)
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body_bytes:
                raise _too_large(self._max_body_bytes)
        is_given = False

        async def replay() -> Message:
            nonlocal is_given
            if is_given:
                return await receive()
            is_given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return replay

    def _record(self, scope: Scope, exchange: "_Exchange", route: str) -> None:
        seconds = time.perf_counter() - exchange.started
        _observed(route, scope["method"], exchange.status).observe(seconds)
        if not self._logs_access or route in _PROBES or not _log.isEnabledFor(logging.INFO):
            return
        caller = scope.get("caller")
        ids = {}
        if exchange.status not in _UNFOUND:
            ids = {
                name: value
                for name, value in (scope.get("path_params") or {}).items()
                if name in _LOGGED_IDS
                and isinstance(value, str)
                and len(value) <= 36
                and set(value) <= _ID_CHARACTERS
            }
        # Built directly: finding the line of code that logs costs more than the rest.
        record = logging.LogRecord(_log.name, logging.INFO, "", 0, "request", None, None)
        record.__dict__.update(
            method=scope["method"],
            route=route,
            status=exchange.status,
            milliseconds=round(seconds * 1000, 2),
            caller=caller and caller.subject,
            role=caller and caller.role,
            **ids,
        )
        _log.handle(record)


class _Exchange:
    """The answer to one request."""

    __slots__ = ("_scope", "_send", "started", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.started = time.perf_counter()
        # 499 remains when the client disconnects before there is an answer.
        self.status = 499

    async def send(self, message: Message) -> None:
        """Send the message, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.get("headers", ())
            sent: Headers = [*headers, *_SECURITY_HEADERS]
            has_cache = has_policy = False
            for name, _ in headers:
                has_cache |= name == _CACHE[0]
                has_policy |= name == _POLICY[0]
            if not has_cache:
                sent.append(_CACHE)
            if not has_policy:
                sent.append(_POLICY)
            trace_id = telemetry.trace_id()
            if trace_id is not None:
                sent.append((b"trace-id", trace_id.encode()))
            message["headers"] = sent
        await self._send(message)

    async def fail(self, error: ServiceError) -> None:
        """Answer with a problem, if no answer has begun."""
        if self.status != 499:
            return
        response = answer_to(error, self._scope)
        status, headers = response.status_code, response.raw_headers
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": response.body})


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def _route(scope: Scope) -> str:
    return pattern_of(scope) or NO_ROUTE


# The label sets are few: unknown methods share "other".
@lru_cache(maxsize=4096)
def _observed(route: str, method: str, status: int) -> Histogram:
    known = method if method in ("GET", "POST", "HEAD", "OPTIONS", *_WITH_BODY) else "other"
    return _SECONDS.labels(route, known, str(status))


def _too_large(limit: int) -> ServiceError:
    return HttpError(413, "BODY_TOO_LARGE", f"the body has more than {limit} bytes")
