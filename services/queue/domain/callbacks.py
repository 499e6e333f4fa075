"""Callbacks: when one is made, and what becomes of the one that is open."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from servicekit.errors import InvalidArgument
from services.queue.domain.terms import AgentId, CallbackState, Outcome, UserId
from services.queue.rules import CallbackRule, Rules


@dataclass(frozen=True, slots=True)
class Callback:
    """An agreement to call somebody; a person has one open callback at most."""

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
        """Return whether its time has come."""
        return self.scheduled_for <= now

    def ended(self, state: CallbackState, reason: str, now: datetime) -> "Callback":
        """Return it with its end."""
        return replace(self, state=state, closed_at=now, closed_reason=reason)


class Promise(NamedTuple):
    """A callback that a call leads to."""

    scheduled_for: datetime
    preferred_agent_id: AgentId | None


def require_schedulable(scheduled_for: datetime, rules: Rules, now: datetime) -> None:
    """Raise InvalidArgument unless a callback may be agreed for that moment."""
    if scheduled_for <= now:
        raise InvalidArgument("CALLBACK_NOT_IN_FUTURE", "a callback must lie in the future")
    longest_days = rules.calls.callback_longest_days
    if scheduled_for > now + timedelta(days=longest_days):
        raise InvalidArgument(
            "CALLBACK_TOO_FAR", f"a callback lies {longest_days:g} days ahead at most"
        )


def promised(
    outcome: Outcome,
    callback_at: datetime | None,
    agent_id: AgentId,
    before: Callback | None,
    rules: Rules,
    now: datetime,
) -> Promise | None:
    """Return the callback an outcome makes; the agent who was preferred before stays so."""
    rule = rules.outcomes[outcome]
    at = callback_at
    if at is None and rule.callback in (CallbackRule.ALWAYS, CallbackRule.IMMEDIATE):
        at = now + timedelta(hours=rule.next_call_hours or 0.0)
    if at is None:
        return None
    preferred = before.preferred_agent_id if before is not None else None
    return Promise(at, preferred or agent_id)


def after_call(
    before: Callback, outcome: Outcome, is_replaced: bool, rules: Rules, now: datetime
) -> Callback:
    """Return the person's open callback after a call."""
    block = rules.outcomes[outcome].block
    if block is not None:
        return before.ended(CallbackState.CLOSED, block.name, now)
    if not before.is_due(now):
        if is_replaced:
            return before.ended(CallbackState.REPLACED, "REPLACED", now)
        return before
    if is_replaced or outcome is not Outcome.NO_ANSWER:
        return before.ended(CallbackState.DONE, "CALLED", now)
    return missed(before, "NO_ANSWER", rules, now)


def missed(before: Callback, reason: str, rules: Rules, now: datetime) -> Callback:
    """Return a due callback that did not come about: tried again, or left to a supervisor."""
    misses = before.misses + 1
    if misses > rules.callbacks.retries:
        return replace(before, misses=misses).ended(CallbackState.MISSED, reason, now)
    retry_at = now + timedelta(minutes=rules.callbacks.retry_minutes)
    return replace(before, misses=misses, scheduled_for=retry_at)


def rescheduled(before: Callback, scheduled_for: datetime) -> Callback:
    """Return it open again for another time, as if it had never been missed."""
    return replace(
        before,
        state=CallbackState.OPEN,
        scheduled_for=scheduled_for,
        misses=0,
        closed_at=None,
        closed_reason=None,
    )
