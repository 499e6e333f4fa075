"""Who is read again before his message is done with, and when."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import count

from services.cdc_ingest.domain.backlog import Lane, Ticket
from services.cdc_ingest.domain.people import Key
from services.cdc_ingest.domain.staleness import (
    LatestSightings,
    Reading,
    Sightings,
    Verdict,
    verdict,
)

_FIRST_PAUSE = timedelta(milliseconds=50)
_LOOKS_IN_HAND = 5
_DOUBT_SHARE = 0.1


class Step(Enum):
    """What becomes of one person of a message after a reading."""

    DONE = "done"
    AGAIN = "again"
    PUT_BACK = "put_back"
    BURY = "bury"


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step; `at` is when, for AGAIN. `verdict` is why."""

    step: Step
    verdict: Verdict
    at: datetime | None = None


class Guard:
    """Decides whether a reading may stand.

    What the facts show to be older than the message is read again: a few times within a second or
    two, then with the message's back-off, until `patience_seconds` after the message's first
    receive. What the facts do not show is read once more if it was read sooner than
    `settle_seconds` after its message came. 0 turns either off.
    """

    def __init__(self, *, settle_seconds: float, patience_seconds: float) -> None:
        self._settle = timedelta(seconds=settle_seconds)
        self._patience = timedelta(seconds=patience_seconds)
        self._latest = LatestSightings()

    def note(self, sightings: Sightings) -> None:
        """Learn what a message tells, before anything of it is read."""
        self._latest.add(sightings)

    def decide(
        self, ticket: Ticket, key: Key, reading: Reading, read_at: datetime, now: datetime
    ) -> Decision:
        """Return what is next for `key` of the message, of which a reading began at `read_at`."""
        found = verdict(ticket.sightings.get(key), key, reading, self._latest)
        if found is Verdict.UNTOLD:
            return self._once_more(ticket, key, read_at)
        if found is Verdict.SHOWN or not self._patience:
            return Decision(Step.DONE, found)
        return self._wait_for_it(ticket, key, found, now)

    def _once_more(self, ticket: Ticket, key: Key, read_at: datetime) -> Decision:
        settled_at = ticket.message.received_at + self._settle
        if read_at >= settled_at or key in ticket.second:
            return Decision(Step.DONE, Verdict.UNTOLD)
        ticket.second.add(key)
        return Decision(Step.AGAIN, Verdict.UNTOLD, settled_at)

    def _wait_for_it(self, ticket: Ticket, key: Key, found: Verdict, now: datetime) -> Decision:
        began_at = ticket.message.first_received_at or ticket.message.received_at
        # Earlier values that were passed over by another copy look doubtful for ever.
        share = 1.0 if found is Verdict.STALE else _DOUBT_SHARE
        if now - began_at >= self._patience * share:
            return Decision(Step.BURY if found is Verdict.STALE else Step.DONE, found)
        looks = ticket.looks[key] = ticket.looks.get(key, 0) + 1
        if looks > _LOOKS_IN_HAND:
            return Decision(Step.PUT_BACK, found)
        return Decision(Step.AGAIN, found, now + _FIRST_PAUSE * 2 ** (looks - 1))


class Rereadings:
    """Those who are to be read again later."""

    def __init__(self) -> None:
        self._order = count()
        self._waiting: list[tuple[datetime, int, Lane, Key, Ticket]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_at(self) -> datetime | None:
        """When the first is due; None when nobody is."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, at: datetime, lane: Lane, key: Key, ticket: Ticket) -> None:
        """Have somebody read again then."""
        heapq.heappush(self._waiting, (at, next(self._order), lane, key, ticket))

    def take_due(self, now: datetime) -> Iterator[tuple[Lane, Key, Ticket]]:
        """Remove whoever is due; messages that went back to SQS meanwhile are dropped."""
        while self._waiting and self._waiting[0][0] <= now:
            _, _, lane, key, ticket = heapq.heappop(self._waiting)
            if not ticket.is_abandoned:
                yield lane, key, ticket

    def drain(self) -> list[Ticket]:
        """Remove everybody and return whose they were."""
        tickets = dict.fromkeys(each[4] for each in self._waiting if not each[4].is_abandoned)
        self._waiting.clear()
        return list(tickets)
