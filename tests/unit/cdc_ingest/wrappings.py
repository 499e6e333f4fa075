"""Ways in which sources, and what lies between them and SQS, write one and the same record."""

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from typing import Any, Final

from tests.unit.cdc_ingest.bodies import debezium, kinesis, sns

Wrap = Callable[[str], str]


def base64_text(content: bytes) -> str:
    """The content in base64."""
    return base64.b64encode(content).decode()


def kinesis_of(content: bytes) -> str:
    """A Kinesis record of any bytes."""
    return json.dumps({**kinesis(""), "data": base64_text(content)})


def kpl(*records: bytes, digest: bytes | None = None) -> bytes:
    """Records as the Kinesis Producer Library packs them into one."""
    packed = _sized(1, b"partition key")
    for record in records:
        # partition_key_index 0, then the data.
        packed += _sized(3, b"\x08\x00" + _sized(3, record))
    end = digest or hashlib.md5(packed, usedforsecurity=False).digest()
    return b"\xf3\x89\x9a\xc2" + packed + end


def _sized(number: int, content: bytes) -> bytes:
    size, written = len(content), b""
    while size >= 0x80:
        written += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return bytes((number << 3 | 2,)) + written + bytes((size,)) + content


def cloud_event(event: dict[str, Any]) -> dict[str, Any]:
    """An event of Debezium's as its CloudEvents converter writes it."""
    source = {f"iodebezium{name.replace('_', '')}": v for name, v in event["source"].items()}
    return {
        "id": "name:main;file:bin.000002;pos:4",
        "source": "/debezium/mysql/main",
        "specversion": "1.0",
        "type": "io.debezium.connector.mysql.DataChangeEvent",
        "time": "2025-06-02T09:00:00.000Z",
        "datacontenttype": "application/json",
        "iodebeziumop": event["op"],
        **source,
        "data": {"before": event["before"], "after": event["after"]},
    }


def on_a_bus(detail: object) -> dict[str, Any]:
    """An event of an EventBridge bus that a pipe put there."""
    return {
        "version": "0",
        "id": "8f5f",
        "detail-type": "Event from aws:kinesis",
        "source": "Pipe changes",
        "account": "123456789012",
        "time": "2025-06-02T09:00:00Z",
        "region": "eu-west-2",
        "resources": [],
        "detail": detail,
    }


def lambda_sns(message: str) -> dict[str, Any]:
    """A notification as Lambda gets it."""
    subscription = "arn:aws:sns:eu-west-2:123456789012:changes:1"
    record = {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscription,
        "Sns": sns(message),
    }
    return {"Records": [record]}


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), indent=2)


OF_DOCUMENTS: Final[dict[str, Wrap]] = {
    "a byte order mark": lambda text: "\ufeff" + text,
    "a byte order mark read as Latin-1": lambda text: "\xef\xbb\xbf" + text,
    "space around it": lambda text: f" \r\n{text}\n\n",
    "pretty-printed twice": lambda text: f"{_pretty(text)}\n{_pretty(text)}",
    "one after the other": lambda text: text + text,
    "with commas between": lambda text: f"{text},{text}",
    "a JSON text sequence": lambda text: f"\x1e{text}\n\x1e{text}\n",
    "NaN": lambda text: f'{text[:-1]}, "monthly_payment": NaN, "rate": -Infinity}}',
    "half a surrogate pair": lambda text: f'{text[:-1]}, "note": "Sam \\ud83d"}}',
    "an integer of 5,000 digits": lambda text: f'{text[:-1]}, "x": {"9" * 5_000}}}',
    "a float beyond all floats": lambda text: f'{text[:-1]}, "x": 1e999}}',
    "a line break inside a text": lambda text: f'{text[:-1]}, "note": "two\nlines"}}',
}
"""Ways to write a document that is the whole text."""

