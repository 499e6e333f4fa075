"""Messages nobody could deal with, which of them somebody means, and how many are too many."""

from collections import deque
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta

REASON = "dead_reason"
FIRST_SEEN_AT = "first_seen_at"
RECEIVE_COUNT = "receive_count"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One delivery of a message of the dead-letter queue. `receipt` is good for this one only."""

    message_id: str
    receipt: str
    body: str
    dead_at: datetime | None = None
    group_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why it is there; empty when SQS moved it by itself."""
        return self.attributes.get(REASON, "")

    @property
    def first_seen_at(self) -> datetime | None:
        """When it was first received."""
        try:
            moment = datetime.fromisoformat(self.attributes.get(FIRST_SEEN_AT, ""))
        except ValueError:
            return None
        return moment if moment.tzinfo is not None else None

    @property
    def receive_count(self) -> int:
        """Receives before it was given up; 0 when nobody told."""
        count = self.attributes.get(RECEIVE_COUNT, "")
        return int(count) if count.isascii() and count.isdecimal() and len(count) < 10 else 0

    def has_died_since(self, moment: datetime) -> bool:
        """Tell whether it came to the dead-letter queue only after that moment."""
        return self.dead_at is not None and self.dead_at > moment

    def attributes_to_resend(self) -> dict[str, str]:
        """Return what it carries when it is tried again: all but why it was given up."""
        return {n: v for n, v in self.attributes.items() if n not in (REASON, RECEIVE_COUNT)}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: those of `message_ids` and `reason`; empty means any."""

    message_ids: Set[str] = frozenset()
    reason: str = ""

    def matches(self, letter: DeadLetter) -> bool:
        """Tell whether this one is meant."""
        is_named = not self.message_ids or letter.message_id in self.message_ids
        return is_named and self.reason in ("", letter.reason)

    def is_exhausted(self, matched: int) -> bool:
        """Tell whether no more can match."""
        return bool(self.message_ids) and matched >= len(self.message_ids)


class BurialLimit:
    """At most so many dead letters within a minute.

    Few messages are poison of their own making; when many are, it is more likely us, and what is
    still in the queue is better off there.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._latest: deque[datetime] = deque()

    def admit(self, now: datetime) -> bool:
        """Count one burial, unless there have been too many."""
        while self._latest and now - self._latest[0] >= timedelta(minutes=1):
            self._latest.popleft()
        if len(self._latest) >= self._per_minute:
            return False
        self._latest.append(now)
        return True

    def forgive(self) -> None:
        """Begin to count anew."""
        self._latest.clear()
