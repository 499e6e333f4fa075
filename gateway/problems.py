"""Every error as application/problem+json (RFC 9457) with a reason code and the trace id."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from servicekit import telemetry
from servicekit.error_codec import problem
from servicekit.errors import Internal, ServiceError, Unauthenticated

MEDIA_TYPE = "application/problem+json"
IDEMPOTENCY_KEY = "Idempotency-Key"

# Reasons whose gRPC code says less than HTTP can.
_STATUS_BY_REASON = {"REQUEST_ID_REUSED": 422}

# Pydantic's words for these kinds name no part of the input.
_SPEAKABLE = frozenset(
    {
        "missing", "enum", "literal_error", "string_too_long", "string_too_short", "too_long",
        "too_short", "greater_than_equal", "less_than_equal", "timezone_aware", "string_type",
        "list_type", "int_type", "bool_type", "dict_type", "model_attributes_type",
        "less_than", "greater_than", "int_parsing", "bool_parsing",
    }
)  # fmt: skip
_OWN_WORDS = {
    "extra_forbidden": "holds a field that is not known",
    "json_invalid": "is not valid JSON",
    "uuid_parsing": "must be a UUID",
    "uuid_type": "must be a UUID",
    "string_pattern_mismatch": "does not have the required form",
}


class InvalidRequest(ServiceError):
    """The request does not have the form that the API description asks for."""

    http_status = 422
    grpc_code_name = "INVALID_ARGUMENT"

    def __init__(self, errors: Sequence[Mapping[str, str]]) -> None:
        super().__init__("INVALID_REQUEST", "the request does not have the required form")
        self.errors = list(errors)


class HttpError(ServiceError):
    """An HTTP status for which no other error of ours stands."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.status = status


def install(app: FastAPI) -> None:
    """Make `app` answer every failure with a problem."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_defect)


def answer_to(error: ServiceError, scope: Mapping[str, Any]) -> Response:
    """Return the answer that tells of `error` to the request of `scope`."""
    return response_of(error, instance_of(scope, is_valid=not isinstance(error, InvalidRequest)))


def response_of(error: ServiceError, instance: str) -> Response:
    """Return the answer that tells of `error`; `instance` must hold no personal data."""
    status = _status(error)
    body = problem(error, instance, telemetry.trace_id())
    body |= {"status": status, "title": HTTPStatus(status).phrase}
    if isinstance(error, InvalidRequest):
        body["errors"] = error.errors
    return Response(orjson.dumps(body), status, _headers(error, status), MEDIA_TYPE)


def instance_of(scope: Mapping[str, Any], *, is_valid: bool = True) -> str:
    """Return the path asked for; only its pattern when what stands in it was not found valid."""
    pattern = pattern_of(scope)
    if pattern is None:
        return "/"
    return str(scope["path"]) if is_valid else pattern


def pattern_of(scope: Mapping[str, Any]) -> str | None:
    """Return the path of the route that was found, parameters unfilled."""
    pattern = getattr(scope.get("route"), "path", None)
    return pattern if isinstance(pattern, str) else None


def _status(error: ServiceError) -> int:
    if isinstance(error, HttpError):
        return error.status
    return _STATUS_BY_REASON.get(error.reason, error.http_status)


def _headers(error: ServiceError, status: int) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        code = "" if error.reason == "TOKEN_MISSING" else ', error="invalid_token"'
        headers["WWW-Authenticate"] = f'Bearer realm="dialler"{code}'
    seconds = error.retry_after_seconds
    if seconds is None and status == HTTPStatus.SERVICE_UNAVAILABLE:
        seconds = 1.0
    if seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return headers


async def _on_service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    return answer_to(error, request.scope)


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    return response_of(
        _idempotency_error(found) or InvalidRequest([_told(each) for each in found]),
        instance_of(request.scope, is_valid=False),
    )


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    told = HttpError(status.value, _reason(status), status.phrase.lower())
    response = response_of(told, instance_of(request.scope, is_valid=False))
    response.headers.update(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_methods_of(request))
    return response


def _methods_of(request: Request) -> list[str]:
    """Return what the resource takes: each of its methods may be a route of its own."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.path_regex.match(request.scope["path"]):
            found |= route.methods or set()
    return sorted(found)


async def _on_defect(request: Request, error: Exception) -> Response:
    # The error goes on to the edge, which logs it.
    return response_of(Internal("INTERNAL", "internal error"), instance_of(request.scope))


def _reason(status: HTTPStatus) -> str:
    if status is HTTPStatus.NOT_FOUND:
        return "NO_SUCH_RESOURCE"
    return status.name


def _idempotency_error(errors: Sequence[Mapping[str, Any]]) -> ServiceError | None:
    for each in errors:
        if tuple(each["loc"]) == ("header", IDEMPOTENCY_KEY):
            if each["type"] == "missing":
                return HttpError(
                    400, "IDEMPOTENCY_KEY_MISSING", f"the header {IDEMPOTENCY_KEY} is required"
                )
            return HttpError(
                400, "IDEMPOTENCY_KEY_INVALID", f"the header {IDEMPOTENCY_KEY} must be a UUID"
            )
    return None


def _told(error: Mapping[str, Any]) -> dict[str, str]:
    """Say where and what is wrong without repeating anything of what was sent."""
    kind, place = str(error["type"]), [str(part) for part in error["loc"]]
    if kind == "extra_forbidden":
        place = place[:-1]
    if kind == "json_invalid":
        place = place[:1]
    message = str(error["msg"]) if kind in _SPEAKABLE else _OWN_WORDS.get(kind, "is not valid")
    return {"location": ".".join(place), "code": kind, "message": message}
