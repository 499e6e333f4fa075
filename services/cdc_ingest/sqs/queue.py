"""The change queue and its dead-letter queue, through boto3."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
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
from services.cdc_ingest import metrics
from services.cdc_ingest.domain.dead_letters import FIRST_SEEN_AT, REASON, RECEIVE_COUNT
from services.cdc_ingest.domain.messages import Message, moment

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.literals import MessageSystemAttributeNameType
    from mypy_boto3_sqs.type_defs import (
        BatchResultErrorEntryTypeDef,
        MessageAttributeValueOutputTypeDef,
        SendMessageRequestTypeDef,
    )

MAX_BATCH = 10
MAX_ATTRIBUTES = 10
_READ_MARGIN_SECONDS = 10
_PAUSE_TAG = "dialler-ingest-paused"
_SYSTEM_ATTRIBUTES: Sequence[MessageSystemAttributeNameType] = (
    "ApproximateReceiveCount",
    "ApproximateFirstReceiveTimestamp",
    "SentTimestamp",
    "MessageGroupId",
)


@dataclass(frozen=True, slots=True)
class QueueDepths:
    """The numbers of waiting messages, as estimated by SQS."""

    backlog: int
    dead_letter: int


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """An entry of a batch that SQS refused; a retry helps when `is_retryable`."""

    message: Message
    code: str
    is_retryable: bool


@contextmanager
def sqs_errors() -> Iterator[None]:
    """Raise `Unavailable` for an error of boto3."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        # The message of the error may quote the body: only the code is used.
        code = type(error).__name__
        if isinstance(error, ClientError):
            code = str(error.response.get("Error", {}).get("Code", code))
        text = f"SQS failed: {code}"
        raise Unavailable("SQS_UNAVAILABLE", text, code=code) from error


