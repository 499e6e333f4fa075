"""The actions on queues: create, find, describe, change, purge, tag, move."""

import time
from typing import Any

import orjson

from devstack.sqs.account import ACCOUNT_ID, Account
from devstack.sqs.errors import SqsError, missing
from devstack.sqs.message_actions import MessageActions
from devstack.sqs.moves import MoveTasks
from devstack.sqs.parameters import Parameters
from devstack.sqs.queues import StoredQueue

Answer = dict[str, Any]

_KNOWN = frozenset(
    {
        "All",
        "Policy",
        "VisibilityTimeout",
        "MaximumMessageSize",
        "MessageRetentionPeriod",
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "CreatedTimestamp",
        "LastModifiedTimestamp",
        "QueueArn",
        "ApproximateNumberOfMessagesDelayed",
        "DelaySeconds",
        "ReceiveMessageWaitTimeSeconds",
        "RedrivePolicy",
        "FifoQueue",
        "ContentBasedDeduplication",
        "KmsMasterKeyId",
        "KmsDataKeyReusePeriodSeconds",
        "DeduplicationScope",
        "FifoThroughputLimit",
        "RedriveAllowPolicy",
        "SqsManagedSseEnabled",
    }
)


class QueueActions:
    """Translates requests about queues; URLs are made with the host the caller used."""

    def __init__(self, account: Account, messages: MessageActions, moves: MoveTasks) -> None:
        self._account = account
        self._queue = messages.queue
        self._moves = moves

    async def create_queue(self, request: Parameters, base_url: str) -> Answer:
        """CreateQueue."""
        queue = self._account.create(
            request.text("QueueName"),
            request.strings("Attributes"),
            request.strings("tags"),
            time.time(),
        )
        return {"QueueUrl": _url(queue, base_url)}

    async def get_queue_url(self, request: Parameters, base_url: str) -> Answer:
        """GetQueueUrl."""
        queue = self._account.named(request.text("QueueName"))
        return {"QueueUrl": _url(queue, base_url)}

    async def list_queues(self, request: Parameters, base_url: str) -> Answer:
        """ListQueues, with a next token only when MaxResults asked for pages."""
        queues = self._account.listed(request.optional_text("QueueNamePrefix") or "")
        page, token = _page(queues, request)
        answer: Answer = {"QueueUrls": [_url(queue, base_url) for queue in page]} if page else {}
        return answer | token

    async def list_dead_letter_source_queues(self, request: Parameters, base_url: str) -> Answer:
        """ListDeadLetterSourceQueues."""
        page, token = _page(self._account.sources_of(self._queue(request)), request)
        return {"queueUrls": [_url(queue, base_url) for queue in page]} | token

    async def delete_queue(self, request: Parameters) -> Answer:
        """DeleteQueue."""
        self._account.delete(self._queue(request))
        return {}

    async def purge_queue(self, request: Parameters) -> Answer:
        """PurgeQueue; at once, not within 60 seconds."""
        self._queue(request).purge()
        return {}

    async def get_queue_attributes(self, request: Parameters) -> Answer:
        """GetQueueAttributes."""
        queue = self._queue(request)
        wanted = request.texts("AttributeNames")
        for name in wanted:
            if name not in _KNOWN:
                raise SqsError("InvalidAttributeName", f"Unknown Attribute {name}.")
        found = _described(queue, time.time())
        chosen = {n: v for n, v in found.items() if "All" in wanted or n in wanted}
        return {"Attributes": chosen} if chosen else {}

    async def set_queue_attributes(self, request: Parameters) -> Answer:
        """SetQueueAttributes."""
        if not request.has("Attributes"):
            raise missing("Attributes")
        self._account.change(self._queue(request), request.strings("Attributes"), time.time())
        return {}

    async def tag_queue(self, request: Parameters) -> Answer:
        """TagQueue."""
        self._queue(request).tags.update(request.strings("Tags"))
        return {}

    async def untag_queue(self, request: Parameters) -> Answer:
        """UntagQueue."""
        tags = self._queue(request).tags
        for key in request.texts("TagKeys"):
            tags.pop(key, None)
        return {}

    async def list_queue_tags(self, request: Parameters) -> Answer:
        """ListQueueTags."""
        tags = self._queue(request).tags
        return {"Tags": tags} if tags else {}

    async def start_message_move_task(self, request: Parameters) -> Answer:
        """StartMessageMoveTask."""
        rate = request.integer("MaxNumberOfMessagesPerSecond", 0, 1, 500)
        task = self._moves.start(
            request.text("SourceArn"), request.optional_text("DestinationArn"), rate or None
        )
        return {"TaskHandle": task.handle}

    async def list_message_move_tasks(self, request: Parameters) -> Answer:
        """ListMessageMoveTasks."""
        limit = request.integer("MaxResults", 1, 1, 10)
        tasks = self._moves.of_source(request.text("SourceArn"), limit)
        return {"Results": [task.shown() for task in tasks]}

    async def cancel_message_move_task(self, request: Parameters) -> Answer:
        """CancelMessageMoveTask."""
        moved = self._moves.cancel(request.text("TaskHandle"))
        return {"ApproximateNumberOfMessagesMoved": moved}


def _url(queue: StoredQueue, base_url: str) -> str:
    return f"{base_url}/{ACCOUNT_ID}/{queue.name}"


def _page(queues: list[StoredQueue], request: Parameters) -> tuple[list[StoredQueue], Answer]:
    limit = request.integer("MaxResults", 1000, 1, 1000)
    token = request.optional_text("NextToken") or "0"
    if not token.isdigit():
        raise SqsError("InvalidParameterValue", "Invalid or expired next token.")
    start = int(token)
    is_more = request.has("MaxResults") and start + limit < len(queues)
    return queues[start : start + limit], {"NextToken": str(start + limit)} if is_more else {}


def _described(queue: StoredQueue, now: float) -> dict[str, str]:
    found = queue.settings.shown()
    found |= {name: str(count) for name, count in queue.counts(now).items()}
    found |= {
        "QueueArn": queue.arn,
        "CreatedTimestamp": str(int(queue.created_at)),
        "LastModifiedTimestamp": str(int(queue.modified_at)),
    }
    redrive = queue.settings.redrive
    if redrive is not None:
        found["RedrivePolicy"] = orjson.dumps(
            {"deadLetterTargetArn": redrive.target_arn, "maxReceiveCount": redrive.max_receives}
        ).decode()
    return found
