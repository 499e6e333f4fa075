"""The dead-letter queue in SQS, through boto3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from services.cdc_ingest.domain.dead_letters import DeadLetter
from services.cdc_ingest.domain.messages import moment
from services.cdc_ingest.sqs.queue import MAX_BATCH, sqs_errors, text_attributes

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.literals import MessageSystemAttributeNameType
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

# A request holds at most 1 MiB, attributes included.
_MAX_REQUEST_BYTES = 900_000
_SYSTEM_ATTRIBUTES: Sequence[MessageSystemAttributeNameType] = ("SentTimestamp", "MessageGroupId")


class DeadLetterStore:
    """Blocks; thread-safe. Raises `Unavailable` (SQS_UNAVAILABLE) when SQS does not answer."""

    def __init__(self, client: SQSClient, queue_url: str, dlq_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dlq_url = dlq_url

    @sqs_errors()
    def receive(self, hidden_seconds: int, wait_seconds: int) -> list[DeadLetter]:
        """Return up to 10 dead letters, invisible to other receivers for `hidden_seconds`."""
        answer = self._client.receive_message(
            QueueUrl=self._dlq_url,
            MaxNumberOfMessages=MAX_BATCH,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=hidden_seconds,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=_SYSTEM_ATTRIBUTES,
        )
        letters: list[DeadLetter] = []
        for raw in answer.get("Messages", ()):
            system = {str(name): value for name, value in raw.get("Attributes", {}).items()}
            letter = DeadLetter(
                message_id=raw["MessageId"],
                receipt=raw["ReceiptHandle"],
                body=raw.get("Body", ""),
                dead_lettered_at=moment(system.get("SentTimestamp"), 1_000),
                group_id=system.get("MessageGroupId"),
                attributes=text_attributes(raw.get("MessageAttributes", {})),
            )
            letters.append(letter)
        return letters

    @sqs_errors()
    def show(self, receipts: Sequence[str]) -> None:
        """Make dead letters visible; those that SQS refuses become visible after their timeout."""
        for start in range(0, len(receipts), MAX_BATCH):
            self._client.change_message_visibility_batch(
                QueueUrl=self._dlq_url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for i, receipt in enumerate(receipts[start : start + MAX_BATCH])
                ],
            )

    @sqs_errors()
    def resend(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Send up to 10 dead letters to the change queue, then delete them; return those deleted.

        A dead letter that was sent and could not be deleted stays, and is not returned.
        """
        done: list[DeadLetter] = []
        for part in _parts(letters):
            entries: list[SendMessageBatchRequestEntryTypeDef] = []
            for number, letter in enumerate(part):
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
                entries.append(entry)
            answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            sent = [part[int(each["Id"])] for each in answer.get("Successful", ())]
            if sent:
                done += self.delete(sent)
        return done

    @sqs_errors()
    def delete(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Delete up to 10 dead letters; return those deleted."""
        deleted = self._client.delete_message_batch(
            QueueUrl=self._dlq_url,
            Entries=[
                {"Id": str(i), "ReceiptHandle": letter.receipt} for i, letter in enumerate(letters)
            ],
        )
        return [letters[int(each["Id"])] for each in deleted.get("Successful", ())]


def _parts(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Yield the letters in parts that fit one request."""
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