class SqsStore:
    """Blocks; thread-safe. `Unavailable` (SQS_UNAVAILABLE) is raised when SQS does not answer."""

    def __init__(
        self, client: SQSClient, queue_url: str, dlq_url: str, clock: Clock, visibility_seconds: int
    ) -> None:
        self._client = client
        self._queue_url = queue_url
        self._destination = messaging.destination(queue_url)
        self._dlq_url = dlq_url
        self._clock = clock
        self._visibility_seconds = visibility_seconds

    @sqs_errors()
    def receive(self, wait_seconds: int) -> list[Message]:
        """Return up to 10 messages, after waiting for the first; they become invisible."""
        began_ns = time.time_ns()
        answer = self._client.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=MAX_BATCH,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=self._visibility_seconds,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=_SYSTEM_ATTRIBUTES,
        )
        messages: list[Message] = []
        for raw in answer.get("Messages", ()):
            system: Mapping[str, str] = {str(k): v for k, v in raw.get("Attributes", {}).items()}
            text = text_attributes(raw.get("MessageAttributes", {}))
            message = Message(
                message_id=raw["MessageId"],
                receipt=raw["ReceiptHandle"],
                body=raw.get("Body", ""),
                receive_count=int(system.get("ApproximateReceiveCount", "1")),
                received_at=self._clock.now(),
                first_received_at=moment(system.get("ApproximateFirstReceiveTimestamp"), 1_000),
                sent_at=moment(system.get("SentTimestamp"), 1_000),
                committed_at=moment(text.get("committed_at_us"), 1_000_000),
                captured_at=moment(text.get("captured_at_us"), 1_000_000),
                traceparent=text.get("traceparent"),
                group_id=system.get("MessageGroupId"),
                unsent_since=moment(text.get("unsent_since_us"), 1_000_000),
                text_attributes=text,
            )
            messages.append(message)
        described = messaging.described(
            "aws_sqs", "receive", "receive", self._destination, len(messages)
        )
        # The span of the poll in the trace of a message does not begin before its capture.
        for message in messages:
            parent = telemetry.extract(message.traceparent)
            captured_at = message.captured_at
            captured_ns = 0 if captured_at is None else round(captured_at.timestamp() * 1e9)
            telemetry.note(
                f"receive {self._destination}",
                message.traceparent,
                kind=Kind.CLIENT,
                start_ns=max(began_ns, captured_ns),
                attributes=described,
                links=[parent] if parent else (),
            )
        return messages

    @sqs_errors()
    def delete(self, messages: Sequence[Message]) -> list[RefusedEntry]:
        """Delete up to 10 messages; return those that SQS refused to delete."""
        with self._settling("delete", messages):
            answer = self._client.delete_message_batch(
                QueueUrl=self._queue_url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": m.receipt} for i, m in enumerate(messages)
                ],
            )
        return _refused(messages, answer.get("Failed", ()))

    @sqs_errors()
    def change_visibility(self, changes: Sequence[tuple[Message, int]]) -> list[RefusedEntry]:
        """Set the visibility timeouts of up to 10 messages; return those that SQS refused."""
        messages = [message for message, _ in changes]
        with self._settling("change_visibility", messages):
            answer = self._client.change_message_visibility_batch(
                QueueUrl=self._queue_url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": m.receipt, "VisibilityTimeout": seconds}
                    for i, (m, seconds) in enumerate(changes)
                ],
            )
        return _refused(messages, answer.get("Failed", ()))

    @sqs_errors()
    def send_to_dead_letters(
        self, message: Message, reason: str, traceparent: str | None = None
    ) -> None:
        """Send the message to the dead-letter queue with reason, first receive and trace.

        `traceparent` counts for a message that has none.
        """
        first_seen = message.first_received_at or message.received_at
        values = {
            REASON: reason,
            # A message that was sent again keeps its first receive.
            FIRST_SEEN_AT: message.text_attributes.get(FIRST_SEEN_AT) or first_seen.isoformat(),
            RECEIVE_COUNT: str(message.receive_count),
        }
        if traceparent := message.traceparent or traceparent:
            values["traceparent"] = traceparent
        for name, value in message.text_attributes.items():
            if value and len(values) < MAX_ATTRIBUTES:
                values.setdefault(name, value)
        request: SendMessageRequestTypeDef = {
            "QueueUrl": self._dlq_url,
            "MessageBody": message.body,
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in values.items()
            },
        }
        if self._dlq_url.endswith(".fifo"):
            request["MessageGroupId"] = message.group_id or message.message_id
            request["MessageDeduplicationId"] = message.message_id
        self._client.send_message(**request)

    def depths(self) -> QueueDepths:
        """Return the estimated numbers of messages in both queues."""
        return QueueDepths(self._depth(self._queue_url), self._depth(self._dlq_url))

    @sqs_errors()
    def mark_paused(self) -> None:
        """Tag the queue as paused."""
        self._client.tag_queue(QueueUrl=self._queue_url, Tags={_PAUSE_TAG: "true"})

    @sqs_errors()
    def unmark_paused(self) -> None:
        """Remove the tag; harmless when there is none."""
        self._client.untag_queue(QueueUrl=self._queue_url, TagKeys=[_PAUSE_TAG])

    @sqs_errors()
    def is_marked_paused(self) -> bool:
        """Tell whether the queue is tagged as paused; SQS shows a new tag within a minute."""
        answer = self._client.list_queue_tags(QueueUrl=self._queue_url)
        return _PAUSE_TAG in answer.get("Tags", {})

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

    @sqs_errors()
    def _depth(self, url: str) -> int:
        answer = self._client.get_queue_attributes(
            QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])


class QueueDepthGauges:
    """Sets the gauges of the queue depths."""

    def __init__(self, store: SqsStore) -> None:
        self._store = store

    async def run_once(self, _now: datetime) -> None:
        """Set the gauges once; raises `Unavailable` when SQS does not answer."""
        depths = await asyncio.to_thread(self._store.depths)
        metrics.depths(depths.backlog, depths.dead_letter)


def connect(
    *, endpoint_url: str | None, region: str, wait_seconds: int, connections: int
) -> SQSClient:
    """Return a client. Reads configuration files and sends nothing."""
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
    """Return the attributes of type text and number, as text."""
    return {name: v["StringValue"] for name, v in raw.items() if "StringValue" in v}


def _refused(
    messages: Sequence[Message], failed: Iterable[BatchResultErrorEntryTypeDef]
) -> list[RefusedEntry]:
    return [
        RefusedEntry(messages[int(entry["Id"])], entry["Code"], not entry["SenderFault"])
        for entry in failed
    ]
