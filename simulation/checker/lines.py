"""Lines, a number each: the calls that counted for them, and what stops calls to them."""

import heapq
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from simulation.checker import hours
from simulation.checker.hours import LONG_AGO
from simulation.checker.rules import (
    ATTEMPTS_A_DAY,
    ATTEMPTS_A_PERIOD,
    BAD_NUMBER_HELD,
    HOLDERS_AT_MOST,
    PERIOD,
)
from simulation.history import Window


class LineCall(NamedTuple):
    """A call that counts towards caps, reported or not.

    Without `is_certain` it may count for the line or not, as when the number changed meanwhile;
    `is_bad` when it found the number to be bad.
    """

    at: datetime
    user_id: int
    assignment_id: str
    is_certain: bool = True
    is_bad: bool = False


class CallLog:
    """The calls of one person or of one line, the earliest first."""

    def __init__(self) -> None:
        self._calls: list[LineCall] = []

    @property
    def certain(self) -> int:
        """How many calls have certainly counted."""
        return sum(it.is_certain for it in self._calls)

    def add(self, call: LineCall) -> None:
        """Count a call."""
        insort(self._calls, call)

    def drop(self, assignment_id: str) -> None:
        """Count the call of an assignment no more."""
        self._calls = [it for it in self._calls if it.assignment_id != assignment_id]

    def surely_today(self, at: datetime) -> int:
        """Return how many calls London's day has certainly had so far."""
        today = hours.day_of(at)
        certain = [it for it in self._calls if it.is_certain and it.at <= at]
        return sum(hours.day_of(it.at) == today for it in certain)

    def surely_in_period(self, at: datetime) -> int:
        """Return how many calls the days that count have certainly had."""
        return sum(it.is_certain and at - PERIOD < it.at <= at for it in self._calls)

    def surely_capped_until(self, at: datetime) -> datetime:
        """Return when the caps of the calls certain by `at` ended or will end."""
        return _capped_until([it.at for it in self._calls if it.is_certain and it.at <= at])

    def capped_until(self) -> datetime:
        """Return when the caps of every possible call ended or will end; long ago for never."""
        return _capped_until([it.at for it in self._calls])

    def may_be_bad_until(self, user_id: int) -> datetime:
        """Return until when a call to another person may hold the number; long ago for none."""
        bad = [it.at for it in self._calls if it.is_bad and it.user_id != user_id]
        return max(bad) + BAD_NUMBER_HELD if bad else LONG_AGO

    def surely_bad_until(self, user_id: int) -> datetime:
        """Return until when the last call, one to another person, holds it; long ago for none."""
        last = self._calls[-1] if self._calls else None
        if last is None or not last.is_bad or not last.is_certain or last.user_id == user_id:
            return LONG_AGO
        return last.at + BAD_NUMBER_HELD

    def last_of_another(
        self, user_id: int, *, by: datetime | None = None, only_certain: bool = False
    ) -> LineCall | None:
        """Return the last call to another person than this one, until `by`."""
        for call in reversed(self._calls):
            is_over = by is None or call.at <= by
            if call.user_id != user_id and is_over and (call.is_certain or not only_certain):
                return call
        return None


def _capped_until(times: list[datetime]) -> datetime:
    until = LONG_AGO
    days = [hours.day_of(it) for it in times]
    for last in range(len(times) - 1, ATTEMPTS_A_DAY - 2, -1):
        if days[last - ATTEMPTS_A_DAY + 1] == days[last]:
            until = hours.next_day(times[last])
            break
    for last in range(len(times) - 1, ATTEMPTS_A_PERIOD - 2, -1):
        free_at = times[last - ATTEMPTS_A_PERIOD + 1] + PERIOD
        if free_at > times[last]:
            return max(until, free_at)
    return until


@dataclass(slots=True)
class PhoneStops:
    """What stops calls to one number, each standing by itself."""

    listed: Window | None = None
    # An objection to the bare number.
    bare: Window | None = None
    # Objections of people with that number.
    of_people: dict[int, Window] = field(default_factory=dict)
    # A person who objected has or had the number, and it cannot be told whether that still counts.
    is_doubtful: bool = False

    @property
    def may_stop(self) -> bool:
        """Whether anything may stop calls to the number."""
        return bool(self.listed or self.bare or self.of_people or self.is_doubtful)

    def doubt(self, user_id: int) -> None:
        """Take over that the number of a person's objection may count no more."""
        self.of_people.pop(user_id, None)
        self.is_doubtful = True


class Holders:
    """How many people hold each number, at the least and at the most.

    A person who has just got or lost a number may or may not count already.
    """

    def __init__(self) -> None:
        self._fewest: Counter[str] = Counter()
        self._most: Counter[str] = Counter()
        # When a person surely counts for a number, or surely counts no more.
        self._coming: list[tuple[datetime, str, int]] = []

    def get(self, phone: str, *, at: datetime, certain_by: datetime) -> None:
        """Take over that a person has got a number."""
        self._most[phone] += 1
        self._later(phone, 1, at, certain_by)

    def lose(self, phone: str, *, at: datetime, certain_by: datetime) -> None:
        """Take over that a person has a number no more."""
        self._fewest[phone] -= 1
        self._later(phone, -1, at, certain_by)

    def advance(self, at: datetime) -> None:
        """Take over what has become certain by that moment."""
        while self._coming and self._coming[0][0] <= at:
            _, phone, change = heapq.heappop(self._coming)
            self._settle(phone, change)

    def surely_a_line(self, phone: str) -> bool:
        """Return whether so few people hold the number that it certainly counts as one."""
        return self._most[phone] <= HOLDERS_AT_MOST

    def surely_a_placeholder(self, phone: str) -> bool:
        """Return whether so many people hold the number that it certainly counts as none."""
        return self._fewest[phone] > HOLDERS_AT_MOST

    def _later(self, phone: str, change: int, at: datetime, certain_by: datetime) -> None:
        if certain_by <= at:
            self._settle(phone, change)
        else:
            heapq.heappush(self._coming, (certain_by, phone, change))

    def _settle(self, phone: str, change: int) -> None:
        (self._fewest if change > 0 else self._most)[phone] += change