OF_TEXTS: Final[dict[str, Wrap]] = {
    "JSON text": json.dumps,
    "JSON text of JSON text": lambda text: json.dumps(json.dumps(text)),
    "escaped but not quoted": lambda text: json.dumps(text)[1:-1],
    "an array of JSON texts": lambda text: json.dumps([text]),
    "base64": lambda text: base64_text(text.encode(errors="surrogatepass")),
    "url-safe base64 without padding": lambda text: (
        base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    ),
    "base64 in lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "gzip": lambda text: base64_text(gzip.compress(text.encode())),
    "zlib": lambda text: base64_text(zlib.compress(text.encode())),
    "Kinesis": lambda text: kinesis_of(text.encode()),
    "Kinesis, gzip": lambda text: kinesis_of(gzip.compress(text.encode())),
    "Kinesis, UTF-16": lambda text: kinesis_of(text.encode("utf-16")),
    "Kinesis, UTF-16 without its mark": lambda text: kinesis_of(text.encode("utf-16-be")),
    "Kinesis, UTF-8 with a mark": lambda text: kinesis_of(text.encode("utf-8-sig")),
    "Kinesis, Latin-1": lambda text: kinesis_of(
        b"[%s, " % json.dumps(text).encode() + b'{"database": "Zo\xeb", "type": "table-create"}]'
    ),
    "Kinesis, aggregated": lambda text: kinesis_of(kpl(text.encode(), text.encode())),
    "aggregated, gzip inside": lambda text: kinesis_of(kpl(gzip.compress(text.encode()))),
    "an event bus": lambda text: json.dumps(on_a_bus(text)),
    "a pipe to an event bus": lambda text: json.dumps(on_a_bus(kinesis(text))),
    "SNS of Lambda's": lambda text: json.dumps(lambda_sns(text)),
    "a CloudEvent of no format": lambda text: json.dumps(
        {"specversion": "1.0", "type": "row", "source": "/x", "id": "1", "data": text}
    ),
    "a binary CloudEvent": lambda text: json.dumps(
        {
            "specversion": "1.0",
            "type": "row",
            "source": "/x",
            "id": "1",
            "data_base64": base64_text(text.encode()),
        }
    ),
    "an answer of SQS's": lambda text: json.dumps(
        {"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": text}]}
    ),
    "an answer of Kinesis's": lambda text: json.dumps(
        {
            "Records": [
                {"SequenceNumber": "1", "PartitionKey": "p", "Data": base64_text(text.encode())}
            ],
            "NextShardIterator": "x",
        }
    ),
    "Firehose": lambda text: json.dumps(
        {"invocationId": "i", "records": [{"recordId": "1", "data": base64_text(text.encode())}]}
    ),
    "Kafka": lambda text: json.dumps(
        {
            "eventSource": "aws:kafka",
            "records": {
                "mainapp.users-0": [
                    {
                        "topic": "mainapp.users",
                        "partition": 0,
                        "offset": 15,
                        "key": "a2V5",
                        "value": base64_text(text.encode()),
                    }
                ]
            },
        }
    ),
    "a failed invocation": lambda text: json.dumps(
        {
            "version": "1.0",
            "requestContext": {"functionArn": "arn", "condition": "RetriesExhausted"},
            "requestPayload": {"Records": [kinesis(text)]},
        }
    ),
    "given up by Firehose": lambda text: json.dumps(
        {"errorCode": "500", "attemptsMade": 3, "rawData": base64_text(text.encode())}
    ),
}
"""Envelopes of any text."""

RECORDS: Final[dict[str, Callable[[int], object]]] = {
    "DMS": lambda n: {
        "data": {"id": n},
        "metadata": {"record-type": "data", "operation": "update", "table-name": "users"},
    },
    "DMS with underscores": lambda n: {
        "data": {"id": n},
        "metadata": {"record_type": "data", "operation": "update", "table_name": "users"},
    },
    "DMS in capitals": lambda n: {
        "data": {"ID": n, "STATUS": "x"},
        "metadata": {"record-type": "data", "operation": "update", "table-name": "USERS"},
    },
    "DMS with its parts as texts": lambda n: {
        "data": json.dumps({"id": n}),
        "metadata": json.dumps({"operation": "insert", "table-name": "users"}),
    },
    "DMS with the schema in the name": lambda n: {
        "data": {"user_id": n, "id": 9},
        "metadata": {"operation": "insert", "table-name": "`mainapp`.`claims`"},
    },
    "Debezium": lambda n: debezium(after={"id": n}),
    "Debezium's payload alone": lambda n: {"payload": debezium(after={"id": n})},
    "Debezium's CloudEvent": lambda n: cloud_event(debezium("claims", after={"user_id": n})),
    "Debezium's CloudEvent with its schema": lambda n: (
        cloud_event(debezium(after={"id": 0}))
        | {"data": {"schema": {}, "payload": {"before": None, "after": {"id": n}}}}
    ),
    "Debezium with its parts as texts": lambda n: {
        **debezium(),
        "after": json.dumps({"id": n}),
        "source": json.dumps({"table": "users", "snapshot": "false"}),
    },
    "Maxwell with its row as a text": lambda n: {
        "database": "mainapp",
        "table": "users",
        "type": "insert",
        "data": json.dumps({"id": n}),
    },
    "Maxwell, quoted": lambda n: {
        "database": "mainapp",
        "table": '"mainapp"."USERS"',
        "type": "update",
        "ts": 1_748_854_800,
        "data": {'"ID"': n},
    },
}
"""One change of one person, by ids that are readable in the text."""
