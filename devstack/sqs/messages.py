"""One message: its body, attributes, digests and the counters SQS reports with it."""

import base64
import binascii
import hashlib
import itertools
import re
import struct
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from devstack.sqs.errors import SqsError

Attribute = Mapping[str, str]
"""DataType with StringValue, or with BinaryValue in base64, as the protocol carries it."""

MAX_BYTES: Final = 1_048_576
"""The largest message and the largest batch SQS accepts."""

_MAX_ATTRIBUTES = 10
_NAME = re.compile(r"[A-Za-z0-9_\-.]{1,256}")
_DATA_TYPE = re.compile(r"(String|Number|Binary)(\.[^\x00-\x1f]{1,248})?")
_UNCHARACTERISTIC = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_sequence = itertools.count(18_849_496_460_467_696_128, 256)


@dataclass(slots=True, eq=False)
class SqsMessage:
    """A stored message; all times are seconds since the epoch."""

    body: str
    sent_at: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    trace_header: str | None = None
    group_id: str | None = None
    deduplication_id: str | None = None
    message_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    sequence_number: int = field(default_factory=lambda: next(_sequence))
    body_md5: str = ""
    source_arn: str | None = None
    enqueued_at: float = 0.0
    first_received_at: float | None = None
    earlier_receives: int = 0
    receives: int = 0
    receipt_nonce: str = ""
    is_stored: bool = True
    visible_at: float = 0.0

    def __post_init__(self) -> None:
        """Derive what is sent back with every receive once."""
        self.body_md5 = self.body_md5 or hashlib.md5(self.body.encode()).hexdigest()  # noqa: S324
        self.enqueued_at = self.enqueued_at or self.sent_at

    @property
    def total_receives(self) -> int:
        """Receives including those from the queue this message was redriven from."""
        return self.earlier_receives + self.receives

    def system_attributes(self, sender_id: str) -> dict[str, str]:
        """Return every system attribute this message has."""
        found: dict[str, str | None] = {
            "SenderId": sender_id,
            "SentTimestamp": str(int(self.sent_at * 1000)),
            "ApproximateReceiveCount": str(self.total_receives),
            "ApproximateFirstReceiveTimestamp": str(int((self.first_received_at or 0) * 1000)),
            "AWSTraceHeader": self.trace_header,
            "MessageGroupId": self.group_id,
            "DeadLetterQueueSourceArn": self.source_arn,
        }
        if self.deduplication_id is not None:
            found["MessageDeduplicationId"] = self.deduplication_id
            found["SequenceNumber"] = str(self.sequence_number)
        return {name: value for name, value in found.items() if value is not None}


def contents_size(body: str, attributes: Mapping[str, Attribute]) -> int:
    """Return the bytes SQS counts towards its limits; the trace header is free."""
    size = len(body.encode())
    for name, attribute in attributes.items():
        size += len(name.encode()) + len(attribute["DataType"].encode()) + len(_raw(attribute))
    return size


def check_body(body: str) -> None:
    """Raise for an empty body or one with characters XML 1.0 does not allow."""
    if not body:
        raise SqsError("MissingParameter", "The request must contain the parameter MessageBody.")
    if _UNCHARACTERISTIC.search(body):
        raise SqsError(
            "InvalidMessageContents",
            "Invalid characters found. Valid unicode characters are "
            "#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF",
        )


def check_attributes(attributes: Mapping[str, Attribute]) -> None:
    """Raise InvalidParameterValue for attributes SQS would not store."""
    if len(attributes) > _MAX_ATTRIBUTES:
        raise SqsError(
            "InvalidParameterValue",
            f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [10].",
        )
    for name, attribute in attributes.items():
        _check_attribute(name, attribute)


def attributes_md5(attributes: Mapping[str, Attribute]) -> str:
    """Return the digest over names, types and values in the encoding SQS documents."""
    digest = hashlib.md5()  # noqa: S324 the protocol's own checksum
    for name in sorted(attributes):
        attribute = attributes[name]
        for part in (name.encode(), attribute["DataType"].encode()):
            digest.update(struct.pack(">I", len(part)) + part)
        value = _raw(attribute)
        transport = b"\x02" if _is_binary(attribute) else b"\x01"
        digest.update(transport + struct.pack(">I", len(value)) + value)
    return digest.hexdigest()


def select_attributes(
    attributes: Mapping[str, Attribute], wanted: Iterable[str]
) -> dict[str, Attribute]:
    """Return the attributes named by exact names, `prefix.*`, `.*` or `All`."""
    names = set(wanted)
    prefixes = tuple(name[:-2] for name in names if name.endswith(".*"))
    if "All" in names:
        return dict(attributes)
    return {
        name: attribute
        for name, attribute in attributes.items()
        if name in names or name.startswith(prefixes)
    }


def _check_attribute(name: str, attribute: Attribute) -> None:
    if not _NAME.fullmatch(name) or name.lower().startswith(("aws.", "amazon.")):
        raise SqsError("InvalidParameterValue", f"The message attribute name '{name}' is invalid.")
    data_type = attribute.get("DataType", "")
    if not _DATA_TYPE.fullmatch(data_type):
        raise SqsError(
            "InvalidParameterValue",
            f"The message attribute '{name}' has an invalid message attribute type, the set of "
            "supported type prefixes is Binary, Number, and String.",
        )
    if not attribute.get("BinaryValue" if _is_binary(attribute) else "StringValue"):
        kind = data_type.split(".")[0]
        raise SqsError(
            "InvalidParameterValue",
            f"The message attribute '{name}' must contain a non-empty message attribute value "
            f"for message attribute type '{kind}'.",
        )
    _check_value(name, attribute)


def _check_value(name: str, attribute: Attribute) -> None:
    try:
        if attribute["DataType"].startswith("Number"):
            float(attribute["StringValue"])
        _raw(attribute)
    except (ValueError, binascii.Error) as error:
        raise SqsError(
            "InvalidParameterValue", f"Can't cast the value of message attribute '{name}'."
        ) from error


def _is_binary(attribute: Attribute) -> bool:
    return attribute["DataType"].startswith("Binary")


def _raw(attribute: Attribute) -> bytes:
    if _is_binary(attribute):
        return base64.b64decode(attribute["BinaryValue"], validate=True)
    return attribute["StringValue"].encode()
