"""The local SQS endpoint as a process, and queues on it."""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from devstack.processes import DidNotStart, OwnedProcess, wait_until

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

REGION = "eu-west-2"
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class SqsEndpoint:
    """A running endpoint; it checks no credentials, clients just have to send some."""

    url: str
    region: str = REGION

    def client(self) -> SQSClient:
        """A client of its own; close it."""
        return boto3.client(
            "sqs",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - no secret: the endpoint checks none
        )


@dataclass(frozen=True)
class SqsQueue:
    """A queue whose messages go to its dead-letter queue after `max_receives` receives."""

    endpoint: SqsEndpoint
    client: SQSClient
    url: str
    dlq_url: str

    @classmethod
    def create(
        cls,
        endpoint: SqsEndpoint,
        client: SQSClient,
        name: str | None = None,
        *,
        max_receives: int = 20,
        visibility_timeout_seconds: int = 30,
        is_fifo: bool = False,
    ) -> SqsQueue:
        name = name or f"changes-{uuid.uuid4().hex}"
        end = ".fifo" if is_fifo else ""
        kind: dict[QueueAttributeNameType, str] = {"FifoQueue": "true"} if is_fifo else {}
        dlq_url = client.create_queue(QueueName=f"{name}-dlq{end}", Attributes=kind)["QueueUrl"]
        dlq = client.get_queue_attributes(QueueUrl=dlq_url, AttributeNames=["QueueArn"])
        redrive = {
            "deadLetterTargetArn": dlq["Attributes"]["QueueArn"],
            "maxReceiveCount": max_receives,
        }
        attributes: dict[QueueAttributeNameType, str] = {
            **kind,
            "RedrivePolicy": json.dumps(redrive),
            "VisibilityTimeout": str(visibility_timeout_seconds),
        }
        url = client.create_queue(QueueName=f"{name}{end}", Attributes=attributes)["QueueUrl"]
        return cls(endpoint, client, url, dlq_url)

    @property
    def endpoint_url(self) -> str:
        return self.endpoint.url

    def delete(self) -> None:
        for url in (self.url, self.dlq_url):
            self.client.delete_queue(QueueUrl=url)


@contextmanager
def running_sqs_endpoint(port: int = 0) -> Iterator[SqsEndpoint]:
    """An endpoint of ours in a process of its own; raises `DidNotStart`."""
    with tempfile.TemporaryDirectory(prefix="dialler-") as folder:
        log = Path(folder) / "sqs.log"
        process = OwnedProcess(
            [sys.executable, "-m", "devstack.sqs", "--port", str(port)], log=log, folder=_ROOT
        )
        try:
            wait_until(
                lambda: not process.is_running or _endpoint_url(log) is not None,
                seconds=30,
                what="the SQS endpoint to answer",
            )
            url = _endpoint_url(log)
            if url is None:
                raise DidNotStart(f"the SQS endpoint ended: {log.read_text()[-2000:]}")
            yield SqsEndpoint(url)
        finally:
            process.stop(seconds=5)


def _endpoint_url(log: Path) -> str | None:
    """The address from the line of JSON it prints when it is ready."""
    for line in log.read_text(errors="replace").splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            ready = json.loads(line)
            if isinstance(ready, dict) and isinstance(ready.get("endpoint_url"), str):
                return str(ready["endpoint_url"])
    return None
