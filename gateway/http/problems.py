"""Every error as application/problem+json (RFC 9457) with a reason code and the trace id."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Route

from servicekit import telemetry
from servicekit.error_codec import problem
from servicekit.errors import Internal, ServiceError, Unauthenticated

MEDIA_TYPE = "application/problem+json"
IDEMPOTENCY_KEY = "Idempotency-Key"

# Reasons with a more specific HTTP status than that of their gRPC code.
_STATUS_BY_REASON = {"REQUEST_ID_REUSED": 422}

# Pydantic's messages of these kinds repeat no part of the input.
_SAFE_KINDS = frozenset(
    {
        "missing", "enum", "literal_error", "string_too_long", "string_too_short", "too_long",
        "too_short", "greater_than_equal", "less_than_equal", "timezone_aware", "string_type",
        "list_type", "int_type", "bool_type", "dict_type", "model_attributes_type",
        "less_than", "greater_than", "int_parsing", "bool_parsing",
    }
)  # fmt: skip
_MESSAGES = {
    "extra_forbidden": "holds a field that is not known",
    "json_invalid": "is not valid JSON",
    "uuid_parsing": "must be a UUID",
    "uuid_type": "must be a UUID",
    "string_pattern_mismatch": "does not have the required form",
}


_ERRORS = {
    400: "The `Idempotency-Key` is missing or no UUID, or the request is not valid.",
    401: "The token (or ticket) is missing, malformed, expired or not trusted.",
    403: "The token's role or queues do not allow it.",
    404: "The resource does not exist.",
    405: "The resource has no such method.",
    409: "The state does not allow it: it has ended, exists already or belongs to another agent.",
    413: "The body is too large.",
    415: "The body does not have the required media type.",
    422: "The request does not have the required form, or the `Idempotency-Key` was used before "
    "for another request.",
    429: "Too many requests; wait for `Retry-After` seconds.",
    500: "A defect of the server; `trace_id` finds it in the logs.",
    503: "A required dependency is unavailable; try again after `Retry-After` seconds.",
    504: "The deadline passed; the work may or may not have been done.",
}
_ALWAYS = (401, 403, 429, 500, 503, 504)
_WRITE_ALWAYS = (413, 422)


class FieldProblem(BaseModel):
    """One error in a request; never repeats the input."""

    location: str = Field(examples=["body.outcome"])
    code: str = Field(examples=["missing"])
    message: str


class Problem(BaseModel):
    """An error as RFC 9457 defines it."""

    type: str = Field(examples=["urn:dialler:problem:user-not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str
    instance: str = Field(description="The path of the request.")
    reason: str = Field(description="Stable code to branch on.", examples=["USER_NOT_FOUND"])
    metadata: dict[str, str]
    trace_id: str | None
    errors: list[FieldProblem] | None = Field(default=None, description="Only with 422.")


class InvalidRequest(ServiceError):
    """The request does not have the form that the API description asks for."""

    http_status = 422
    grpc_code_name = "INVALID_ARGUMENT"

    def __init__(self, errors: Sequence[Mapping[str, str]]) -> None:
        super().__init__("INVALID_REQUEST", "the request does not have the required form")
        self.errors = list(errors)


class HttpError(ServiceError):
    """An error with an HTTP status that no other error class has."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.status = status


def install(app: FastAPI) -> None:
    """Make `app` answer every failure with a problem."""

    async def on_service_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, ServiceError):
            raise error
        return answer_to(error, request.scope)

    async def on_defect(request: Request, error: Exception) -> Response:
        # The error is raised again and logged by the edge.
        return response_of(Internal("INTERNAL", "internal error"), instance_of(request.scope))

    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, on_defect)


def answer_to(error: ServiceError, scope: Mapping[str, Any]) -> Response:
    """Return the problem of `error` as the answer to the request of `scope`."""
    return response_of(error, instance_of(scope, is_valid=not isinstance(error, InvalidRequest)))


def response_of(error: ServiceError, instance: str) -> Response:
    """Return the problem of `error`; `instance` must hold no personal data."""
    status = _STATUS_BY_REASON.get(error.reason, error.http_status)
    if isinstance(error, HttpError):
        status = error.status
    body = problem(error, instance, telemetry.trace_id())
    body |= {"status": status, "title": HTTPStatus(status).phrase}
    if isinstance(error, InvalidRequest):
        body["errors"] = error.errors
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        code = "" if error.reason == "TOKEN_MISSING" else ', error="invalid_token"'
        headers["WWW-Authenticate"] = f'Bearer realm="dialler"{code}'
    seconds = error.retry_after_seconds
    if seconds is None and status == HTTPStatus.SERVICE_UNAVAILABLE:
        seconds = 1.0
    if seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return Response(orjson.dumps(body), status, headers, MEDIA_TYPE)


def instance_of(scope: Mapping[str, Any], *, is_valid: bool = True) -> str:
    """Return the request's path, or the route's pattern when the parameters are not valid."""
    pattern = pattern_of(scope)
    if pattern is None:
        return "/"
    return str(scope["path"]) if is_valid else pattern


def pattern_of(scope: Mapping[str, Any]) -> str | None:
    """Return the pattern of the matched route, such as `/v1/rebuilds/{rebuild_id}`."""
    pattern = getattr(scope.get("route"), "path", None)
    return pattern if isinstance(pattern, str) else None


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    wrong = []
    for each in found:
        # Location and kind only: the message must not repeat the input.
        kind, place = str(each["type"]), [str(part) for part in each["loc"]]
        if kind == "extra_forbidden":
            place = place[:-1]
        if kind == "json_invalid":
            place = place[:1]
        message = str(each["msg"]) if kind in _SAFE_KINDS else _MESSAGES.get(kind, "is not valid")
        wrong.append({"location": ".".join(place), "code": kind, "message": message})
    answer: ServiceError = InvalidRequest(wrong)
    for each in found:
        if tuple(each["loc"]) == ("header", IDEMPOTENCY_KEY):
            is_missing = each["type"] == "missing"
            reason = "IDEMPOTENCY_KEY_MISSING" if is_missing else "IDEMPOTENCY_KEY_INVALID"
            needed = "is required" if is_missing else "must be a UUID"
            answer = HttpError(400, reason, f"the header {IDEMPOTENCY_KEY} {needed}")
            break
    return response_of(answer, instance_of(request.scope, is_valid=False))


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    reason = "NO_SUCH_RESOURCE" if status is HTTPStatus.NOT_FOUND else status.name
    answer = HttpError(status.value, reason, status.phrase.lower())
    response = response_of(answer, instance_of(request.scope, is_valid=False))
    response.headers.update(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # Each method of the resource may be a route of its own.
        methods: set[str] = set()
        for route in request.app.routes:
            if isinstance(route, Route) and route.path_regex.match(request.scope["path"]):
                methods |= route.methods or set()
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def documented(*statuses: int, writes: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors of a guarded endpoint."""
    wanted = {*_ALWAYS, *statuses, *(_WRITE_ALWAYS if writes else ())}
    return {status: _described(status) for status in sorted(wanted)}


def documented_only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of exactly these errors."""
    return {status: _described(status) for status in statuses}


def _described(status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if status in (429, 503):
        headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer"}}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return {
        "description": _ERRORS[status],
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
