"""What happens to a call, and for how long it keeps the lease of its assignment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.queue.domain.rules import Rules
from services.queue.types import CallEventKind


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One thing that happened to a call; empty texts for what is not known."""

    kind: CallEventKind
    at: datetime
    provider: str = ""
    provider_call_id: str = ""
    duration_seconds: float | None = None
    recording_reference: str = ""

    def is_of_call(self, other: "CallEvent") -> bool:
        """Return whether both events are of one call."""
        call = self.provider, self.provider_call_id
        return call == (other.provider, other.provider_call_id)


def lease_after(
    events: Sequence[CallEvent],
    noted: CallEvent,
    lease_expires_at: datetime,
    started_at: datetime,
    rules: Rules,
    now: datetime,
) -> datetime:
    """Return when the lease of a live assignment ends once the last of `events` is noted.

    A call that is up keeps it until `agents.longest_call_seconds` after its answer; the end of the
    last one leaves the time of a heartbeat. Never beyond `assignment.longest_seconds`.
    """
    up = [
        it.at for it in events if it.kind is CallEventKind.ANSWERED and not _has_ended(it, events)
    ]
    longest = started_at + timedelta(seconds=rules.assignment.longest_seconds)
    if up:
        # The clock of a provider may be ahead.
        answered_at = min(max(up), now)
        until = answered_at + timedelta(seconds=rules.agents.longest_call_seconds)
        return max(lease_expires_at, min(until, longest))
    if noted.kind is CallEventKind.ENDED:
        return min(lease_expires_at, now + timedelta(seconds=rules.assignment.lease_seconds))
    return lease_expires_at


def _has_ended(answer: CallEvent, events: Sequence[CallEvent]) -> bool:
    return any(
        it.kind is CallEventKind.ENDED and it.is_of_call(answer) and it.at >= answer.at
        for it in events
    )
