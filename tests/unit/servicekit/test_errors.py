"""ServiceError and what it becomes on the wire and in problem+json."""

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from servicekit.error_codec import DETAILS_KEY, from_grpc, problem, to_grpc
from servicekit.errors import (
    ERROR_TYPES,
    Conflict,
    DeadlineExceeded,
    Exhausted,
    Internal,
    NotFound,
    ServiceError,
    Unavailable,
)


def received(error: ServiceError) -> grpc.aio.AioRpcError:
    code, message, trailing = to_grpc(error)
    metadata = grpc.aio.Metadata(*trailing)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, message, "")


def foreign(code: grpc.StatusCode, *trailing: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    empty = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, empty, grpc.aio.Metadata(*trailing), "Jane Example", "")


@pytest.mark.parametrize("kind", ERROR_TYPES)
def test_every_kind_comes_back_whole(kind: type[ServiceError]) -> None:
    sent = kind("QUEUE_EMPTY", "no person is due", queue="unsigned_users", retry_after_seconds=1.5)
    back = from_grpc(received(sent))
    assert type(back) is kind
    assert (back.reason, back.message) == ("QUEUE_EMPTY", "no person is due")
    assert back.metadata == {"queue": "unsigned_users"}
    assert back.retry_after_seconds == 1.5


def test_each_kind_has_its_own_code() -> None:
    assert len({kind.grpc_code_name for kind in ERROR_TYPES}) == len(ERROR_TYPES)
    assert all(kind.grpc_code_name in grpc.StatusCode.__members__ for kind in ERROR_TYPES)


def test_no_wait_asked_for_comes_back_as_none() -> None:
    assert from_grpc(received(NotFound("GONE", "gone"))).retry_after_seconds is None


def test_metadata_may_be_called_like_an_argument_of_ours() -> None:
    sent = NotFound("GONE", "gone")
    sent.metadata["reason"] = "x"
    assert from_grpc(received(sent)).metadata == {"reason": "x"}


@pytest.mark.parametrize("reason", ["lower", "TRAILING_", "1ST", "WITH SPACE", "", "A-B"])
def test_reason_is_upper_snake(reason: str) -> None:
    with pytest.raises(ValueError, match="UPPER_SNAKE"):
        NotFound(reason, "message")


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable, "UPSTREAM_UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, Unavailable, "UPSTREAM_CANCELLED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded, "UPSTREAM_DEADLINE_EXCEEDED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Exhausted, "UPSTREAM_EXHAUSTED"),
        (grpc.StatusCode.UNIMPLEMENTED, Internal, "UPSTREAM_FAILED"),
        (grpc.StatusCode.NOT_FOUND, Internal, "UPSTREAM_FAILED"),
        (grpc.StatusCode.UNKNOWN, Internal, "UPSTREAM_FAILED"),
    ],
)
def test_foreign_status(code: grpc.StatusCode, kind: type[ServiceError], reason: str) -> None:
    error = from_grpc(foreign(code), "queue")
    assert type(error) is kind
    assert error.reason == reason
    assert error.metadata == {"upstream": "queue", "upstream_code": code.name}
    assert "Jane" not in str(error)


def test_details_of_another_domain_are_not_believed() -> None:
    status = Status(code=5, message="Jane Example")
    status.details.add().Pack(ErrorInfo(reason="GONE", domain="elsewhere.example"))
    error = from_grpc(foreign(grpc.StatusCode.NOT_FOUND, (DETAILS_KEY, status.SerializeToString())))
    assert error.reason == "UPSTREAM_FAILED"


@pytest.mark.parametrize("details", [b"\xff\xff\xff", b""])
def test_broken_details_are_not_believed(details: bytes) -> None:
    error = from_grpc(foreign(grpc.StatusCode.NOT_FOUND, (DETAILS_KEY, details)))
    assert error.reason == "UPSTREAM_FAILED"


def test_malformed_reason_in_our_domain_is_not_believed() -> None:
    status = Status(code=5)
    status.details.add().Pack(ErrorInfo(reason="not ours", domain="dialler"))
    error = from_grpc(foreign(grpc.StatusCode.NOT_FOUND, (DETAILS_KEY, status.SerializeToString())))
    assert error.reason == "UPSTREAM_FAILED"


def test_problem() -> None:
    error = Conflict("LEASE_EXPIRED", "the assignment has ended", assignment_id="a1")
    assert problem(error, "/v1/assignments/a1:heartbeat", "f" * 32) == {
        "type": "urn:dialler:problem:lease-expired",
        "title": "Conflict",
        "status": 409,
        "detail": "the assignment has ended",
        "instance": "/v1/assignments/a1:heartbeat",
        "reason": "LEASE_EXPIRED",
        "metadata": {"assignment_id": "a1"},
        "trace_id": "f" * 32,
    }
