"""Message bodies, and what the ingest decodes from them."""

import base64
import json
from typing import Any

from mainapp import description
from servicekit.clock import SystemClock
from services.cdc_ingest.domain.messages import Arrival, Message
from services.cdc_ingest.domain.people import Demand, PersonMap
from services.cdc_ingest.sqs.message_reader import read_message

PEOPLE = PersonMap(description.load())


def message(body: str) -> Message:
    """A message just received."""
    return Message("m", "r", body, 1, SystemClock().now())


def arrival(body: object) -> Arrival:
    """The content of a body; a value that is not text is written as JSON."""
    return read_message(message(body if isinstance(body, str) else json.dumps(body)), PEOPLE)


def demand(body: object) -> Demand:
    """The demand of a body."""
    return arrival(body).demand


def dms(
    table: str = "users",
    operation: str = "update",
    data: object = None,
    before: object = None,
    **metadata: object,
) -> dict[str, Any]:
    """A DMS data record."""
    made: dict[str, Any] = {
        "data": data,
        "metadata": {
            "record-type": "data",
            "operation": operation,
            "schema-name": "mainapp",
            "table-name": table,
            **metadata,
        },
    }
    if before is not None:
        made["before-image"] = before
    return made


def debezium(
    table: str = "users",
    op: str = "u",
    after: object = None,
    before: object = None,
    **source: object,
) -> dict[str, Any]:
    """A Debezium event without its schema."""
    return {
        "op": op,
        "ts_ms": 1_748_854_801_500,
        "before": before,
        "after": after,
        "source": {
            "connector": "mysql",
            "db": "mainapp",
            "table": table,
            "ts_ms": 1_748_854_800_000,
            "snapshot": "false",
            "gtid": "3e11fa47-71ca-11e1-9e33-c80aa9429562:23",
            **source,
        },
        "transaction": None,
    }


def maxwell(
    table: str = "users", kind: str = "update", data: object = None, old: object = None
) -> dict[str, Any]:
    """A message of Maxwell."""
    made: dict[str, Any] = {
        "database": "mainapp",
        "table": table,
        "type": kind,
        "ts": 1_748_854_800,
        "xid": 23396,
        "commit": True,
        "data": data,
    }
    if old is not None:
        made["old"] = old
    return made


def kinesis(inner: object) -> dict[str, Any]:
    """A Kinesis record as a pipe writes it."""
    text = inner if isinstance(inner, str) else json.dumps(inner)
    return {
        "kinesisSchemaVersion": "1.0",
        "partitionKey": "mainapp.users",
        "sequenceNumber": "49590338271490256608559692538361571095921575989136588898",
        "data": base64.b64encode(text.encode()).decode(),
        "approximateArrivalTimestamp": 1545084650.987,
        "eventSource": "aws:kinesis",
        "eventName": "aws:kinesis:record",
    }


def sns(inner: object) -> dict[str, Any]:
    """A notification of SNS."""
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-west-2:123456789012:changes",
        "Message": inner if isinstance(inner, str) else json.dumps(inner),
        "Timestamp": "2025-06-02T09:00:00.000Z",
        "SignatureVersion": "1",
    }


def s3_record(key: str, event: str = "ObjectCreated:Put", **of_object: object) -> dict[str, Any]:
    """One record of an S3 notification; `key` as S3 writes it there."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2025-06-02T09:00:01.500Z",
        "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": "changes", "arn": "arn:aws:s3:::changes"},
            "object": {"key": key, "size": 1024, "eTag": "0", "sequencer": "0", **of_object},
        },
    }


def s3_eventbridge(key: str, kind: str = "Object Created") -> dict[str, Any]:
    """The same by EventBridge; `key` is not encoded."""
    return {
        "version": "0",
        "detail-type": kind,
        "source": "aws.s3",
        "time": "2025-06-02T09:00:01Z",
        "detail": {
            "version": "0",
            "bucket": {"name": "changes"},
            "object": {"key": key, "size": 1024, "version-id": "v1", "sequencer": "0"},
            "reason": "PutObject",
        },
    }
