"""Whether messages may be received, and the bound on how many are held at once."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from threading import Condition

from services.cdc_ingest import metrics
from services.cdc_ingest.domain.messages import Message
from services.cdc_ingest.store import MAX_BATCH


class Stop(Enum):
    """Why nothing is received."""

    OPERATOR = "operator"
    DEAD_LETTERS = "dead_letters"
    DOWNSTREAM = "downstream"


# Messages that a poll still brings while those who work are away are worth keeping.
_GIVING_BACK = frozenset({Stop.OPERATOR, Stop.DEAD_LETTERS})


class Intake:
    """Shared by the receiving threads and the event loop; no method but `admit` waits."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._changed = Condition()
        self._messages = 0
        self._bytes = 0
        self._stops: set[Stop] = set()
        self._is_closed = False

    def is_stopped(self, why: Stop) -> bool:
        """True while nothing is received for that reason."""
        return why in self._stops

    @property
    def is_idle(self) -> bool:
        """True while nothing is received, for whatever reason."""
        return self._is_closed or bool(self._stops)

    @property
    def gives_back(self) -> bool:
        """True while what a poll still brings is to go straight back."""
        return self._is_closed or not self._stops.isdisjoint(_GIVING_BACK)

    @property
    def messages(self) -> int:
        """Messages held, counting the places receivers have reserved."""
        return self._messages

    def admit(self) -> bool:
        """Wait until a receive is wanted and reserve its places; False once it is all over."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._has_room())
            if self._is_closed:
                return False
            self._messages += MAX_BATCH
            metrics.held(self._messages)
            return True

    def took(self, messages: Iterable[Message]) -> None:
        """Replace one reservation by what was received."""
        sizes = [message.size_bytes for message in messages]
        self._change(messages=len(sizes) - MAX_BATCH, size_bytes=sum(sizes))

    def left(self, message: Message) -> None:
        """Give back the place of a message that is settled."""
        self._change(messages=-1, size_bytes=-message.size_bytes)

    def stop(self, why: Stop) -> None:
        """Receive nothing until `go` for the same reason."""
        with self._changed:
            self._stops.add(why)

    def go(self, why: Stop) -> None:
        """End that stop; another reason may still hold."""
        with self._changed:
            self._stops.discard(why)
            self._changed.notify_all()

    def close(self) -> None:
        """Receive nothing ever again."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        if self._stops:
            return False
        return self._messages + MAX_BATCH <= self._max_messages and self._bytes < self._max_bytes

    def _change(self, *, messages: int, size_bytes: int) -> None:
        with self._changed:
            self._messages += messages
            self._bytes += size_bytes
            metrics.held(self._messages)
            self._changed.notify_all()
