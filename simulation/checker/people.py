"""Everything the checker holds of one person, as of the record it has come to."""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from simulation.checker.hours import LONG_AGO
from simulation.checker.lines import CallLog
from simulation.checker.rules import COOLING
from simulation.checker.scores import Key
from simulation.history import HandOutRecord, View, Window


class Seen(NamedTuple):
    """A view that began to hold at some moment within the window, and was noticed later."""

    window: Window
    view: View
    at: datetime
    known_by: datetime


@dataclass(slots=True)
class Held:
    """An assignment as its answers tell of it."""

    hand_out: HandOutRecord
    window: Window
    lease_expires_at: datetime
    # The numbers that are certainly those of the call, and those that may be.
    phones: frozenset[str] = frozenset()
    possible_phones: frozenset[str] = frozenset()
    ended_at: datetime | None = None
    is_heartbeated: bool = False
    # It ended without a report: by the agent's release, or by its lease or a supervisor.
    is_given_back: bool = False
    is_unreported: bool = False

    def is_live(self, at: datetime) -> bool:
        """Return whether the agent holds the person at that moment."""
        return self.ended_at is None and at < self.lease_expires_at

    @property
    def end(self) -> datetime:
        """When it ended, or will without another heartbeat."""
        return self.lease_expires_at if self.ended_at is None else self.ended_at


@dataclass(slots=True)
class OpenCallback:
    """A callback that has not come to its end, as far as answers tell."""

    callback_id: str
    user_id: int
    scheduled_for: datetime
    preferred_agent_id: str
    # Not to be offered before; later than agreed after it was missed once.
    due_at: datetime
    agreed: Window
    misses: int = 0


class MatterChange(NamedTuple):
    """What a person owed became another thing, or nothing, or nothing for another reason."""

    at: datetime
    known_by: datetime
    before: str | None
    view: View


@dataclass(slots=True)
class PersonState:
    """One person. `known_by` is when the services must have noticed the present view."""

    user_id: int
    seen: list[Seen]
    known_by: datetime
    key: Key
    # The key before the first change that the services may not have noticed yet.
    settled_key: Key
    matter_known_by: datetime = LONG_AGO
    phone_known_by: datetime = LONG_AGO
    cools_from: datetime = LONG_AGO
    cools_until: datetime = LONG_AGO
    was_ever_owing: bool = False
    # Reported or not.
    calls: CallLog = field(default_factory=CallLog)
    last_outcome: str | None = None
    # The agent who spoke with the person last.
    last_agent_id: str | None = None
    # Objections on assignments without a heartbeat that had run out: a call each, or none.
    late_objections: int = 0
    # Not to be called before the one, to be offered from the other on.
    next_call_at: datetime = LONG_AGO
    next_call_by: datetime = LONG_AGO
    # Rests after a call that no agent reported.
    rests_until: datetime = LONG_AGO
    # Each stands and falls by itself.
    objection: Window | None = None
    # The numbers that the objection may stand for: those of the call and of that moment.
    objection_phones: set[str] = field(default_factory=set)
    no_claim: Window | None = None
    held: Held | None = None
    callback: OpenCallback | None = None
    callback_ended: Window | None = None
    matter_changes: list["MatterChange"] = field(default_factory=list)
    times_passed_over: set[datetime] = field(default_factory=set)
    version: int = 0

    @property
    def view(self) -> View:
        """The latest view."""
        return self.seen[-1].view

    @property
    def is_stopped(self) -> bool:
        """Whether the person's own word, or a mark, stops every call."""
        return self.objection is not None or self.no_claim is not None

    def possible_phones(self, at: datetime) -> frozenset[str]:
        """Return every number that the services may take for one of the person's."""
        found = set(self.view.phones)
        for seen, following in pairwise(self.seen):
            if following.known_by > at:
                found.update(seen.view.phones)
        return frozenset(found)

    def views_within(self, window: Window) -> list[View]:
        """Return the views that may have held at some moment within the window."""
        last = bisect_right(self.seen, window.ended, key=lambda it: it.window.began) - 1
        found = [self.seen[max(last, 0)].view]
        for place in range(last, 0, -1):
            if self.seen[place].window.ended < window.began:
                break
            found.append(self.seen[place - 1].view)
        return found

    def may_be_taken_as_barred(self, at: datetime) -> bool:
        """Return whether the services may have thought at that moment that no agent may call."""
        for place, seen in enumerate(self.seen):
            following = self.seen[place + 1] if place + 1 < len(self.seen) else None
            is_over = following is not None and following.known_by < at
            if seen.at <= at and not is_over and not seen.view.is_contactable:
                return True
        return False

    def begin_cooling(self, view: View, earliest: datetime, latest: datetime) -> None:
        """Reckon when the first call may be, for a person noticed between the two moments."""
        known = [it for it in (view.registered_at, view.first_claim_at) if it is not None]
        self.was_ever_owing = True
        self.cools_from = max(known) + COOLING if known else earliest
        self.cools_until = (max(known) if known else latest) + COOLING

    def reconsider_cooling(self, view: View) -> None:
        """Allow for the services having noticed the person only with this view."""
        known = [it for it in (view.registered_at, view.first_claim_at) if it is not None]
        if known:
            self.cools_from = min(self.cools_from, max(known) + COOLING)
            self.cools_until = max(self.cools_until, max(known) + COOLING)
