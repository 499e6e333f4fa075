"""The errors that a service answers with; pure, so that domain code may raise them."""

import re
from typing import ClassVar

_REASON = re.compile(r"[A-Z][A-Z0-9_]*[A-Z0-9]")


class ServiceError(Exception):
    """An error that the caller receives, with a code, a reason, a message and metadata.

    `reason` is UPPER_SNAKE and stable: callers branch on it. `message` is text for people and, like
    the metadata, names things by id only. `retry_after_seconds` asks the caller to wait that long.
    """

    http_status: ClassVar[int] = 500
    grpc_code_name: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        **metadata: str,
    ) -> None:
        if not _REASON.fullmatch(reason):
            raise ValueError(f"reason is not UPPER_SNAKE: {reason!r}")
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.metadata = metadata

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InvalidArgument(ServiceError):
    """The request is wrong in every state of the system."""

    http_status = 400
    grpc_code_name = "INVALID_ARGUMENT"


class Unauthenticated(ServiceError):
    """The caller has no valid credentials."""

    http_status = 401
    grpc_code_name = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The caller may not do this."""

    http_status = 403
    grpc_code_name = "PERMISSION_DENIED"


class NotFound(ServiceError):
    """What the request names does not exist."""

    http_status = 404
    grpc_code_name = "NOT_FOUND"


class AlreadyExists(ServiceError):
    """What the request creates exists, and differs."""

    http_status = 409
    grpc_code_name = "ALREADY_EXISTS"


class Conflict(ServiceError):
    """Another request changed it first; read it again before another try."""

    http_status = 409
    grpc_code_name = "ABORTED"


class FailedPrecondition(ServiceError):
    """The state of the system does not allow it, and a repeat would not help."""

    http_status = 409
    grpc_code_name = "FAILED_PRECONDITION"


class Exhausted(ServiceError):
    """A limit is reached: too many requests, or no capacity left."""

    http_status = 429
    grpc_code_name = "RESOURCE_EXHAUSTED"


class Unavailable(ServiceError):
    """Something that is needed is unavailable; the same request may succeed later."""

    http_status = 503
    grpc_code_name = "UNAVAILABLE"


class DeadlineExceeded(ServiceError):
    """The time ran out; the work may or may not have been done."""

    http_status = 504
    grpc_code_name = "DEADLINE_EXCEEDED"


class Internal(ServiceError):
    """A defect, here or upstream; the log of the service that failed has the details."""


ERROR_TYPES: tuple[type[ServiceError], ...] = tuple(ServiceError.__subclasses__())
