"""Dead letters, the selection of an operator among them, and the limit on their rate."""

from collections import deque
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta

REASON = "dead_reason"
FIRST_SEEN_AT = "first_seen_at"
RECEIVE_COUNT = "receive_count"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One delivery from the dead-letter queue. `receipt` is valid for this delivery only."""

    message_id: str
    receipt: str
    body: str
    dead_lettered_at: datetime | None = None
    group_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why the message was dead-lettered; empty when SQS moved it by its redrive policy."""
        return self.attributes.get(REASON, "")

    @property
    def first_seen_at(self) -> datetime | None:
        """When the message was first received; None when unknown."""
        try:
            moment = datetime.fromisoformat(self.attributes.get(FIRST_SEEN_AT, ""))
        except ValueError:
            return None
        return moment if moment.tzinfo is not None else None

    @property
    def receive_count(self) -> int:
        """Receives before the message was dead-lettered; 0 when unknown."""
        count = self.attributes.get(RECEIVE_COUNT, "")
        return int(count) if count.isascii() and count.isdecimal() and len(count) < 10 else 0

    def is_dead_lettered_since(self, moment: datetime) -> bool:
        """Tell whether the message came to the dead-letter queue after that moment."""
        return self.dead_lettered_at is not None and self.dead_lettered_at > moment

    def attributes_to_resend(self) -> dict[str, str]:
        """Return the attributes to send again: all but the reason and the receive count."""
        return {n: v for n, v in self.attributes.items() if n not in (REASON, RECEIVE_COUNT)}


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects dead letters by `message_ids` and `reason`; empty means any."""

    message_ids: Set[str] = frozenset()
    reason: str = ""

    def matches(self, letter: DeadLetter) -> bool:
        """Tell whether the dead letter is selected."""
        is_named = not self.message_ids or letter.message_id in self.message_ids
        return is_named and self.reason in ("", letter.reason)

    def is_exhausted(self, matched: int) -> bool:
        """Tell whether no further dead letter can match."""
        return bool(self.message_ids) and matched >= len(self.message_ids)


class DeadLetterRateLimit:
    """Admits at most `per_minute` dead letters within a minute.

    A few messages may be faulty. When many are, the fault is more likely in this service, and the
    messages are safer in the queue.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._latest: deque[datetime] = deque()

    def admit(self, now: datetime) -> bool:
        """Count one dead letter and return True; False when the limit is reached."""
        while self._latest and now - self._latest[0] >= timedelta(minutes=1):
            self._latest.popleft()
        if len(self._latest) >= self._per_minute:
            return False
        self._latest.append(now)
        return True

    def reset(self) -> None:
        """Forget the dead letters counted so far."""
        self._latest.clear()
