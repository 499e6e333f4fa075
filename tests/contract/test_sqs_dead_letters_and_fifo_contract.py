"""What SQS promises of dead letters, move tasks and FIFO queues, asked of both endpoints.

Where moto is known to differ from AWS a case is skipped for moto alone, with the difference named.
"""

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.sqs_cases import (
    Queues,
    error_code,
    receive,
    receive_and_delete,
    receive_one,
    wrong_in_moto,
)

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class TestDeadLetters:
    def test_a_message_received_too_often_is_buried(self, sqs: "SQSClient", queues: Queues) -> None:
        url, dead = queues.with_dead_letters(max_receives=2)
        sent = sqs.send_message(
            QueueUrl=url,
            MessageBody="poison",
            MessageAttributes={"a": {"DataType": "String", "StringValue": "v"}},
        )
        receive_one(sqs, url, VisibilityTimeout=0)
        last = receive_one(sqs, url, VisibilityTimeout=0, AttributeNames=["All"])
        assert receive(sqs, url) == []
        buried = receive_one(sqs, dead, AttributeNames=["All"], MessageAttributeNames=["All"])
        assert buried["MessageId"] == sent["MessageId"]
        assert buried["Body"] == "poison"
        assert buried["MessageAttributes"]["a"]["StringValue"] == "v"
        assert buried["Attributes"]["SentTimestamp"] == last["Attributes"]["SentTimestamp"]
        assert queues.count(url) == 0

    @wrong_in_moto("it does not report DeadLetterQueueSourceArn")
    def test_a_buried_message_names_its_source(self, sqs: "SQSClient", queues: Queues) -> None:
        url, dead = queues.with_dead_letters(max_receives=1)
        sqs.send_message(QueueUrl=url, MessageBody="poison")
        receive_one(sqs, url, VisibilityTimeout=0)
        assert receive(sqs, url) == []
        buried = receive_one(sqs, dead, AttributeNames=["All"])["Attributes"]
        assert buried["DeadLetterQueueSourceArn"] == queues.arn(url)
        assert buried["ApproximateReceiveCount"] == "2"

    def test_sources_are_listed(self, sqs: "SQSClient", queues: Queues) -> None:
        url, dead = queues.with_dead_letters(max_receives=1)
        assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]

    @wrong_in_moto("move tasks are not implemented")
    def test_a_move_task_gives_messages_back(self, sqs: "SQSClient", queues: Queues) -> None:
        url, dead = queues.with_dead_letters(max_receives=1)
        for number in range(25):
            sqs.send_message(QueueUrl=url, MessageBody=str(number))
        while receive(sqs, url, MaxNumberOfMessages=10, VisibilityTimeout=0):
            pass
        assert queues.count(dead) == 25
        sqs.start_message_move_task(SourceArn=queues.arn(dead))
        returned = [
            receive_one(sqs, url, AttributeNames=["ApproximateReceiveCount"]) for _ in range(25)
        ]
        assert sorted(int(message["Body"]) for message in returned) == list(range(25))
        assert {m["Attributes"]["ApproximateReceiveCount"] for m in returned} == {"1"}
        [task] = sqs.list_message_move_tasks(SourceArn=queues.arn(dead))["Results"]
        assert task["Status"] == "COMPLETED"
        assert task["ApproximateNumberOfMessagesMoved"] == 25

    @wrong_in_moto("move tasks are not implemented")
    def test_only_a_dead_letter_queue_can_be_moved(self, sqs: "SQSClient", queues: Queues) -> None:
        arn = queues.arn(queues.create())
        assert (
            error_code(lambda: sqs.start_message_move_task(SourceArn=arn))
            == "InvalidParameterValue"
        )
        with pytest.raises(sqs.exceptions.ResourceNotFoundException):
            sqs.start_message_move_task(SourceArn=arn + "-missing")


class TestFifo:
    def send(self, sqs: "SQSClient", url: str, group: str, body: str, key: str = "") -> Any:
        return sqs.send_message(
            QueueUrl=url,
            MessageBody=body,
            MessageGroupId=group,
            MessageDeduplicationId=key or uuid.uuid4().hex,
        )

    def test_a_group_keeps_its_order(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create(fifo=True)
        numbers = [
            int(self.send(sqs, url, "g", str(number))["SequenceNumber"]) for number in range(15)
        ]
        assert len(set(numbers)) == 15
        first = receive(sqs, url, MaxNumberOfMessages=10)
        assert [message["Body"] for message in first] == [str(n) for n in range(10)]

    @wrong_in_moto("sequence numbers are random digits")
    def test_sequence_numbers_rise(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create(fifo=True)
        numbers = [int(self.send(sqs, url, "g", "x")["SequenceNumber"]) for _ in range(5)]
        assert numbers == sorted(numbers)

    def test_a_group_in_flight_is_locked_and_others_are_not(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create(fifo=True)
        self.send(sqs, url, "a", "a1")
        self.send(sqs, url, "a", "a2")
        self.send(sqs, url, "b", "b1")
        first = receive_one(sqs, url)
        assert first["Body"] == "a1"
        others = receive(sqs, url, MaxNumberOfMessages=10, AttributeNames=["MessageGroupId"])
        assert [message["Body"] for message in others] == ["b1"]
        assert others[0]["Attributes"] == {"MessageGroupId": "b"}
        sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
        assert receive_one(sqs, url)["Body"] == "a2"

    def test_a_failed_message_comes_before_the_rest_of_its_group(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create(fifo=True)
        for number in range(3):
            self.send(sqs, url, "g", str(number))
        handle = receive_one(sqs, url)["ReceiptHandle"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
        again = receive(sqs, url, MaxNumberOfMessages=10)
        assert [message["Body"] for message in again] == ["0", "1", "2"]

    @wrong_in_moto("a repeat is taken once the first has been deleted")
    def test_a_repeat_within_five_minutes_is_dropped(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create(fifo=True)
        self.send(sqs, url, "g", "one", key="same")
        receive_and_delete(sqs, url)
        self.send(sqs, url, "g", "two", key="same")
        assert receive(sqs, url) == []

    def test_equal_bodies_are_repeats_when_the_queue_says_so(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create(fifo=True, ContentBasedDeduplication="true")
        for body in ("same", "same", "other"):
            sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId="g")
        found = receive(sqs, url, MaxNumberOfMessages=10)
        assert [message["Body"] for message in found] == ["same", "other"]

    @wrong_in_moto("the repeat is answered with a message id of its own")
    def test_a_repeat_is_answered_with_the_first_ones_id(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create(fifo=True)
        first = self.send(sqs, url, "g", "one", key="same")
        again = self.send(sqs, url, "g", "one", key="same")
        assert again["MessageId"] == first["MessageId"]
        assert again["SequenceNumber"] == first["SequenceNumber"]

    def test_group_and_deduplication_ids_are_required(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create(fifo=True)
        code = error_code(lambda: sqs.send_message(QueueUrl=url, MessageBody="x"))
        assert code == "MissingParameter"
        code = error_code(
            lambda: sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="g")
        )
        assert code == "InvalidParameterValue"
