"""One queue: what is stored, ready, delayed and in flight. The time is an argument."""

import base64
import binascii
import dataclasses
import heapq
import itertools
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from devstack.sqs.errors import SqsError, invalid_value
from devstack.sqs.messages import SqsMessage
from devstack.sqs.ordering import AnyOrder, GroupOrder, Ordering
from devstack.sqs.polling import Doorbell
from devstack.sqs.settings import SqsQueueSettings

MAX_IN_FLIGHT: Final = 120_000
MAX_VISIBILITY_SECONDS: Final = 43_200
_DEDUPLICATION_SECONDS = 300.0

DeadLetter = Callable[[SqsMessage, float], bool]
"""Moves a message to the dead-letter queue; False when there is none to take it."""


class StoredQueue:
    """A standard or FIFO queue in memory; every operation is O(log n) or better, amortised."""

    def __init__(self, name: str, arn: str, settings: SqsQueueSettings, now: float) -> None:
        self.name = name
        self.arn = arn
        self.settings = settings
        self.created_at = now
        self.modified_at = now
        self.tags: dict[str, str] = {}
        self.bell = Doorbell()
        self.is_deleted = False
        self._token = secrets.token_hex(4)
        self._tie = itertools.count()
        self._duplicates: dict[str, tuple[float, SqsMessage]] = {}
        self._duplicate_ages: deque[tuple[float, str]] = deque()
        self._empty()

    def _empty(self) -> None:
        self._stored: OrderedDict[str, SqsMessage] = OrderedDict()
        self._in_flight: dict[str, SqsMessage] = {}
        self._delayed: dict[str, SqsMessage] = {}
        self._due: list[tuple[float, int, SqsMessage]] = []
        self._order: Ordering = GroupOrder() if self.settings.is_fifo else AnyOrder()

    def counts(self, now: float) -> dict[str, int]:
        """Return the three approximate message counts, which here are exact."""
        self._settle(now)
        ready = len(self._stored) - len(self._in_flight) - len(self._delayed)
        return {
            "ApproximateNumberOfMessages": ready,
            "ApproximateNumberOfMessagesNotVisible": len(self._in_flight),
            "ApproximateNumberOfMessagesDelayed": len(self._delayed),
        }

    @property
    def is_over_limit(self) -> bool:
        """Whether so many messages are in flight that no more are handed out."""
        return len(self._in_flight) >= MAX_IN_FLIGHT

    def original_of(self, message: SqsMessage, now: float) -> SqsMessage | None:
        """Return the message this one repeats within five minutes, else remember it."""
        if message.deduplication_id is None:
            return None
        while self._duplicate_ages and self._duplicate_ages[0][0] <= now:
            self._duplicates.pop(self._duplicate_ages.popleft()[1], None)
        scope = message.group_id if self.settings.deduplicates_per_group else ""
        key = f"{scope}\0{message.deduplication_id}"
        known = self._duplicates.get(key)
        if known is not None:
            return known[1]
        expires_at = now + _DEDUPLICATION_SECONDS
        self._duplicates[key] = (expires_at, message)
        self._duplicate_ages.append((expires_at, key))
        return None

    def put(self, message: SqsMessage, now: float, delay_seconds: float = 0) -> None:
        """Store a message, ready at once or after the delay."""
        self._stored[message.message_id] = message
        if delay_seconds <= 0:
            self._make_ready(message)
            return
        message.visible_at = now + delay_seconds
        self._delayed[message.message_id] = message
        heapq.heappush(self._due, (message.visible_at, next(self._tie), message))
        # A waiter has to learn that there is now something to wait for.
        self.bell.ring()

    def receive(
        self, now: float, limit: int, visibility_seconds: float, dead_letter: DeadLetter
    ) -> list[SqsMessage]:
        """Return up to `limit` messages; those received too often are dead-lettered instead."""
        self._settle(now)
        taken: list[SqsMessage] = []
        limit = min(limit, MAX_IN_FLIGHT - len(self._in_flight))
        while len(taken) < limit:
            message = self._order.take()
            if message is None:
                break
            is_gone = not message.is_stored or self._has_expired(message, now)
            if is_gone or (self._is_dead_letter(message) and dead_letter(message, now)):
                self._drop(message)
            else:
                taken.append(message)
        self._order.lock(taken)
        for message in taken:
            self._hand_out(message, now, visibility_seconds)
        return taken

    def receipt_handle(self, message: SqsMessage) -> str:
        """Return the handle of the message's latest receive."""
        text = f"{self._token}/{message.message_id}/{message.receipt_nonce}"
        return base64.b64encode(text.encode()).decode()

    def delete(self, receipt_handle: str, now: float) -> None:
        """Delete by the latest handle; an older one succeeds without deleting anything."""
        self._settle(now)
        message, is_latest = self._find(receipt_handle)
        if message is None or not is_latest:
            return
        if self.settings.is_fifo and message.message_id not in self._in_flight:
            raise invalid_value(receipt_handle, "ReceiptHandle", "The receipt handle has expired.")
        self._drop(message)

    def change_visibility(self, receipt_handle: str, seconds: int, now: float) -> None:
        """Move the moment a message in flight becomes visible again; 0 means at once."""
        self._settle(now)
        message, is_latest = self._find(receipt_handle)
        if message is None or not is_latest or message.message_id not in self._in_flight:
            raise invalid_value(
                receipt_handle,
                "ReceiptHandle",
                "Message does not exist or is not available for visibility timeout change.",
            )
        if seconds == 0:
            self._return(message)
            return
        message.visible_at = now + seconds
        heapq.heappush(self._due, (message.visible_at, next(self._tie), message))
        self.bell.ring()

    def purge(self) -> None:
        """Forget every message, in flight or not."""
        for message in self._stored.values():
            message.is_stored = False
        self._empty()

    def next_due_at(self, now: float) -> float | None:
        """Return when a delayed or invisible message next becomes ready, if any."""
        self._settle(now)
        while self._due and not self._is_current(self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def take_for_move(self, now: float) -> SqsMessage | None:
        """Remove and return one ready message without counting a receive."""
        self._settle(now)
        while (message := self._order.take()) is not None:
            was_stored = message.is_stored
            self._drop(message)
            if was_stored:
                return message
        return None

    def _settle(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)
            if not self._is_current(entry):
                continue
            message = entry[2]
            if self._delayed.pop(message.message_id, None) is not None:
                self._make_ready(message)
            else:
                self._return(message)
        while self._stored:
            oldest = next(iter(self._stored.values()))
            if not self._has_expired(oldest, now):
                break
            self._drop(oldest)

    def _is_current(self, entry: tuple[float, int, SqsMessage]) -> bool:
        at, _, message = entry
        key = message.message_id
        waits = key in self._in_flight or key in self._delayed
        return message.is_stored and waits and message.visible_at == at

    def _is_dead_letter(self, message: SqsMessage) -> bool:
        redrive = self.settings.redrive
        return redrive is not None and message.receives >= redrive.max_receives

    def _has_expired(self, message: SqsMessage, now: float) -> bool:
        return now - message.enqueued_at >= self.settings.seconds("MessageRetentionPeriod")

    def _make_ready(self, message: SqsMessage) -> None:
        self._order.push(message)
        self.bell.ring()

    def _hand_out(self, message: SqsMessage, now: float, visibility_seconds: float) -> None:
        message.receives += 1
        message.receipt_nonce = secrets.token_hex(8)
        if message.first_received_at is None:
            message.first_received_at = now
        self._in_flight[message.message_id] = message
        message.visible_at = now + visibility_seconds
        heapq.heappush(self._due, (message.visible_at, next(self._tie), message))

    def _return(self, message: SqsMessage) -> None:
        del self._in_flight[message.message_id]
        self._order.push(message)
        self._order.release(message)
        self.bell.ring()

    def _drop(self, message: SqsMessage) -> None:
        message.is_stored = False
        self._stored.pop(message.message_id, None)
        self._delayed.pop(message.message_id, None)
        if self._in_flight.pop(message.message_id, None) is not None:
            self._order.release(message)
            if self.settings.is_fifo:
                self.bell.ring()

    def _find(self, receipt_handle: str) -> tuple[SqsMessage | None, bool]:
        try:
            decoded = base64.b64decode(receipt_handle, validate=True).decode()
            token, message_id, nonce = decoded.split("/")
        except (binascii.Error, ValueError) as error:
            raise _bad_handle(receipt_handle) from error
        if token != self._token:
            raise _bad_handle(receipt_handle)
        message = self._stored.get(message_id)
        return message, message is not None and message.receipt_nonce == nonce


def dead_letter_copy(message: SqsMessage, source_arn: str) -> SqsMessage:
    """Return the message as it appears in a dead-letter queue: same id, age and counts."""
    return dataclasses.replace(
        message,
        source_arn=source_arn,
        earlier_receives=message.total_receives,
        receives=0,
        receipt_nonce="",
        is_stored=True,
    )


def moved_copy(message: SqsMessage, now: float) -> SqsMessage:
    """Return the message as a move task sends it on: new id, new age, never received."""
    return SqsMessage(
        body=message.body,
        sent_at=now,
        attributes=message.attributes,
        trace_header=message.trace_header,
        group_id=message.group_id,
        deduplication_id=message.deduplication_id,
    )


def _bad_handle(receipt_handle: str) -> SqsError:
    return SqsError(
        "ReceiptHandleIsInvalid",
        f'The input receipt handle "{receipt_handle}" is not a valid receipt handle.',
    )
