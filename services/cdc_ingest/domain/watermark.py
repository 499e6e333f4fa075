"""The low watermark: every change received and committed before it has been applied."""

from datetime import datetime

from services.cdc_ingest.domain.messages import Arrival, Message


class Watermark:
    """The oldest commit time among the messages in flight, else the newest commit time received.

    Commit times count, not capture times: a capture that lags captures old commits now. A message
    released to SQS has not been applied: it counts until this process receives it again, or until
    another replica must have received it. Dead-lettered messages do not count.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._held: dict[str, datetime | None] = {}
        self._returned: dict[str, tuple[datetime | None, float]] = {}
        self._newest: datetime | None = None
        self._alive_at: datetime | None = None
        # The watermark as of the last run: computing it for each message would be too slow.
        self._mark: datetime | None = None

    @property
    def alive_at(self) -> datetime | None:
        """Capture time of the newest message, heartbeats included; None before the first."""
        return self._alive_at

    @property
    def applied_through(self) -> datetime | None:
        """The watermark; None while it is unknown. May be called from any thread."""
        bounds = [*self._held.values(), *(bound for bound, _ in list(self._returned.values()))]
        if None in bounds:
            return None
        return min((bound for bound in bounds if bound is not None), default=self._newest)

    def hold(self, arrival: Arrival) -> None:
        """Count a message just received; again when the files of a message in flight were read."""
        message = arrival.message
        committed, captured = arrival.committed_from, arrival.captured_from
        if captured is not None and (self._alive_at is None or captured > self._alive_at):
            self._alive_at = captured
        before, _ = self._returned.pop(message.message_id, (None, 0.0))
        if committed is None:
            # The message has no time: the watermark does not advance until it is finished.
            if self._mark is None and self._newest is not None:
                self._mark = self.applied_through
            committed = self._held.get(message.receipt) or before or self._mark
        elif self._newest is None or committed > self._newest:
            self._newest = committed
        self._held[message.receipt] = committed

    def finish(self, message: Message) -> None:
        """Stop counting a message, which has been applied or dead-lettered."""
        self._held.pop(message.receipt, None)

    def release(self, message: Message, visible_at: float) -> None:
        """Count a message as released; SQS delivers it again after `visible_at` (monotonic)."""
        if message.receipt in self._held:
            bound = self._held.pop(message.receipt)
            self._returned[message.message_id] = (bound, visible_at + self._grace_seconds)

    def forget_expired(self, now: float, *, is_receiving: bool) -> None:
        """Forget released messages that another replica must have received, while replicas do."""
        self._mark = self.applied_through or self._mark
        if not is_receiving:
            least = now + self._grace_seconds
            self._returned = {
                key: (bound, max(until, least)) for key, (bound, until) in self._returned.items()
            }
            return
        self._returned = {key: each for key, each in self._returned.items() if each[1] > now}
