"""Whether messages may be received, and how many may be in flight at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from threading import Condition

from services.cdc_ingest import metrics
from services.cdc_ingest.domain.messages import Message
from services.cdc_ingest.sqs.queue import MAX_BATCH


class CloseReason(Enum):
    """Why nothing is received."""

    OPERATOR = "operator"
    DEAD_LETTERS = "dead_letters"
    DOWNSTREAM = "downstream"


# While other services are unavailable, messages that a poll still brings are kept.
_RETURNING = frozenset({CloseReason.OPERATOR, CloseReason.DEAD_LETTERS})


class ReceiveGate:
    """Shared by the receiver threads and the event loop; no method but `reserve` waits."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._changed = Condition()
        self._messages = 0
        self._bytes = 0
        self._reasons: set[CloseReason] = set()
        self._is_shut_down = False

    def is_closed_for(self, reason: CloseReason) -> bool:
        """True while the gate is closed for that reason."""
        return reason in self._reasons

    @property
    def is_closed(self) -> bool:
        """True while nothing is received, for any reason."""
        return self._is_shut_down or bool(self._reasons)

    @property
    def returns_messages(self) -> bool:
        """True while messages that a poll still brings go back to SQS at once."""
        return self._is_shut_down or not self._reasons.isdisjoint(_RETURNING)

    @property
    def messages(self) -> int:
        """Messages in flight, counting the places receivers have reserved."""
        return self._messages

    def reserve(self) -> bool:
        """Wait until a poll may begin and reserve its places; False after `shut_down`."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._is_shut_down
                    or (
                        not self._reasons
                        and self._messages + MAX_BATCH <= self._max_messages
                        and self._bytes < self._max_bytes
                    )
                )
            )
            if self._is_shut_down:
                return False
            self._messages += MAX_BATCH
            metrics.held(self._messages)
            return True

    def fill_reservation(self, messages: Iterable[Message]) -> None:
        """Replace one reservation by what was received."""
        sizes = [message.size_bytes for message in messages]
        self._change(messages=len(sizes) - MAX_BATCH, size_bytes=sum(sizes))

    def release(self, messages: Sequence[Message]) -> None:
        """Free the places of messages that are deleted or visible again."""
        size_bytes = sum(message.size_bytes for message in messages)
        self._change(messages=-len(messages), size_bytes=-size_bytes)

    def close(self, reason: CloseReason) -> None:
        """Receive nothing until `open` with the same reason."""
        with self._changed:
            self._reasons.add(reason)

    def open(self, reason: CloseReason) -> None:
        """Drop that reason; the gate stays closed while another holds."""
        with self._changed:
            self._reasons.discard(reason)
            self._changed.notify_all()

    def shut_down(self) -> None:
        """Close the gate for good."""
        with self._changed:
            self._is_shut_down = True
            self._changed.notify_all()

    def _change(self, *, messages: int, size_bytes: int) -> None:
        with self._changed:
            self._messages += messages
            self._bytes += size_bytes
            metrics.held(self._messages)
            self._changed.notify_all()
