"""The envelopes that services put around change records, or around one another.

Described in the Lambda developer guide under "Using Lambda with Amazon MSK", "Retain discarded
batch records" and "Capturing records of asynchronous invocations", in the EventBridge user guide
under "Pipes error handling", in the Firehose developer guide under "Handle data delivery
failures", in the CloudEvents specification 1.0, its JSON format, and in Debezium's documentation
under "Emitting change event records in CloudEvents format".
"""

from collections.abc import Mapping
from typing import Final

from services.cdc_ingest.domain.formats.decoder import EnclosedText, EnclosedValue, Part, enclosed
from services.cdc_ingest.domain.formats.fields import mapping, opened, text
from services.cdc_ingest.domain.formats.records import Ignored, Kind, LostTrack, UnreadableError

_LISTS: Final = ("Records", "Messages", "records")
_SNS_TYPES: Final = ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation")
# What Debezium's extension attributes are called in the source block of a plain event.
_CLOUD_EVENT_SOURCE: Final = {
    "table": "table",
    "db": "db",
    "tsms": "ts_ms",
    "snapshot": "snapshot",
    "gtid": "gtid",
    "file": "file",
    "pos": "pos",
    "row": "row",
    "serverid": "server_id",
}
_DEBEZIUM_PREFIX: Final = "iodebezium"


class AwsEventDecoder:
    """Decodes the list of records that AWS services hand to Lambda, of any kind of record.

    SQS itself answers a receive with a list of `Messages`, whose fields begin with capitals.
    Firehose hands over `records`, and Kafka the same by topic and partition.
    """

    name = "aws_event"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is such a list."""
        return isinstance(document, dict) and any(
            _listed(document.get(name)) is not None for name in _LISTS
        )

    def decode(self, document: object) -> tuple[Part, ...]:
        """Return the records."""
        found = mapping(document)
        lists = (_listed(found.get(name)) or [] for name in _LISTS)
        return tuple(EnclosedValue(record) for records in lists for record in records)


def _listed(value: object) -> list[object] | None:
    """Return the records of a list, or of the lists in an object; None for anything else."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        return [record for records in value.values() for record in records]
    return None


class SqsRecordDecoder:
    """Decodes an SQS message inside such a list."""

    name = "sqs"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is an SQS message."""
        if not isinstance(document, dict):
            return False
        if document.get("eventSource") == "aws:sqs" and "body" in document:
            return True
        return {"MessageId", "ReceiptHandle", "Body"} <= document.keys()

    def decode(self, document: object) -> tuple[Part]:
        """Return the body.

        Raises:
            UnreadableError: the body is not text.
        """
        found = mapping(document)
        body = found.get("body", found.get("Body"))
        if not isinstance(body, str):
            raise UnreadableError("SQS_BODY_NOT_TEXT")
        return (EnclosedText(body),)


class SnsDecoder:
    """Decodes a notification of SNS without raw delivery, which Lambda has under `Sns`."""

    name = "sns"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is a notification, or a message about a subscription."""
        found = _notification(document)
        return found.get("Type") in _SNS_TYPES and "TopicArn" in found and "Message" in found

    def decode(self, document: object) -> tuple[Part]:
        """Return the message in a notification.

        Raises:
            UnreadableError: the message is not text.
        """
        found = _notification(document)
        if found.get("Type") != "Notification":
            return (Ignored(Kind.CONTROL, self.name),)
        message = found.get("Message")
        if not isinstance(message, str):
            raise UnreadableError("SNS_MESSAGE_NOT_TEXT")
        return (EnclosedText(message),)


def _notification(document: object) -> Mapping[str, object]:
    found = mapping(document)
    return mapping(found.get("Sns")) or found


