"""The actions on messages: send, receive, delete, change visibility, and their batches."""

import hashlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from devstack.sqs.account import ACCOUNT_ID, Account
from devstack.sqs.errors import SqsError, invalid_value, missing, no_such_queue
from devstack.sqs.faults import SqsFaults
from devstack.sqs.messages import (
    MAX_BYTES,
    SqsMessage,
    attributes_md5,
    check_attributes,
    check_body,
    contents_size,
    select_attributes,
)
from devstack.sqs.parameters import Parameters
from devstack.sqs.queues import MAX_VISIBILITY_SECONDS, StoredQueue

Answer = dict[str, Any]


class MessageActions:
    """Translates requests about messages to queue operations and back."""

    def __init__(self, account: Account, faults: SqsFaults) -> None:
        self._account = account
        self._faults = faults

    def queue(self, request: Parameters) -> StoredQueue:
        """Return the queue a request names by its URL; the host in it does not matter."""
        path = urlsplit(request.text("QueueUrl")).path
        return self._account.named(path.rsplit("/", 1)[-1])

    async def send_message(self, request: Parameters) -> Answer:
        """SendMessage."""
        return self._send(self.queue(request), request, time.time())

    async def send_message_batch(self, request: Parameters) -> Answer:
        """SendMessageBatch: refused as a whole when its contents exceed 1 MiB together."""
        queue = self.queue(request)
        entries = request.entries("SendMessageBatchRequestEntry")
        size = sum(_entry_size(entry) for entry in entries)
        max_bytes = self._faults.max_bytes or MAX_BYTES
        if size > max_bytes:
            raise SqsError(
                "BatchRequestTooLong",
                f"Batch requests cannot be longer than {max_bytes} bytes. "
                f"You have sent {size} bytes.",
            )
        refused = self._faults.refusal(entry.text("MessageBody") for entry in entries)
        if refused is not None:
            raise SqsError(refused, "A fault that was ordered.")
        now = time.time()
        return self._each("SendMessageBatch", entries, lambda entry: self._send(queue, entry, now))

    async def receive_message(self, request: Parameters) -> Answer:
        """ReceiveMessage: waits for the first message as long as the caller asked for."""
        queue = self.queue(request)
        limit = request.integer("MaxNumberOfMessages", 1, 1, 10)
        visibility_seconds = request.integer(
            "VisibilityTimeout",
            queue.settings.seconds("VisibilityTimeout"),
            0,
            MAX_VISIBILITY_SECONDS,
        )
        wait_seconds = request.integer(
            "WaitTimeSeconds", queue.settings.seconds("ReceiveMessageWaitTimeSeconds"), 0, 20
        )
        if wait_seconds == 0 and queue.is_over_limit and not queue.settings.is_fifo:
            raise SqsError("OverLimit", "Too many messages in flight.")
        messages = await self._poll(queue, limit, visibility_seconds, wait_seconds)
        if not messages:
            return {}
        return {"Messages": [_received(queue, message, request) for message in messages]}

    async def delete_message(self, request: Parameters) -> Answer:
        """DeleteMessage."""
        queue = self.queue(request)
        queue.delete(request.text("ReceiptHandle"), time.time())
        return {}

    async def delete_message_batch(self, request: Parameters) -> Answer:
        """DeleteMessageBatch."""
        queue = self.queue(request)
        now = time.time()

        def delete(entry: Parameters) -> Answer:
            queue.delete(entry.text("ReceiptHandle"), now)
            return {}

        entries = request.entries("DeleteMessageBatchRequestEntry")
        return self._each("DeleteMessageBatch", entries, delete)

    async def change_message_visibility(self, request: Parameters) -> Answer:
        """ChangeMessageVisibility."""
        return _change_visibility(self.queue(request), request, time.time())

    async def change_message_visibility_batch(self, request: Parameters) -> Answer:
        """ChangeMessageVisibilityBatch."""
        queue = self.queue(request)
        now = time.time()
        entries = request.entries("ChangeMessageVisibilityBatchRequestEntry")
        return self._each(
            "ChangeMessageVisibilityBatch",
            entries,
            lambda entry: _change_visibility(queue, entry, now),
        )

    async def _poll(
        self, queue: StoredQueue, limit: int, visibility_seconds: int, wait_seconds: int
    ) -> list[SqsMessage]:
        deadline = time.time() + wait_seconds
        while True:
            if queue.is_deleted:
                raise no_such_queue()
            now = time.time()
            messages = self._account.receive(queue, now, limit, visibility_seconds)
            if messages or now >= deadline:
                return messages
            due_at = queue.next_due_at(now)
            until = deadline if due_at is None else min(deadline, due_at)
            await queue.bell.wait(max(until - now, 0.0))

    def _each(
        self, action: str, entries: list[Parameters], perform: Callable[[Parameters], Answer]
    ) -> Answer:
        successful: list[Answer] = []
        failed: list[dict[str, object]] = []
        for entry in entries:
            entry_id = entry.text("Id")
            if self._faults.fails_entry(action):
                failed.append(
                    {
                        "Id": entry_id,
                        "SenderFault": False,
                        "Code": "InternalError",
                        "Message": "The request processing has failed.",
                    }
                )
                continue
            try:
                successful.append({"Id": entry_id, **perform(entry)})
            except SqsError as error:
                failed.append(error.entry(entry_id))
        return {"Successful": successful, "Failed": failed}

    def _send(self, queue: StoredQueue, entry: Parameters, now: float) -> Answer:
        message = _read_message(queue, entry, now)
        default_delay = queue.settings.seconds("DelaySeconds")
        delay = entry.integer("DelaySeconds", default_delay, 0, 900)
        if queue.settings.is_fifo and entry.integer("DelaySeconds", 0, 0, 900):
            raise invalid_value(
                delay,
                "DelaySeconds",
                "The request include parameter that is not valid for this queue type.",
            )
        original = queue.original_of(message, now)
        if original is None:
            queue.put(message, now, delay)
        return _sent(queue, original or message, message)


