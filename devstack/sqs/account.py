"""All queues of the one account the endpoint plays, and the links between them."""

from collections.abc import Mapping
from typing import Final

from devstack.sqs.errors import SqsError, invalid_value, no_such_queue
from devstack.sqs.messages import SqsMessage
from devstack.sqs.queues import StoredQueue, dead_letter_copy
from devstack.sqs.settings import SqsQueueSettings, check_name

ACCOUNT_ID: Final = "000000000000"


class Account:
    """Queues by name; dead-letter targets are found by ARN at the moment they are needed."""

    def __init__(self, region: str) -> None:
        self._arn_prefix = f"arn:aws:sqs:{region}:{ACCOUNT_ID}:"
        self._queues: dict[str, StoredQueue] = {}

    def create(
        self, name: str, attributes: Mapping[str, str], tags: Mapping[str, str], now: float
    ) -> StoredQueue:
        """Create a queue, or return the one that exists with these same attributes."""
        existing = self._queues.get(name)
        if existing is not None:
            self._check_same(existing, attributes)
            return existing
        check_name(name, is_fifo=attributes.get("FifoQueue") == "true")
        settings = SqsQueueSettings()
        settings.update(attributes)
        self._check_target(settings, attributes)
        queue = StoredQueue(name, self._arn_prefix + name, settings, now)
        queue.tags.update(tags)
        self._queues[name] = queue
        return queue

    def change(self, queue: StoredQueue, attributes: Mapping[str, str], now: float) -> None:
        """Change settings of a queue; all of them or, on an error, none."""
        if attributes.get("FifoQueue", queue.settings.given.get("FifoQueue")) != (
            queue.settings.given.get("FifoQueue")
        ):
            raise SqsError("InvalidAttributeValue", "Invalid value for the parameter FifoQueue.")
        candidate = SqsQueueSettings(dict(queue.settings.given), queue.settings.redrive)
        candidate.update(attributes)
        self._check_target(candidate, attributes)
        queue.settings = candidate
        queue.modified_at = now

    def named(self, name: str) -> StoredQueue:
        """Return the queue or raise QueueDoesNotExist."""
        queue = self._queues.get(name)
        if queue is None:
            raise no_such_queue()
        return queue

    def by_arn(self, arn: str) -> StoredQueue | None:
        """Return the queue of this ARN, if there is one."""
        return self._queues.get(arn.removeprefix(self._arn_prefix))

    def listed(self, prefix: str) -> list[StoredQueue]:
        """Return the queues whose names start with the prefix, by name."""
        return [self._queues[name] for name in sorted(self._queues) if name.startswith(prefix)]

    def sources_of(self, queue: StoredQueue) -> list[StoredQueue]:
        """Return the queues that use this one as their dead-letter queue."""
        return [
            source
            for source in self._queues.values()
            if source.settings.redrive and source.settings.redrive.target_arn == queue.arn
        ]

    def delete(self, queue: StoredQueue) -> None:
        """Forget the queue; those polling it get QueueDoesNotExist."""
        del self._queues[queue.name]
        queue.is_deleted = True
        queue.bell.ring_all()

    def receive(
        self, queue: StoredQueue, now: float, limit: int, visibility_seconds: float
    ) -> list[SqsMessage]:
        """Receive from the queue, dead-lettering messages that were received too often."""

        def dead_letter(message: SqsMessage, at: float) -> bool:
            redrive = queue.settings.redrive
            target = self.by_arn(redrive.target_arn) if redrive else None
            if target is None:
                return False
            target.put(dead_letter_copy(message, queue.arn), at)
            return True

        return queue.receive(now, limit, visibility_seconds, dead_letter)

    def _check_same(self, queue: StoredQueue, attributes: Mapping[str, str]) -> None:
        shown = queue.settings.shown()
        for name, value in attributes.items():
            if shown.get(name) != value:
                raise SqsError(
                    "QueueNameExists",
                    "A queue already exists with the same name and a different value for "
                    f"attribute {name}",
                )

    def _check_target(self, settings: SqsQueueSettings, changes: Mapping[str, str]) -> None:
        if settings.redrive is None or "RedrivePolicy" not in changes:
            return
        policy = changes["RedrivePolicy"]
        target = self.by_arn(settings.redrive.target_arn)
        if target is None:
            raise invalid_value(policy, "RedrivePolicy", "Dead letter target does not exist.")
        if target.settings.is_fifo != settings.is_fifo:
            raise invalid_value(
                policy,
                "RedrivePolicy",
                "Dead-letter queue must be same type of queue as the source.",
            )
