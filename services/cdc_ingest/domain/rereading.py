"""Decides which people are read again before their message is done, and when."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import count

from services.cdc_ingest.domain.backlog import Lane, MessageTicket
from services.cdc_ingest.domain.people import Key
from services.cdc_ingest.domain.staleness import (
    LatestObservations,
    Observations,
    ReadingVerdict,
    UserReading,
    verdict,
)

_FIRST_RETRY_DELAY = timedelta(milliseconds=50)
_QUICK_RETRIES = 5
_DOUBT_SHARE = 0.1


class Step(Enum):
    """The next step for one person of a message after a reading."""

    DONE = "done"
    AGAIN = "again"
    PUT_BACK = "put_back"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step, and the verdict that led to it; `at` is the time of a step AGAIN."""

    step: Step
    verdict: ReadingVerdict
    at: datetime | None = None


class StalenessCheck:
    """Decides whether a reading is recent enough for a message.

    A person whose facts are older than the message is read again: a few times within two seconds,
    then after the backoff of the message, until `retry_seconds` after its first receive. A person
    whose facts do not show the changed columns is read once more if the reading began sooner than
    `settle_seconds` after the receive. 0 turns either off.
    """

    def __init__(self, *, settle_seconds: float, retry_seconds: float) -> None:
        self._settle = timedelta(seconds=settle_seconds)
        self._retry = timedelta(seconds=retry_seconds)
        self._latest = LatestObservations()

    def note(self, observations: Observations) -> None:
        """Record the observations of a message, before its people are read."""
        self._latest.add(observations)

    def decide(
        self,
        ticket: MessageTicket,
        key: Key,
        reading: UserReading,
        read_at: datetime,
        now: datetime,
    ) -> Decision:
        """Return the next step for `key` of a message after a reading that began at `read_at`."""
        found = verdict(ticket.observations.get(key), key, reading, self._latest)
        received_at = ticket.message.received_at
        if found is ReadingVerdict.UNTOLD:
            settled_at = received_at + self._settle
            if read_at >= settled_at or key in ticket.rechecked:
                return Decision(Step.DONE, found)
            ticket.rechecked.add(key)
            return Decision(Step.AGAIN, found, settled_at)
        if found is ReadingVerdict.SHOWN or not self._retry:
            return Decision(Step.DONE, found)
        is_stale = found is ReadingVerdict.STALE
        # A value that another replica saw overwritten stays doubtful for ever.
        longest = self._retry if is_stale else self._retry * _DOUBT_SHARE
        if now - (ticket.message.first_received_at or received_at) >= longest:
            return Decision(Step.DEAD_LETTER if is_stale else Step.DONE, found)
        retries = ticket.stale_readings[key] = ticket.stale_readings.get(key, 0) + 1
        if retries > _QUICK_RETRIES:
            return Decision(Step.PUT_BACK, found)
        return Decision(Step.AGAIN, found, now + _FIRST_RETRY_DELAY * 2 ** (retries - 1))


class Rereadings:
    """The people that are to be read again later."""

    def __init__(self) -> None:
        self._order = count()
        self._waiting: list[tuple[datetime, int, Lane, Key, MessageTicket]] = []

    @property
    def next_at(self) -> datetime | None:
        """When the next reading is due; None when none is."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, at: datetime, lane: Lane, key: Key, ticket: MessageTicket) -> None:
        """Plan a reading of `key` for the ticket."""
        heapq.heappush(self._waiting, (at, next(self._order), lane, key, ticket))

    def take_due(self, now: datetime) -> Iterator[tuple[Lane, Key, MessageTicket]]:
        """Remove and yield the readings that are due, but those of tickets back in SQS."""
        while self._waiting and self._waiting[0][0] <= now:
            _, _, lane, key, ticket = heapq.heappop(self._waiting)
            if not ticket.is_abandoned:
                yield lane, key, ticket

    def drain(self) -> list[MessageTicket]:
        """Remove everything and return the tickets."""
        tickets = dict.fromkeys(each[4] for each in self._waiting if not each[4].is_abandoned)
        self._waiting.clear()
        return list(tickets)
