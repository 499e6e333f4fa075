"""The change queue and its dead-letter queue, through boto3. Blocks: never call it from asyncio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from servicekit import messaging, telemetry
from servicekit.clock import Clock
from servicekit.errors import Unavailable
from servicekit.spans import Kind, Span
from services.cdc_ingest.domain.dead_letters import FIRST_SEEN_AT, REASON, RECEIVE_COUNT
from services.cdc_ingest.domain.messages import Message, moment

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.literals import MessageSystemAttributeNameType
    from mypy_boto3_sqs.type_defs import (
        BatchResultErrorEntryTypeDef,
        ChangeMessageVisibilityBatchRequestEntryTypeDef,
        DeleteMessageBatchRequestEntryTypeDef,
        MessageAttributeValueOutputTypeDef,
        MessageAttributeValueTypeDef,
        MessageTypeDef,
        SendMessageRequestTypeDef,
    )

MAX_BATCH = 10
MAX_ATTRIBUTES = 10
_READ_MARGIN_SECONDS = 10
_PAUSE_TAG = "dialler-ingest-paused"
_SYSTEM_ATTRIBUTES: Sequence[MessageSystemAttributeNameType] = (
    "ApproximateReceiveCount",
    "ApproximateFirstReceiveTimestamp",
    "MessageGroupId",
)


@dataclass(frozen=True, slots=True)
class QueueDepths:
    """Messages waiting, as SQS estimates."""

    backlog: int
    dead_letter: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry of a batch that SQS did not carry out; asking again helps when `is_retryable`."""

    message: Message
    code: str
    is_retryable: bool


class SqsStore:
    """Thread-safe. Every method raises `Unavailable` (SQS_UNAVAILABLE) when SQS does not answer."""

    def __init__(
        self, client: SQSClient, queue_url: str, dlq_url: str, clock: Clock, visibility_seconds: int
    ) -> None:
        self._client = client
        self._queue_url = queue_url
        self._destination = messaging.destination(queue_url)
        self._dlq_url = dlq_url
        self._clock = clock
        self._visibility_seconds = visibility_seconds

    def receive(self, wait_seconds: int) -> list[Message]:
        """Return up to 10 messages, waiting for the first; others do not see them meanwhile."""
        began_ns = time.time_ns()
        try:
            answer = self._client.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=MAX_BATCH,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=self._visibility_seconds,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=_SYSTEM_ATTRIBUTES,
            )
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error
        messages = [self._read(message) for message in answer.get("Messages", ())]
        if messages:
            self._note_receive(messages, began_ns)
        return messages

    def delete(self, messages: Sequence[Message]) -> list[Refused]:
        """Delete up to 10 messages and return those that were not."""
        entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
            {"Id": str(i), "ReceiptHandle": m.receipt} for i, m in enumerate(messages)
        ]
        try:
            with self._settling("delete", messages):
                answer = self._client.delete_message_batch(
                    QueueUrl=self._queue_url, Entries=entries
                )
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error
        return _refused(messages, answer.get("Failed", ()))

    def hide(self, hidings: Sequence[tuple[Message, int]]) -> list[Refused]:
        """Hide up to 10 messages for so many seconds from now; returns those that are not."""
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {"Id": str(i), "ReceiptHandle": m.receipt, "VisibilityTimeout": seconds}
            for i, (m, seconds) in enumerate(hidings)
        ]
        try:
            with self._settling("change_visibility", [message for message, _ in hidings]):
                answer = self._client.change_message_visibility_batch(
                    QueueUrl=self._queue_url, Entries=entries
                )
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error
        return _refused([message for message, _ in hidings], answer.get("Failed", ()))

    def send_to_dead_letters(
        self, message: Message, reason: str, traceparent: str | None = None
    ) -> None:
        """Copy the message to the dead-letter queue with why, since when, and its trace.

        `traceparent` is for a message that came without one.
        """
        request: SendMessageRequestTypeDef = {
            "QueueUrl": self._dlq_url,
            "MessageBody": message.body,
            "MessageAttributes": _dead_letter_attributes(message, reason, traceparent),
        }
        if self._dlq_url.endswith(".fifo"):
            request["MessageGroupId"] = message.group_id or message.message_id
            request["MessageDeduplicationId"] = message.message_id
        try:
            self._client.send_message(**request)
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error

    def depths(self) -> QueueDepths:
        """Return how many messages wait in both queues."""
        return QueueDepths(self._depth(self._queue_url), self._depth(self._dlq_url))

    def mark_paused(self) -> None:
        """Tag the queue as paused, for every copy and for after a restart."""
        try:
            self._client.tag_queue(QueueUrl=self._queue_url, Tags={_PAUSE_TAG: "true"})
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error

    def unmark_paused(self) -> None:
        """Take the tag off; harmless when there is none."""
        try:
            self._client.untag_queue(QueueUrl=self._queue_url, TagKeys=[_PAUSE_TAG])
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error

    def is_marked_paused(self) -> bool:
        """Tell whether the queue is tagged as paused; SQS may take a minute to know."""
        try:
            answer = self._client.list_queue_tags(QueueUrl=self._queue_url)
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error
        return _PAUSE_TAG in answer.get("Tags", {})

    def _note_receive(self, messages: Sequence[Message], began_ns: int) -> None:
        """Add the poll to the trace of each message; how long it waited says nothing of them."""
        described = messaging.described(
            "aws_sqs", "receive", "receive", self._destination, len(messages)
        )
        for message in messages:
            parent = telemetry.extract(message.traceparent)
            telemetry.note(
                f"receive {self._destination}",
                message.traceparent,
                kind=Kind.CLIENT,
                start_ns=max(began_ns, _nanoseconds(message.captured_at)),
                attributes=described,
                links=[parent] if parent else (),
            )

    def _settling(
        self, operation: str, messages: Sequence[Message]
    ) -> AbstractContextManager[Span]:
        return telemetry.shared(
            f"{operation} {self._destination}",
            [message.traceparent for message in messages],
            kind=Kind.CLIENT,
            attributes=messaging.described(
                "aws_sqs", operation, "settle", self._destination, len(messages)
            ),
        )

    def _depth(self, url: str) -> int:
        try:
            answer = self._client.get_queue_attributes(
                QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"]
            )
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def _read(self, raw: MessageTypeDef) -> Message:
        system: Mapping[str, str] = {str(k): v for k, v in raw.get("Attributes", {}).items()}
        text = text_attributes(raw.get("MessageAttributes", {}))
        return Message(
            message_id=raw["MessageId"],
            receipt=raw["ReceiptHandle"],
            body=raw.get("Body", ""),
            receive_count=int(system.get("ApproximateReceiveCount", "1")),
            received_at=self._clock.now(),
            first_received_at=moment(system.get("ApproximateFirstReceiveTimestamp"), 1_000),
            committed_at=moment(text.get("committed_at_us"), 1_000_000),
            captured_at=moment(text.get("captured_at_us"), 1_000_000),
            traceparent=text.get("traceparent"),
            group_id=system.get("MessageGroupId"),
            text_attributes=text,
        )


