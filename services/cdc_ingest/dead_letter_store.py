"""The dead-letter queue, looked through and emptied. Blocks: never call it from asyncio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from services.cdc_ingest.domain.dead_letters import DeadLetter
from services.cdc_ingest.domain.messages import moment
from services.cdc_ingest.store import MAX_BATCH, text_attributes, unavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.literals import MessageSystemAttributeNameType
    from mypy_boto3_sqs.type_defs import MessageTypeDef, SendMessageBatchRequestEntryTypeDef

# A request may hold 1 MiB, attributes included.
_MAX_REQUEST_BYTES = 900_000
_SYSTEM_ATTRIBUTES: Sequence[MessageSystemAttributeNameType] = ("SentTimestamp", "MessageGroupId")


class DeadLetterStore:
    """Thread-safe. Every method raises `Unavailable` (SQS_UNAVAILABLE) when SQS does not answer."""

    def __init__(self, client: SQSClient, queue_url: str, dlq_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dlq_url = dlq_url

    def receive(self, hidden_seconds: int, wait_seconds: int) -> list[DeadLetter]:
        """Return up to 10, which nobody else sees for so long."""
        try:
            answer = self._client.receive_message(
                QueueUrl=self._dlq_url,
                MaxNumberOfMessages=MAX_BATCH,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=hidden_seconds,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=_SYSTEM_ATTRIBUTES,
            )
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error
        return [_read(message) for message in answer.get("Messages", ())]

    def show(self, receipts: Sequence[str]) -> None:
        """Let others see these again; those that fail become visible by themselves."""
        for start in range(0, len(receipts), MAX_BATCH):
            try:
                self._client.change_message_visibility_batch(
                    QueueUrl=self._dlq_url,
                    Entries=[
                        {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                        for i, receipt in enumerate(receipts[start : start + MAX_BATCH])
                    ],
                )
            except (BotoCoreError, ClientError) as error:
                raise unavailable(error) from error

    def resend(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Send up to 10 to the queue of changes, then delete them here; returns those done.

        One that was sent and could not be deleted stays, and does not count.
        """
        done: list[DeadLetter] = []
        for part in _parts(letters):
            done += self._delete(self._send(part))
        return done

    def _send(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        entries = [self._entry(i, letter) for i, letter in enumerate(letters)]
        try:
            answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error
        return [letters[int(entry["Id"])] for entry in answer.get("Successful", ())]

    def _entry(self, number: int, letter: DeadLetter) -> SendMessageBatchRequestEntryTypeDef:
        entry: SendMessageBatchRequestEntryTypeDef = {
            "Id": str(number),
            "MessageBody": letter.body,
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value}
                for name, value in letter.attributes_to_resend().items()
            },
        }
        if self._queue_url.endswith(".fifo"):
            entry["MessageGroupId"] = letter.group_id or letter.message_id
            entry["MessageDeduplicationId"] = letter.message_id
        return entry

    def _delete(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        if not letters:
            return []
        try:
            answer = self._client.delete_message_batch(
                QueueUrl=self._dlq_url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": letter.receipt}
                    for i, letter in enumerate(letters)
                ],
            )
        except (BotoCoreError, ClientError) as error:
            raise unavailable(error) from error
        return [letters[int(entry["Id"])] for entry in answer.get("Successful", ())]


def _parts(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Divide them so that each part fits one request."""
    part: list[DeadLetter] = []
    size = 0
    for letter in letters:
        own = len(letter.body.encode()) + sum(len(n) + len(v) for n, v in letter.attributes.items())
        if part and size + own > _MAX_REQUEST_BYTES:
            yield part
            part, size = [], 0
        part.append(letter)
        size += own
    if part:
        yield part


def _read(raw: MessageTypeDef) -> DeadLetter:
    system = {str(name): value for name, value in raw.get("Attributes", {}).items()}
    return DeadLetter(
        message_id=raw["MessageId"],
        receipt=raw["ReceiptHandle"],
        body=raw.get("Body", ""),
        dead_at=moment(system.get("SentTimestamp"), 1_000),
        group_id=system.get("MessageGroupId"),
        attributes=text_attributes(raw.get("MessageAttributes", {})),
    )
