"""Everything the checker holds of one person, as of the record it has come to."""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from simulation.checker import hours
from simulation.checker.rules import ATTEMPTS_A_DAY, ATTEMPTS_A_PERIOD, COOLING, PERIOD
from simulation.checker.scores import Key
from simulation.history import HandOut, View, Window

LONG_AGO = datetime.min.replace(tzinfo=hours.LONDON)


class Seen(NamedTuple):
    """A view that began to hold at some moment within the window, and was noticed later."""

    window: Window
    view: View
    at: datetime
    known_by: datetime


@dataclass(slots=True)
class Held:
    """An assignment as its answers tell of it."""

    hand_out: HandOut
    window: Window
    lease_expires_at: datetime
    # The number that is called, None when it is not certain which.
    phone: str | None = None
    ended_at: datetime | None = None

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
class Person:
    """One person. `known_by` is when the services must have noticed the present view."""

    user_id: int
    seen: list[Seen]
    known_by: datetime
    key: Key
    # The key before the first change that the services may not have noticed yet.
    settled_key: Key
    matter_known_by: datetime = LONG_AGO
    phone_known_by: datetime = LONG_AGO
    last_phone: str | None = None
    cools_from: datetime = LONG_AGO
    cools_until: datetime = LONG_AGO
    was_ever_owing: bool = False
    attempts: list[datetime] = field(default_factory=list)
    last_outcome: str | None = None
    last_agent_id: str | None = None
    # Not to be called before the one, to be offered from the other on.
    next_call_at: datetime = LONG_AGO
    next_call_by: datetime = LONG_AGO
    # An outcome that ended all calls, and the suppression by a supervisor.
    is_blocked: bool = False
    suppressed: Window | None = None
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
        """Return whether the services may have thought at that moment that nobody may call."""
        for place, seen in enumerate(self.seen):
            following = self.seen[place + 1] if place + 1 < len(self.seen) else None
            is_over = following is not None and following.known_by < at
            if seen.at <= at and not is_over and not seen.view.is_contactable:
                return True
        return False

    def attempts_today(self, at: datetime) -> int:
        """Return how many calls ended with an outcome on London's day so far."""
        today = hours.day_of(at)
        return sum(hours.day_of(it) == today for it in self.attempts[-ATTEMPTS_A_DAY - 1 :])

    def attempts_in_period(self, at: datetime) -> int:
        """Return how many calls ended with an outcome in the days that count."""
        return sum(it > at - PERIOD for it in self.attempts)

    def capped_until(self, at: datetime) -> datetime:
        """Return when the caps let the person be called again; `at` or before when they do."""
        until = LONG_AGO
        if self.attempts_today(at) >= ATTEMPTS_A_DAY:
            until = hours.next_day(at)
        counted = [it for it in self.attempts if it > at - PERIOD]
        if len(counted) >= ATTEMPTS_A_PERIOD:
            until = max(until, counted[-ATTEMPTS_A_PERIOD] + PERIOD)
        return until

    def begin_cooling(self, view: View, earliest: datetime, latest: datetime) -> None:
        """Reckon when the first call may be, for somebody noticed between the two moments."""
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
