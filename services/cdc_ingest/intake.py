"""Whether messages may be received, and the bound on how many are held at once."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Condition

from services.cdc_ingest.domain.messages import Message
from services.cdc_ingest.store import MAX_BATCH


class Intake:
    """Shared by the receiving threads and the event loop; no method but `admit` waits."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._changed = Condition()
        self._messages = 0
        self._bytes = 0
        self._is_paused = False
        self._is_held = False
        self._is_closed = False

    @property
    def is_paused(self) -> bool:
        """True while an operator wants nothing received."""
        return self._is_paused

    @property
    def is_closed(self) -> bool:
        """True once the service stops."""
        return self._is_closed

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
            return True

    def took(self, messages: Iterable[Message]) -> None:
        """Replace one reservation by what was received."""
        sizes = [message.size_bytes for message in messages]
        self._change(messages=len(sizes) - MAX_BATCH, size_bytes=sum(sizes))

    def left(self, message: Message) -> None:
        """Give back the place of a message that is settled."""
        self._change(messages=-1, size_bytes=-message.size_bytes)

    def pause(self) -> None:
        """Receive nothing until `resume`, for the operator."""
        self._set(paused=True)

    def resume(self) -> None:
        """End the operator's pause."""
        self._set(paused=False)

    def hold(self) -> None:
        """Receive nothing until `release`, because those who do the work are away."""
        self._set(held=True)

    def release(self) -> None:
        """End the hold."""
        self._set(held=False)

    def close(self) -> None:
        """Receive nothing ever again."""
        self._set(closed=True)

    def _has_room(self) -> bool:
        if self._is_paused or self._is_held:
            return False
        return self._messages + MAX_BATCH <= self._max_messages and self._bytes < self._max_bytes

    def _change(self, *, messages: int, size_bytes: int) -> None:
        with self._changed:
            self._messages += messages
            self._bytes += size_bytes
            self._changed.notify_all()

    def _set(
        self, *, paused: bool | None = None, held: bool | None = None, closed: bool | None = None
    ) -> None:
        with self._changed:
            self._is_paused = self._is_paused if paused is None else paused
            self._is_held = self._is_held if held is None else held
            self._is_closed = self._is_closed if closed is None else closed
            self._changed.notify_all()