def _entry_size(entry: Parameters) -> int:
    body = entry.optional_text("MessageBody") or ""
    try:
        return contents_size(body, entry.attributes("MessageAttributes"))
    except (KeyError, ValueError):
        # Malformed attributes fail their own entry later, with the reason.
        return contents_size(body, {})


def _read_message(queue: StoredQueue, entry: Parameters, now: float) -> SqsMessage:
    body = entry.optional_text("MessageBody") or ""
    check_body(body)
    attributes = entry.attributes("MessageAttributes")
    check_attributes(attributes)
    limit = queue.settings.seconds("MaximumMessageSize")
    if contents_size(body, attributes) > limit:
        raise SqsError(
            "InvalidParameterValue",
            "One or more parameters are invalid. Reason: Message must be shorter than "
            f"{limit} bytes.",
        )
    trace = entry.attributes("MessageSystemAttributes").get("AWSTraceHeader", {})
    return SqsMessage(
        body=body,
        sent_at=now,
        attributes=attributes,
        trace_header=trace.get("StringValue"),
        group_id=_group_id(queue, entry),
        deduplication_id=_deduplication_id(queue, entry, body),
    )


def _group_id(queue: StoredQueue, entry: Parameters) -> str | None:
    group_id = entry.optional_text("MessageGroupId")
    if queue.settings.is_fifo and not group_id:
        raise missing("MessageGroupId")
    return group_id


def _deduplication_id(queue: StoredQueue, entry: Parameters, body: str) -> str | None:
    given = entry.optional_text("MessageDeduplicationId")
    if not queue.settings.is_fifo:
        if given is not None:
            raise invalid_value(
                given,
                "MessageDeduplicationId",
                "The request includes a parameter that is not valid for this queue type.",
            )
        return None
    if given is None and not queue.settings.deduplicates_by_content:
        raise SqsError(
            "InvalidParameterValue",
            "The queue should either have ContentBasedDeduplication enabled or "
            "MessageDeduplicationId provided explicitly",
        )
    return given or hashlib.sha256(body.encode()).hexdigest()


def _sent(queue: StoredQueue, stored: SqsMessage, sent: SqsMessage) -> Answer:
    answer: Answer = {"MessageId": stored.message_id, "MD5OfMessageBody": sent.body_md5}
    if sent.attributes:
        answer["MD5OfMessageAttributes"] = attributes_md5(sent.attributes)
    if sent.trace_header is not None:
        header = {"AWSTraceHeader": {"DataType": "String", "StringValue": sent.trace_header}}
        answer["MD5OfMessageSystemAttributes"] = attributes_md5(header)
    if queue.settings.is_fifo:
        answer["SequenceNumber"] = str(stored.sequence_number)
    return answer


def _received(queue: StoredQueue, message: SqsMessage, request: Parameters) -> Answer:
    answer: Answer = {
        "MessageId": message.message_id,
        "ReceiptHandle": queue.receipt_handle(message),
        "MD5OfBody": message.body_md5,
        "Body": message.body,
    }
    wanted = set(request.texts("AttributeNames") + request.texts("MessageSystemAttributeNames"))
    if wanted:
        found = message.system_attributes(ACCOUNT_ID)
        selected = {n: v for n, v in found.items() if "All" in wanted or n in wanted}
        if selected:
            answer["Attributes"] = selected
    attributes = select_attributes(message.attributes, request.texts("MessageAttributeNames"))
    if attributes:
        answer["MessageAttributes"] = attributes
        answer["MD5OfMessageAttributes"] = attributes_md5(attributes)
    return answer


def _change_visibility(queue: StoredQueue, entry: Parameters, now: float) -> Answer:
    handle = entry.text("ReceiptHandle")
    seconds = entry.required_integer("VisibilityTimeout", 0, MAX_VISIBILITY_SECONDS)
    queue.change_visibility(handle, seconds, now)
    return {}