def connect(
    *, endpoint_url: str | None, region: str, wait_seconds: int, connections: int
) -> SQSClient:
    """Return a client; nothing is sent yet, but files are read."""
    return boto3.session.Session().client(
        "sqs",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(
            connect_timeout=3,
            read_timeout=wait_seconds + _READ_MARGIN_SECONDS,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": 2},
            tcp_keepalive=True,
        ),
    )


def text_attributes(raw: Mapping[str, MessageAttributeValueOutputTypeDef]) -> dict[str, str]:
    """Return the attributes that are text or numbers, as text."""
    return {name: v["StringValue"] for name, v in raw.items() if "StringValue" in v}


def _dead_letter_attributes(
    message: Message, reason: str, traceparent: str | None
) -> dict[str, MessageAttributeValueTypeDef]:
    first_seen = message.first_received_at or message.received_at
    values = {
        REASON: reason,
        # One that was sent again keeps when it was seen first.
        FIRST_SEEN_AT: message.text_attributes.get(FIRST_SEEN_AT) or first_seen.isoformat(),
        RECEIVE_COUNT: str(message.receive_count),
    }
    if traceparent := message.traceparent or traceparent:
        values["traceparent"] = traceparent
    for name, value in message.text_attributes.items():
        if value and len(values) < MAX_ATTRIBUTES:
            values.setdefault(name, value)
    return {name: {"DataType": "String", "StringValue": value} for name, value in values.items()}


def _nanoseconds(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1e9)


def _refused(
    messages: Sequence[Message], failed: Iterable[BatchResultErrorEntryTypeDef]
) -> list[Refused]:
    return [
        Refused(messages[int(entry["Id"])], entry["Code"], not entry["SenderFault"])
        for entry in failed
    ]


def unavailable(error: BotoCoreError | ClientError) -> Unavailable:
    """Return what to raise instead; it quotes nothing."""
    # The code alone: a message may quote the body.
    code = type(error).__name__
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", code))
    return Unavailable("SQS_UNAVAILABLE", f"SQS did not do what it was asked: {code}", code=code)
