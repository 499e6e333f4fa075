"""What the SQS contract suites share: making queues, receiving, naming errors."""

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

DIFFERENCE: Final = "moto_differs"
Case = TypeVar("Case", bound=Callable[..., None])


def wrong_in_moto(difference: str) -> Callable[[Case], Case]:
    """Mark a case that moto answers otherwise than AWS documents."""

    def mark(case: Case) -> Case:
        setattr(case, DIFFERENCE, difference)
        return case

    return mark


class Queues:
    """Creates queues with names of their own."""

    def __init__(self, client: "SQSClient") -> None:
        self._client = client

    def create(self, *, fifo: bool = False, **attributes: str) -> str:
        name = f"contract-{uuid.uuid4().hex}"
        given: dict[Any, str] = dict(attributes)
        if fifo:
            name += ".fifo"
            given["FifoQueue"] = "true"
        return self._client.create_queue(QueueName=name, Attributes=given)["QueueUrl"]

    def arn(self, url: str) -> str:
        return self.attribute(url, "QueueArn")

    def attribute(self, url: str, name: Any) -> str:
        found = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
        return found["Attributes"][name]

    def count(self, url: str, kind: str = "") -> int:
        return int(self.attribute(url, f"ApproximateNumberOfMessages{kind}"))

    def with_dead_letters(self, max_receives: int) -> tuple[str, str]:
        dead = self.create()
        policy = {"deadLetterTargetArn": self.arn(dead), "maxReceiveCount": max_receives}
        return self.create(RedrivePolicy=json.dumps(policy)), dead


def receive(sqs: "SQSClient", url: str, **options: Any) -> "list[MessageTypeDef]":
    options = {"WaitTimeSeconds": 0, **options}
    return sqs.receive_message(QueueUrl=url, **options).get("Messages", [])


def receive_one(sqs: "SQSClient", url: str, **options: Any) -> "MessageTypeDef":
    """Wait for a message; fail when none comes in five seconds."""
    found = receive(sqs, url, **{"WaitTimeSeconds": 5, **options})
    assert len(found) == 1
    return found[0]


def error_code(act: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        act()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return caught.value.response["Error"]["Code"]


def receive_and_delete(sqs: "SQSClient", url: str) -> None:
    handle = receive_one(sqs, url)["ReceiptHandle"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
