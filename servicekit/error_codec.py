"""ServiceError to and from a gRPC status with details, and to problem+json."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from servicekit.errors import (
    ERROR_TYPES,
    DeadlineExceeded,
    Exhausted,
    Internal,
    ServiceError,
    Unavailable,
)

DOMAIN = "dialler"
DETAILS_KEY = "grpc-status-details-bin"

_BY_CODE_NAME = {kind.grpc_code_name: kind for kind in ERROR_TYPES}
_FOREIGN: dict[grpc.StatusCode, tuple[type[ServiceError], str, str]] = {
    grpc.StatusCode.UNAVAILABLE: (Unavailable, "UPSTREAM_UNAVAILABLE", "cannot be reached"),
    grpc.StatusCode.CANCELLED: (Unavailable, "UPSTREAM_CANCELLED", "ended the call"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        DeadlineExceeded,
        "UPSTREAM_DEADLINE_EXCEEDED",
        "did not answer in time",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Exhausted, "UPSTREAM_EXHAUSTED", "is over its limits"),
}
_FOREIGN_REST = (Internal, "UPSTREAM_FAILED", "failed")


def to_grpc(
    error: ServiceError,
) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Return status code, message and trailing metadata for `context.abort`."""
    code = grpc.StatusCode[error.grpc_code_name]
    status = Status(code=code.value[0], message=error.message)
    info = ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.append(_packed(info))
    if error.retry_after_seconds is not None:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_seconds * 1e9))
        status.details.append(_packed(retry))
    return code, error.message, ((DETAILS_KEY, status.SerializeToString()),)


def has_details(error: grpc.aio.AioRpcError) -> bool:
    """Whether a server of ours answered with this error, rather than none that was reached."""
    metadata = cast(Iterable[tuple[str, Any]], error.trailing_metadata() or ())
    return any(key == DETAILS_KEY for key, _ in metadata)


def from_grpc(error: grpc.aio.AioRpcError, upstream: str = "upstream") -> ServiceError:
    """Return the error that `upstream` raised, else one that says how it failed.

    Only details of our own domain are used; the message of another system is never repeated, since
    it may hold anything.
    """
    raised = _raised(error)
    if raised is not None:
        return raised
    kind, reason, what = _FOREIGN.get(error.code(), _FOREIGN_REST)
    return kind(reason, f"{upstream} {what}", upstream=upstream, upstream_code=error.code().name)


def problem(error: ServiceError, instance: str, trace_id: str | None) -> dict[str, Any]:
    """Return the RFC 9457 body for `error`; `instance` is the path of the request."""
    return {
        "type": f"urn:dialler:problem:{error.reason.lower().replace('_', '-')}",
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.message,
        "instance": instance,
        "reason": error.reason,
        "metadata": error.metadata,
        "trace_id": trace_id,
    }


def _raised(error: grpc.aio.AioRpcError) -> ServiceError | None:
    """Return the ServiceError that the status's details hold; None for a status of another kind."""
    kind = _BY_CODE_NAME.get(error.code().name)
    pairs = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    value = next((value for key, value in pairs if key == DETAILS_KEY), None)
    if value is None or kind is None:
        return None
    try:
        status = Status.FromString(value)
    except DecodeError:
        return None
    info, retry = ErrorInfo(), RetryInfo()
    retry_after: float | None = None
    for detail in status.details:
        if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Is(ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    if info.domain != DOMAIN:
        return None
    try:
        result = kind(info.reason, status.message, retry_after_seconds=retry_after)
    except ValueError:
        return None
    result.metadata.update(info.metadata)
    return result


def _packed(message: ErrorInfo | RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
