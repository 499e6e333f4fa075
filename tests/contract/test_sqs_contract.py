"""What SQS promises, asked of our in-memory endpoint and of moto alike.

Where moto is known to differ from AWS a case is skipped for moto alone, with the difference named.
"""

import hashlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.sqs_cases import Queues, error_code, receive, receive_one, wrong_in_moto

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class TestSending:
    def test_digests_and_ids_come_back(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sent = sqs.send_message(QueueUrl=url, MessageBody="Grüße ✓")
        assert sent["MD5OfMessageBody"] == hashlib.md5("Grüße ✓".encode()).hexdigest()  # noqa: S324
        message = receive_one(sqs, url)
        assert message["MessageId"] == sent["MessageId"]
        assert message["Body"] == "Grüße ✓"
        assert message["MD5OfBody"] == sent["MD5OfMessageBody"]
        assert "Attributes" not in message
        assert "MessageAttributes" not in message

    def test_attribute_digest_matches_the_documented_one(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        sent = sqs.send_message(
            QueueUrl=url,
            MessageBody="x",
            MessageAttributes={
                "count": {"DataType": "Number", "StringValue": "12.5"},
                "blob": {"DataType": "Binary", "BinaryValue": b"\x00\xff\x10"},
                "name": {"DataType": "String.kind", "StringValue": "véhicule"},
            },
        )
        # Computed by hand from the encoding in the SQS developer guide.
        encoded = b"".join(
            len(name).to_bytes(4, "big")
            + name
            + len(kind).to_bytes(4, "big")
            + kind
            + transport
            + len(value).to_bytes(4, "big")
            + value
            for name, kind, transport, value in (
                (b"blob", b"Binary", b"\x02", b"\x00\xff\x10"),
                (b"count", b"Number", b"\x01", b"12.5"),
                (b"name", b"String.kind", b"\x01", "véhicule".encode()),
            )
        )
        assert sent["MD5OfMessageAttributes"] == hashlib.md5(encoded).hexdigest()  # noqa: S324
        message = receive_one(sqs, url, MessageAttributeNames=["All"])
        assert message["MessageAttributes"]["blob"]["BinaryValue"] == b"\x00\xff\x10"
        assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (["trace.*"], {"trace.id", "trace.flags"}),
            ([".*"], {"trace.id", "trace.flags", "source"}),
            (["All"], {"trace.id", "trace.flags", "source"}),
            (["source", "absent"], {"source"}),
            ([], set()),
        ],
    )
    def test_attributes_are_returned_as_asked(
        self, sqs: "SQSClient", queues: Queues, wanted: list[str], expected: set[str]
    ) -> None:
        url = queues.create()
        names = ("trace.id", "trace.flags", "source")
        sqs.send_message(
            QueueUrl=url,
            MessageBody="x",
            MessageAttributes={n: {"DataType": "String", "StringValue": n} for n in names},
        )
        message = receive_one(sqs, url, MessageAttributeNames=wanted)
        assert set(message.get("MessageAttributes", {})) == expected

    def test_trace_header_travels_as_system_attribute(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        header = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
        sqs.send_message(
            QueueUrl=url,
            MessageBody="x",
            MessageSystemAttributes={
                "AWSTraceHeader": {"DataType": "String", "StringValue": header}
            },
        )
        message = receive_one(sqs, url, MessageSystemAttributeNames=["AWSTraceHeader"])
        assert message["Attributes"] == {"AWSTraceHeader": header}

    @wrong_in_moto("it stores empty bodies")
    def test_an_empty_body_is_refused(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        assert (
            error_code(lambda: sqs.send_message(QueueUrl=url, MessageBody="")) == "MissingParameter"
        )

    def test_a_body_of_one_mebibyte_is_taken_and_one_more_byte_is_not(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x" * 1_048_576)
        code = error_code(lambda: sqs.send_message(QueueUrl=url, MessageBody="x" * 1_048_577))
        assert code == "InvalidParameterValue"

    @wrong_in_moto("it counts characters of the body, not bytes, and no attributes")
    def test_size_counts_bytes_and_attributes(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create(MaximumMessageSize="1024")
        attributes: Any = {"a": {"DataType": "String", "StringValue": "v" * 100}}
        sqs.send_message(QueueUrl=url, MessageBody="é" * 450, MessageAttributes=attributes)
        code = error_code(
            lambda: sqs.send_message(
                QueueUrl=url, MessageBody="é" * 460, MessageAttributes=attributes
            )
        )
        assert code == "InvalidParameterValue"

    @wrong_in_moto("it stores characters AWS refuses")
    def test_control_characters_are_refused(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        with pytest.raises(sqs.exceptions.InvalidMessageContents):
            sqs.send_message(QueueUrl=url, MessageBody="bell \x07")

    @wrong_in_moto("it stores empty attribute values")
    def test_an_attribute_needs_a_value(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        given: Any = {"a": {"DataType": "String", "StringValue": ""}}
        code = error_code(
            lambda: sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=given)
        )
        assert code == "InvalidParameterValue"

    def test_an_attribute_needs_a_known_type(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        given: Any = {"a": {"DataType": "Colour", "StringValue": "red"}}
        code = error_code(
            lambda: sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=given)
        )
        assert code == "InvalidParameterValue"

    def test_a_delayed_message_stays_away_until_its_time(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        sent_at = time.monotonic()
        sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=1)
        assert receive(sqs, url) == []
        assert queues.count(url, "Delayed") == 1
        receive_one(sqs, url)
        assert time.monotonic() - sent_at >= 0.9


class TestBatches:
    def test_entries_fail_one_by_one(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        answer = sqs.send_message_batch(
            QueueUrl=url,
            Entries=[
                {"Id": "good", "MessageBody": "1"},
                {"Id": "bad", "MessageBody": "2", "DelaySeconds": 901},
                {"Id": "fine", "MessageBody": "3"},
            ],
        )
        assert {entry["Id"] for entry in answer["Successful"]} == {"good", "fine"}
        [failed] = answer["Failed"]
        assert failed["Id"] == "bad"
        assert failed["SenderFault"] is True
        assert failed["Code"] == "InvalidParameterValue"
        assert queues.count(url) == 2

    @wrong_in_moto("one oversized entry fails the whole batch")
    def test_an_oversized_entry_fails_alone(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create(MaximumMessageSize="1024")
        answer = sqs.send_message_batch(
            QueueUrl=url,
            Entries=[
                {"Id": "small", "MessageBody": "1"},
                {"Id": "large", "MessageBody": "x" * 1025},
            ],
        )
        assert [entry["Id"] for entry in answer["Successful"]] == ["small"]
        assert [entry["Id"] for entry in answer["Failed"]] == ["large"]

    def test_the_whole_batch_is_bounded(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        entries: Any = [{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)]
        with pytest.raises(sqs.exceptions.BatchRequestTooLong):
            sqs.send_message_batch(QueueUrl=url, Entries=entries)
        assert queues.count(url) == 0

    def test_ids_are_distinct_and_well_formed(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        with pytest.raises(sqs.exceptions.BatchEntryIdsNotDistinct):
            sqs.send_message_batch(
                QueueUrl=url,
                Entries=[{"Id": "a", "MessageBody": "1"}, {"Id": "a", "MessageBody": "2"}],
            )
        with pytest.raises(sqs.exceptions.InvalidBatchEntryId):
            sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "a b", "MessageBody": "1"}])

    def test_ten_entries_at_most_and_one_at_least(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        entries: Any = [{"Id": str(n), "MessageBody": "x"} for n in range(11)]
        with pytest.raises(sqs.exceptions.TooManyEntriesInBatchRequest):
            sqs.send_message_batch(QueueUrl=url, Entries=entries)
        with pytest.raises(sqs.exceptions.EmptyBatchRequest):
            sqs.send_message_batch(QueueUrl=url, Entries=[])
        with pytest.raises(sqs.exceptions.EmptyBatchRequest):
            sqs.delete_message_batch(QueueUrl=url, Entries=[])

    def test_delete_batch_reports_each_entry(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        handle = receive_one(sqs, url)["ReceiptHandle"]
        answer = sqs.delete_message_batch(
            QueueUrl=url,
            Entries=[
                {"Id": "real", "ReceiptHandle": handle},
                {"Id": "forged", "ReceiptHandle": "not-a-handle"},
            ],
        )
        assert [entry["Id"] for entry in answer["Successful"]] == ["real"]
        [failed] = answer["Failed"]
        assert failed["Code"] == "ReceiptHandleIsInvalid"
        assert failed["SenderFault"] is True


class TestReceiving:
    def test_counts_and_times_of_receives(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        first = receive_one(sqs, url, VisibilityTimeout=0, MessageSystemAttributeNames=["All"])[
            "Attributes"
        ]
        second = receive_one(sqs, url, AttributeNames=["All"])["Attributes"]
        assert first["ApproximateReceiveCount"] == "1"
        assert second["ApproximateReceiveCount"] == "2"
        assert first["SentTimestamp"] == second["SentTimestamp"]
        assert (
            first["ApproximateFirstReceiveTimestamp"] == second["ApproximateFirstReceiveTimestamp"]
        )
        assert abs(int(first["SentTimestamp"]) / 1000 - time.time()) < 60

    def test_a_received_message_is_invisible_until_its_timeout(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        receive_one(sqs, url, VisibilityTimeout=1)
        assert receive(sqs, url) == []
        assert queues.count(url, "NotVisible") == 1
        assert receive_one(sqs, url)["Body"] == "x"

    def test_ten_at_most(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        for part in range(2):
            sqs.send_message_batch(
                QueueUrl=url,
                Entries=[{"Id": str(n), "MessageBody": f"{part}-{n}"} for n in range(10)],
            )
        assert len(receive(sqs, url, MaxNumberOfMessages=10)) == 10
        code = error_code(lambda: receive(sqs, url, MaxNumberOfMessages=11))
        assert code == "InvalidParameterValue"

    def test_waiting_longer_than_twenty_seconds_is_refused(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        code = error_code(lambda: receive(sqs, url, WaitTimeSeconds=21))
        assert code == "InvalidParameterValue"

    def test_an_empty_poll_waits_its_time(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        started = time.monotonic()
        assert receive(sqs, url, WaitTimeSeconds=1) == []
        assert 0.9 < time.monotonic() - started < 3

    def test_a_poll_returns_as_soon_as_a_message_comes(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        found: list[tuple[float, str]] = []

        def poll() -> None:
            message = receive_one(sqs, url, WaitTimeSeconds=10)
            found.append((time.monotonic(), message["Body"]))

        thread = threading.Thread(target=poll)
        thread.start()
        sent_at = time.monotonic()
        sqs.send_message(QueueUrl=url, MessageBody="now")
        thread.join(10)
        [(arrived_at, body)] = found
        assert body == "now"
        assert arrived_at - sent_at < 2

    @wrong_in_moto("its threads hand one message to two pollers now and then")
    def test_pollers_share_messages_without_doubles(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        bodies: list[str] = []

        def poll() -> None:
            while found := receive(sqs, url, WaitTimeSeconds=1, MaxNumberOfMessages=3):
                bodies.extend(message["Body"] for message in found)

        threads = [threading.Thread(target=poll) for _ in range(6)]
        for thread in threads:
            thread.start()
        for part in range(6):
            sqs.send_message_batch(
                QueueUrl=url,
                Entries=[{"Id": str(n), "MessageBody": f"{part}-{n}"} for n in range(10)],
            )
        for thread in threads:
            thread.join(20)
        assert sorted(bodies) == sorted(f"{p}-{n}" for p in range(6) for n in range(10))


class TestReceipts:
    def test_a_deleted_message_does_not_return(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        handle = receive_one(sqs, url, VisibilityTimeout=1)["ReceiptHandle"]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
        assert receive(sqs, url, WaitTimeSeconds=2) == []

    @wrong_in_moto("an old receipt handle still deletes")
    def test_an_old_handle_succeeds_without_deleting(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        old = receive_one(sqs, url, VisibilityTimeout=0)["ReceiptHandle"]
        new = receive_one(sqs, url, VisibilityTimeout=0)["ReceiptHandle"]
        assert old != new
        sqs.delete_message(QueueUrl=url, ReceiptHandle=old)
        again = receive_one(sqs, url, VisibilityTimeout=0)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
        assert receive(sqs, url) == []

    def test_a_handle_never_issued_is_invalid(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        with pytest.raises(sqs.exceptions.ReceiptHandleIsInvalid):
            sqs.delete_message(QueueUrl=url, ReceiptHandle="not-a-handle")
        with pytest.raises(sqs.exceptions.ReceiptHandleIsInvalid):
            sqs.change_message_visibility(
                QueueUrl=url, ReceiptHandle="not-a-handle", VisibilityTimeout=1
            )

    def test_visibility_is_shortened_to_nothing(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        handle = receive_one(sqs, url)["ReceiptHandle"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
        assert receive_one(sqs, url)["Body"] == "x"

    def test_visibility_is_extended(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        handle = receive_one(sqs, url, VisibilityTimeout=1)["ReceiptHandle"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=30)
        assert receive(sqs, url, WaitTimeSeconds=2) == []

    def test_an_extension_is_not_remembered_at_the_next_receive(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create(VisibilityTimeout="1")
        sqs.send_message(QueueUrl=url, MessageBody="x")
        handle = receive_one(sqs, url)["ReceiptHandle"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=60)
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
        receive_one(sqs, url)
        assert receive_one(sqs, url)["Body"] == "x"

    def test_visibility_of_a_deleted_message_cannot_change(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        handle = receive_one(sqs, url)["ReceiptHandle"]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
        code = error_code(
            lambda: sqs.change_message_visibility(
                QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=1
            )
        )
        assert code in {"InvalidParameterValue", "ReceiptHandleIsInvalid"}

    def test_visibility_beyond_twelve_hours_is_refused(
        self, sqs: "SQSClient", queues: Queues
    ) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        handle = receive_one(sqs, url)["ReceiptHandle"]
        code = error_code(
            lambda: sqs.change_message_visibility(
                QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=43_201
            )
        )
        assert code == "InvalidParameterValue"

    def test_visibility_batch_reports_each_entry(self, sqs: "SQSClient", queues: Queues) -> None:
        url = queues.create()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        handle = receive_one(sqs, url)["ReceiptHandle"]
        answer = sqs.change_message_visibility_batch(
            QueueUrl=url,
            Entries=[
                {"Id": "real", "ReceiptHandle": handle, "VisibilityTimeout": 0},
                {"Id": "forged", "ReceiptHandle": "not-a-handle", "VisibilityTimeout": 0},
            ],
        )
        assert [entry["Id"] for entry in answer["Successful"]] == ["real"]
        assert [entry["Id"] for entry in answer["Failed"]] == ["forged"]
        assert receive_one(sqs, url)["Body"] == "x"


@wrong_in_moto("each receive costs time in proportion to the backlog")
def test_receiving_does_not_slow_down_behind_a_backlog(sqs: "SQSClient", queues: Queues) -> None:
    def seconds_for_300(url: str) -> float:
        started = time.perf_counter()
        for _ in range(30):
            found = receive(sqs, url, MaxNumberOfMessages=10)
            assert len(found) == 10
            sqs.delete_message_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]}
                    for n, message in enumerate(found)
                ],
            )
        return time.perf_counter() - started

    small, large = queues.create(), queues.create()
    for url, batches in ((small, 30), (large, 600)):
        for _ in range(batches):
            sqs.send_message_batch(
                QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": "x"} for n in range(10)]
            )
    baseline = seconds_for_300(small)
    assert seconds_for_300(large) < 5 * baseline