class KinesisDecoder:
    """Decodes a Kinesis record as an EventBridge Pipe puts it into SQS, or as Lambda gets it.

    A pipe writes the fields of the record flat; Lambda has them under `kinesis`. The data is
    base64; a pipe with an input transformer may have decoded it already. Kinesis itself answers
    with fields that begin with capitals, and Firehose's records have an id.
    """

    name = "kinesis"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is such a record."""
        if not isinstance(document, dict):
            return False
        if isinstance(document.get("kinesis"), dict):
            return True
        is_from_kinesis = document.get("eventSource") == "aws:kinesis"
        if "data" in document:
            return is_from_kinesis or "kinesisSchemaVersion" in document or "recordId" in document
        return {"Data", "SequenceNumber", "PartitionKey"} <= document.keys()

    def decode(self, document: object) -> tuple[Part]:
        """Return the data of the record; a record without data is the tombstone of a key.

        Raises:
            UnreadableError: the data is a number or a boolean.
        """
        found = mapping(document)
        nested = found.get("kinesis")
        record = nested if isinstance(nested, dict) else found
        data = record.get("data", record.get("Data"))
        if data is None:
            return (Ignored(Kind.TOMBSTONE, self.name),)
        return (enclosed(data, "KINESIS_DATA_NOT_TEXT"),)


class KafkaDecoder:
    """Decodes a Kafka record as a pipe or Lambda gets it: key and value are base64."""

    name = "kafka"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is such a record."""
        return isinstance(document, dict) and {"topic", "partition", "offset"} <= document.keys()

    def decode(self, document: object) -> tuple[Part]:
        """Return the value of the record; a record without a value is the tombstone of a key.

        Raises:
            UnreadableError: the value is a number or a boolean.
        """
        value = mapping(document).get("value")
        if value is None:
            return (Ignored(Kind.TOMBSTONE, self.name),)
        return (enclosed(value, "KAFKA_VALUE_NOT_TEXT"),)


class EventBusDecoder:
    """Decodes any event of an EventBridge bus; those of S3 and DMS have decoders of their own."""

    name = "event_bus"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` has the fields of every event on a bus."""
        return isinstance(document, dict) and {"detail-type", "detail"} <= document.keys()

    def decode(self, document: object) -> tuple[Part]:
        """Return the detail; an event of an AWS service concerns no user.

        Raises:
            UnreadableError: the detail is neither text, an object nor a list.
        """
        event = mapping(document)
        source = text(event.get("source"))
        # No other sender may use a source that begins so.
        if source.startswith("aws.") and not source.startswith("aws.partner/"):
            return (Ignored(Kind.CONTROL, self.name),)
        return (enclosed(event.get("detail"), "EVENT_DETAIL_UNKNOWN"),)


class CloudEventDecoder:
    """Decodes a CloudEvent in the structured mode: Debezium's, or one with data of any format."""

    name = "cloud_event"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` has the attributes of every CloudEvent."""
        return isinstance(document, dict) and {"specversion", "type", "source"} <= document.keys()

    def decode(self, document: object) -> tuple[Part]:
        """Return the data; for Debezium's a plain event, made of data and attributes.

        Raises:
            UnreadableError: the data is neither text, an object nor a list.
        """
        event = mapping(document)
        data = opened(event.get("data"))
        if data is None:
            data = event.get("data_base64")
        if data is None:
            return (Ignored(Kind.TOMBSTONE, self.name),)
        if not isinstance(data, dict) or f"{_DEBEZIUM_PREFIX}op" not in event:
            return (enclosed(data, "CLOUD_EVENT_DATA_UNKNOWN"),)
        # The data may have the schema wrapper, as in plain events.
        sides = opened(data["payload"]) if "payload" in data else data
        source = {
            name: event.get(_DEBEZIUM_PREFIX + attribute)
            for attribute, name in _CLOUD_EVENT_SOURCE.items()
        }
        payload: object = {
            **mapping(sides),
            "op": text(event.get(f"{_DEBEZIUM_PREFIX}op")),
            "source": {name: value for name, value in source.items() if value is not None},
        }
        if "schema" in data:
            payload = {"schema": data["schema"], "payload": payload}
        return (EnclosedValue(payload),)


class FailedBatchDecoder:
    """Decodes what Lambda, a pipe or Firehose sends to a failure destination.

    Most such records only say where the batch stood in its stream.
    """

    name = "failed_batch"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is such a record."""
        if not isinstance(document, dict):
            return False
        if {"rawData", "errorCode"} <= document.keys() or any(
            name.endswith("BatchInfo") and isinstance(document[name], dict) for name in document
        ):
            return True
        return any(
            "condition" in mapping(document.get(name)) for name in ("requestContext", "context")
        )

    def decode(self, document: object) -> tuple[Part]:
        """Return the content that failed where the record has it, else the loss of track."""
        found = mapping(document)
        # Of an asynchronous invocation, of a batch kept in S3, of Firehose.
        for name in ("requestPayload", "payload", "rawData"):
            content = found.get(name)
            if isinstance(content, dict | list) or (isinstance(content, str) and content):
                return (enclosed(content, "FAILED_BATCH_CONTENT_UNKNOWN"),)
        return (LostTrack("", "batch-given-up", self.name),)
