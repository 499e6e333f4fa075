"""What SQS promises of queues and their attributes, asked of both endpoints.

Where moto is known to differ from AWS a case is skipped for moto alone, with the difference named.
"""

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.sqs_cases import Queues, error_code, receive, wrong_in_moto

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class TestQueues:
    def test_creating_twice_returns_the_same_url(self, sqs: "SQSClient") -> None:
        name = f"contract-{uuid.uuid4().hex}"
        first = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "7"})
        again = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "7"})
        assert first["QueueUrl"] == again["QueueUrl"]
        assert sqs.get_queue_url(QueueName=name)["QueueUrl"] == first["QueueUrl"]

    def test_creating_with_other_attributes_is_refused(self, sqs: "SQSClient") -> None:
        name = f"contract-{uuid.uuid4().hex}"
        sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "7"})
        with pytest.raises(sqs.exceptions.QueueNameExists):
            sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "8"})

    def test_listing_by_prefix_in_pages(self, sqs: "SQSClient") -> None:
        prefix = f"contract-{uuid.uuid4().hex}"
        urls = {sqs.create_queue(QueueName=f"{prefix}-{n}")["QueueUrl"] for n in range(5)}
        pages = sqs.get_paginator("list_queues").paginate(
            QueueNamePrefix=prefix, PaginationConfig={"PageSize": 2}
        )
        listed = [url for page in pages for url in page.get("QueueUrls", [])]
        assert set(listed) == urls
        assert len(listed) == 5

    def test_an_unknown_queue_is_a_modelled_error(self, sqs: "SQSClient") -> None:
        with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
            sqs.get_queue_url(QueueName="contract-no-such-queue")
        assert caught.value.response["Error"]["Code"] == ("AWS.SimpleQueueService.NonExistentQueue")

    def test_a_deleted_queue_does_not_exist(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sqs.delete_queue(QueueUrl=url)
        with pytest.raises(sqs.exceptions.QueueDoesNotExist):
            sqs.send_message(QueueUrl=url, MessageBody="late")

    def test_attributes_have_defaults_and_change(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert found["VisibilityTimeout"] == "30"
        assert found["DelaySeconds"] == "0"
        assert found["MessageRetentionPeriod"] == "345600"
        assert found["QueueArn"].startswith("arn:aws:sqs:eu-west-2:")
        assert abs(float(found["CreatedTimestamp"]) - time.time()) < 60
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "99"})
        assert queues.attribute(url, "VisibilityTimeout") == "99"

    def test_an_unknown_attribute_name_is_refused(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        names: list[Any] = ["NoSuchAttribute"]
        with pytest.raises(sqs.exceptions.InvalidAttributeName):
            sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)

    @wrong_in_moto("it takes any number as VisibilityTimeout")
    def test_an_attribute_out_of_range_is_refused(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        with pytest.raises(sqs.exceptions.InvalidAttributeValue):
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "43201"})

    def test_a_dead_letter_target_must_exist(self, sqs: "SQSClient", queues: Queues) -> None:
        arn = queues.arn(queues.create()) + "-missing"
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
        code = error_code(lambda: queues.create(RedrivePolicy=policy))
        assert code in {"InvalidParameterValue", "AWS.SimpleQueueService.NonExistentQueue"}

    def test_purging_forgets_ready_and_in_flight(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create(VisibilityTimeout="0")
        for number in range(3):
            sqs.send_message(QueueUrl=url, MessageBody=str(number))
        receive(sqs, url, VisibilityTimeout=30)
        sqs.purge_queue(QueueUrl=url)
        assert queues.count(url) == 0
        assert queues.count(url, "NotVisible") == 0
        assert receive(sqs, url) == []

    def test_tags_are_kept(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sqs.tag_queue(QueueUrl=url, Tags={"team": "desk", "stage": "dev"})
        sqs.untag_queue(QueueUrl=url, TagKeys=["stage"])
        assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"team": "desk"}
