"""Up to when everything that was committed has been applied, as far as it was received."""

from datetime import datetime

from services.cdc_ingest.domain.messages import Arrival, Message


class Horizon:
    """Follows messages from being held to their end, by when their changes were committed.

    Not by when they were captured: a capture that lags tells of old commits now. What went back
    to SQS has not been applied: it counts until it comes again, or until others must have received
    it. Dead letters no longer count.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._held: dict[str, datetime | None] = {}
        self._returned: dict[str, tuple[datetime | None, float]] = {}
        self._newest: datetime | None = None
        self._alive_at: datetime | None = None
        # Where the horizon was a while ago: to look through all for each message would be dear.
        self._mark: datetime | None = None

    @property
    def alive_at(self) -> datetime | None:
        """Capture time of the newest message, heartbeats included; None before the first."""
        return self._alive_at

    @property
    def applied_through(self) -> datetime | None:
        """The moment up to which all is applied; None when it cannot be told. From any thread."""
        bounds = [*self._held.values(), *(bound for bound, _ in list(self._returned.values()))]
        if None in bounds:
            return None
        return min((bound for bound in bounds if bound is not None), default=self._newest)

    def hold(self, arrival: Arrival) -> None:
        """Note a message just received, or more of one that is held."""
        message, told, captured = arrival.message, arrival.committed_from, arrival.captured_from
        if captured is not None and (self._alive_at is None or captured > self._alive_at):
            self._alive_at = captured
        before, _ = self._returned.pop(message.message_id, (None, 0.0))
        if told is None:
            # Nothing tells its age: until it is done, no more is promised than was before it.
            if self._mark is None and self._newest is not None:
                self._mark = self.applied_through
            told = self._held.get(message.receipt) or before or self._mark
        elif self._newest is None or told > self._newest:
            self._newest = told
        self._held[message.receipt] = told

    def finish(self, message: Message) -> None:
        """Note that a message has been applied or buried."""
        self._held.pop(message.receipt, None)

    def give_back(self, message: Message, visible_at: float) -> None:
        """Note that it will come again, to whomever; `visible_at` is of the monotonic clock."""
        if message.receipt in self._held:
            bound = self._held.pop(message.receipt)
            self._returned[message.message_id] = (bound, visible_at + self._grace_seconds)

    def tidy(self, now: float, *, is_receiving: bool) -> None:
        """Forget what others must have received by now; while nobody receives nothing is."""
        self._mark = self.applied_through or self._mark
        if not is_receiving:
            least = now + self._grace_seconds
            self._returned = {
                key: (bound, max(until, least)) for key, (bound, until) in self._returned.items()
            }
            return
        self._returned = {key: each for key, each in self._returned.items() if each[1] > now}
