"""What becomes of a person when the report of an earlier call is changed."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from services.queue.domain import outcomes
from services.queue.domain.callbacks import Callback
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.outcomes import AfterCall, CallReport
from services.queue.types import AgentId, ContactBlock, Outcome


class CallEffects(NamedTuple):
    """The fields of an entry that the report of a call decides."""

    rest_until: datetime | None
    outcome_points: float
    attempt_points: float
    aged_from: datetime
    attempts: int
    attempts_in_case: int
    block: ContactBlock
    last_outcome: Outcome | None
    last_contact_at: datetime | None
    last_agent_id: AgentId | None
    last_spoken_at: datetime | None

    @classmethod
    def of(cls, entry: Entry) -> "CallEffects":
        """Return those of an entry."""
        return cls(*(getattr(entry, name) for name in cls._fields))


@dataclass(frozen=True, slots=True)
class ReportEffects:
    """What a report has changed, from which an amendment goes out.

    `before` and `callback_before` are as before the call and never change; the rest is as the
    latest version of the report left it. `suppression_id` is the objection that it made, if it
    made one; with `is_counted` the call had been counted before its report.
    """

    before: CallEffects
    after: CallEffects
    is_counted: bool
    callback_before: Callback | None
    callback_after: Callback | None
    made: Callback | None
    suppression_id: UUID | None = None

    @property
    def open_callback(self) -> Callback | None:
        """The callback that the report left open."""
        if self.made is not None:
            return self.made
        after = self.callback_after
        return after if after is not None and after.closed_at is None else None

    def is_last_of(self, entry: Entry) -> bool:
        """Return whether the person has had no call since."""
        return entry.last_contact_at == self.after.last_contact_at

    def has_callbacks_of(self, entry: Entry, open_callback: Callback | None) -> bool:
        """Return whether the person's callback is as the report left it."""
        mine = self.open_callback
        if mine is None or open_callback is None:
            return self.is_last_of(entry) and mine is open_callback
        return self.is_last_of(entry) and _agreed(mine) == _agreed(open_callback)


def _agreed(callback: Callback) -> tuple[object, ...]:
    return (
        callback.callback_id,
        callback.scheduled_for,
        callback.misses,
        callback.preferred_agent_id,
    )


def recomputed(
    report: CallReport | None,
    entry: Entry,
    agent_id: AgentId,
    effects: ReportEffects,
    placement: Placement,
    called_at: datetime,
) -> AfterCall:
    """Return the person as after the call, had it been reported so from the first; None: not."""
    base = entry._replace(**effects.before._asdict()).with_callback(effects.callback_before)
    if report is None:
        after = base if effects.is_counted else outcomes.called(base, called_at)
        return AfterCall(after, effects.callback_before, None)
    return outcomes.applied(
        report,
        base,
        agent_id,
        effects.callback_before,
        placement,
        called_at,
        is_counted=effects.is_counted,
    )


def amended(
    entry: Entry, effects: ReportEffects, now: CallEffects, blocked_since: ContactBlock
) -> Entry:
    """Return the entry with the effects `now` in place of the earlier ones, not placed yet.

    What has happened since the call stays: later calls, a new case, a lifted block, and the blocks
    of later reports (`blocked_since`), whether or not this one had made them already.
    """
    was = effects.after
    if effects.is_last_of(entry):
        entry = entry._replace(last_outcome=now.last_outcome)
        if entry.rest_until == was.rest_until:
            entry = entry._replace(rest_until=now.rest_until)
    if entry.last_spoken_at == was.last_spoken_at:
        entry = entry._replace(last_agent_id=now.last_agent_id, last_spoken_at=now.last_spoken_at)
    if entry.aged_from == was.aged_from:
        entry = entry._replace(
            outcome_points=entry.outcome_points - was.outcome_points + now.outcome_points,
            attempt_points=entry.attempt_points - was.attempt_points + now.attempt_points,
            aged_from=now.aged_from,
        )
    taken_back = was.block & ~now.block & ~blocked_since
    block = (entry.block & ~taken_back) | (now.block & ~was.block)
    return entry._replace(block=block)


def without_notes(callback: Callback | None) -> Callback | None:
    """Return the callback as it is kept with a call: notes are kept in one place."""
    return None if callback is None else replace(callback, notes="")
