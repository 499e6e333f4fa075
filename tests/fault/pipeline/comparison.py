"""Waiting until MySQL and the dialler agree."""

from __future__ import annotations

import contextlib

import grpc

from devstack.comparison import differences
from devstack.queues import SqsEndpoint
from devstack.stack import DIALLER, Stack, wait_until


def await_agreement(stack: Stack, *, dead_letters: int = 0, seconds: float = 45) -> None:
    """Wait until no change is under way and both sides agree.

    No full reconciliation may have helped: it repairs what the changes themselves did not.
    """
    wrong: list[str] = []

    def agrees() -> bool:
        try:
            wrong[:] = differences(stack)
        except grpc.RpcError as error:
            wrong[:] = [f"user_context answers {error.code()}"]
        return not wrong

    try:
        wait_until(agrees, seconds, "agreement")
        wait_until(lambda: _messages(stack, stack.addresses.sqs_queue) == 0, seconds, "the queue")
    except TimeoutError as error:
        raise AssertionError(f"{error}; {len(wrong)} differences: {wrong[:5]}") from error
    assert _messages(stack, stack.addresses.sqs_dlq) == dead_letters


def runs(stack: Stack) -> int:
    """How many full reconciliations there have been."""
    return int(stack.postgres.execute("SELECT count(*) FROM reconciler.runs", database=DIALLER))


def _messages(stack: Stack, url: str) -> int:
    with contextlib.closing(SqsEndpoint(stack.addresses.sqs_endpoint).client()) as client:
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return sum(
        int(value)
        for name, value in answer["Attributes"].items()
        if name in ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    )
