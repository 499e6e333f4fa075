"""Callbacks: when one is made, and what a call changes in the open one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from servicekit.errors import InvalidArgument
from services.queue.domain.rules import CallbackRule, Rules
from services.queue.types import AgentId, CallbackState, Outcome, UserId

# Returns the earliest moment from the given one on at which the person may be phoned; None when
# there is none in the month ahead.
Opening = Callable[[datetime], datetime | None]


@dataclass(frozen=True, slots=True)
class Callback:
    """An agreement to call a person, who has one open callback at most."""

    callback_id: UUID
    user_id: UserId
    scheduled_for: datetime
    preferred_agent_id: AgentId | None
    state: CallbackState
    misses: int
    created_by: str
    created_at: datetime
    notes: str = ""
    closed_at: datetime | None = None
    closed_reason: str | None = None

    def is_due(self, now: datetime) -> bool:
        """Return whether it is due."""
        return self.scheduled_for <= now

    def ended(self, state: CallbackState, reason: str, now: datetime) -> "Callback":
        """Return it ended."""
        return replace(self, state=state, closed_at=now, closed_reason=reason)


class NewCallback(NamedTuple):
    """A callback that is agreed: its time, and the agent for whom it is kept, if any."""

    scheduled_for: datetime
    preferred_agent_id: AgentId | None

    def made(
        self, callback_id: UUID, user_id: UserId, created_by: str, now: datetime, notes: str = ""
    ) -> Callback:
        """Return it as the person's open callback."""
        return Callback(
            callback_id=callback_id,
            user_id=user_id,
            scheduled_for=self.scheduled_for,
            preferred_agent_id=self.preferred_agent_id,
            state=CallbackState.OPEN,
            misses=0,
            created_by=created_by,
            created_at=now,
            notes=notes,
        )


def require_schedulable(
    scheduled_for: datetime,
    rules: Rules,
    opening: Opening,
    now: datetime,
) -> None:
    """Raise InvalidArgument unless a callback may be agreed for that moment.

    The moment must be in the future, not too far ahead, and in the calling hours of the person's
    zone.
    """
    if scheduled_for <= now:
        raise InvalidArgument("CALLBACK_NOT_IN_FUTURE", "a callback must lie in the future")
    longest_days = rules.calls.callback_longest_days
    if scheduled_for > now + timedelta(days=longest_days):
        raise InvalidArgument(
            "CALLBACK_TOO_FAR", f"a callback lies {longest_days:g} days ahead at most"
        )
    open_at = opening(scheduled_for)
    if open_at != scheduled_for:
        moments: dict[str, str] = {}
        if open_at is not None:
            moments["next_open_at"] = open_at.isoformat()
        raise InvalidArgument(
            "CALLBACK_OUTSIDE_HOURS",
            "people are not phoned at that hour in the person's time zone",
            retry_after_seconds=None,
            **moments,
        )


def callback_of(
    outcome: Outcome,
    callback_at: datetime | None,
    agent_id: AgentId | None,
    before: Callback | None,
    rules: Rules,
    opening: Opening,
    now: datetime,
) -> NewCallback | None:
    """Return the callback that an outcome makes; the agent preferred before stays preferred.

    A time that the rules set is moved into the person's calling hours, unless it is now.
    """
    rule = rules.outcomes[outcome]
    at = callback_at
    if at is None and rule.callback is CallbackRule.IMMEDIATE:
        at = now
    elif at is None and rule.callback is CallbackRule.ALWAYS:
        at = now + timedelta(hours=rule.next_call_hours or 0.0)
        at = opening(at) or at
    if at is None:
        return None
    preferred = before.preferred_agent_id if before is not None else None
    return NewCallback(at, preferred or agent_id)


def after_call(
    before: Callback,
    outcome: Outcome,
    is_replaced: bool,
    rules: Rules,
    opening: Opening,
    now: datetime,
) -> Callback:
    """Return the person's open callback after a call."""
    block = rules.outcomes[outcome].block
    if block is not None:
        return before.ended(CallbackState.CLOSED, str(block.name), now)
    if not before.is_due(now):
        if is_replaced:
            return before.ended(CallbackState.REPLACED, "REPLACED", now)
        return before
    if is_replaced or outcome not in _UNANSWERED:
        return before.ended(CallbackState.DONE, "CALLED", now)
    return missed(before, outcome.name, rules, opening, now)


# The person was not reached at the agreed time, and it is tried again.
_UNANSWERED = (Outcome.NO_ANSWER, Outcome.VOICEMAIL_LEFT, Outcome.VOICEMAIL_NOT_LEFT)


def missed(
    before: Callback,
    reason: str,
    rules: Rules,
    opening: Opening,
    now: datetime,
) -> Callback:
    """Return a due callback that was missed: due again later, or left to a supervisor.

    The next try is in the person's calling hours.
    """
    misses = before.misses + 1
    if misses > rules.callbacks.retries:
        return replace(before, misses=misses).ended(CallbackState.MISSED, reason, now)
    retry_at = now + timedelta(minutes=rules.callbacks.retry_minutes)
    retry_at = opening(retry_at) or retry_at
    return replace(before, misses=misses, scheduled_for=retry_at)


def rescheduled(before: Callback, scheduled_for: datetime) -> Callback:
    """Return it open again for another time, without its misses."""
    return replace(
        before,
        state=CallbackState.OPEN,
        scheduled_for=scheduled_for,
        misses=0,
        closed_at=None,
        closed_reason=None,
    )
