"""Message move tasks: giving a dead-letter queue's messages back, at a bounded rate."""

import asyncio
import base64
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from devstack.sqs.account import Account
from devstack.sqs.errors import SqsError, invalid_value
from devstack.sqs.queues import StoredQueue, moved_copy

_SLICE = 100


@dataclass(slots=True)
class MoveTask:
    """One task and its progress."""

    source: StoredQueue
    destination_arn: str | None
    rate_per_second: int | None
    to_move: int
    started_at: float
    status: str = "RUNNING"
    moved: int = 0
    failure: str | None = None
    handle: str = field(default_factory=lambda: base64.b64encode(uuid.uuid4().bytes).decode())

    def shown(self) -> dict[str, Any]:
        """Return the task as ListMessageMoveTasks reports it."""
        found: dict[str, Any] = {
            "Status": self.status,
            "SourceArn": self.source.arn,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.to_move,
            "StartedTimestamp": int(self.started_at * 1000),
        }
        if self.status == "RUNNING":
            found["TaskHandle"] = self.handle
        if self.destination_arn:
            found["DestinationArn"] = self.destination_arn
        if self.rate_per_second:
            found["MaxNumberOfMessagesPerSecond"] = self.rate_per_second
        if self.failure:
            found["FailureReason"] = self.failure
        return found


class MoveTasks:
    """Starts tasks, one at a time for each source, and remembers the last ten of it."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._tasks: list[MoveTask] = []
        self._running: set[asyncio.Task[None]] = set()

    def start(self, source_arn: str, destination_arn: str | None, rate: int | None) -> MoveTask:
        """Begin moving; without a destination each message returns to where it came from."""
        source = self._source(source_arn)
        if not self._account.sources_of(source):
            raise invalid_value(
                source_arn, "SourceArn", "Source queue must be configured as a Dead Letter Queue."
            )
        if destination_arn is not None and self._account.by_arn(destination_arn) is None:
            raise _not_found("destinationArn")
        if any(task.source is source and task.status == "RUNNING" for task in self._tasks):
            raise SqsError(
                "UnsupportedOperation",
                "There is already a task running. Only one active task is allowed for a source "
                "queue arn at a given time.",
            )
        now = time.time()
        to_move = source.counts(now)["ApproximateNumberOfMessages"]
        task = MoveTask(source, destination_arn, rate, to_move, now)
        self._tasks.append(task)
        running = asyncio.create_task(self._move(task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return task

    def cancel(self, handle: str) -> int:
        """Stop a running task and return how many messages it has moved."""
        for task in self._tasks:
            if task.handle == handle and task.status == "RUNNING":
                task.status = "CANCELLED"
                return task.moved
        raise SqsError("ResourceNotFoundException", "Task does not exist.")

    def of_source(self, source_arn: str, limit: int) -> list[MoveTask]:
        """Return the source's latest tasks, newest first."""
        source = self._source(source_arn)
        return [task for task in reversed(self._tasks) if task.source is source][:limit]

    def _source(self, source_arn: str) -> StoredQueue:
        source = self._account.by_arn(source_arn)
        if source is None:
            raise _not_found("sourceArn")
        return source

    async def _move(self, task: MoveTask) -> None:
        while task.status == "RUNNING" and task.moved < task.to_move:
            for _ in range(1 if task.rate_per_second else _SLICE):
                if not self._move_one(task):
                    return
            await asyncio.sleep(1 / task.rate_per_second if task.rate_per_second else 0)
        if task.status == "RUNNING":
            task.status = "COMPLETED"

    def _move_one(self, task: MoveTask) -> bool:
        now = time.time()
        message = task.source.take_for_move(now)
        if message is None:
            task.status = "COMPLETED"
            return False
        target = self._account.by_arn(task.destination_arn or message.source_arn or "")
        if target is None:
            message.is_stored = True
            task.source.put(message, now)
            task.status = "FAILED"
            task.failure = "AWS.SimpleQueueService.NonExistentQueue"
            return False
        target.put(moved_copy(message, now), now)
        task.moved += 1
        return True


def _not_found(parameter: str) -> SqsError:
    return SqsError(
        "ResourceNotFoundException",
        f"The resource that you specified for the {parameter} parameter doesn't exist.",
    )
