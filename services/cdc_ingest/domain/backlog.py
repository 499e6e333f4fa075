"""Who waits to be refreshed, and which messages wait for them.

Each person is refreshed once however many messages ask, and small changes need not queue behind
bulk ones: they have a lane of their own.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import Enum

from services.cdc_ingest.domain.messages import ChangeTimes, Message
from services.cdc_ingest.domain.people import Key, RowKey
from services.cdc_ingest.domain.staleness import Sightings


class Lane(Enum):
    """Small changes and bulk ones queue apart."""

    FRESH = "fresh"
    BULK = "bulk"


@dataclass(slots=True, eq=False)
class Ticket:
    """One message under way. It is done when `outstanding` has come down to 0.

    `fault` is why it then goes to the dead-letter queue. An abandoned ticket has gone back to SQS;
    what others still finish for it no longer matters. A settled one is over for good. `looks`
    counts how often a reading was older than the message; in `second` are those read once more
    only to be sure.
    """

    message: Message
    times: ChangeTimes
    owners: Mapping[RowKey, Set[Key]]
    sightings: Sightings = field(default_factory=dict)
    outstanding: int = 0
    fault: str | None = None
    is_abandoned: bool = False
    is_settled: bool = False
    looks: dict[Key, int] = field(default_factory=dict)
    second: set[Key] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Batch:
    """People and rows to be refreshed in one go, each with the tickets that wait for it."""

    lane: Lane
    waiting: dict[Key, list[Ticket]]

    def tickets(self) -> list[Ticket]:
        """Return each ticket once, the longest waiting first."""
        return list(dict.fromkeys(t for tickets in self.waiting.values() for t in tickets))

    def halves(self) -> Iterator["Batch"]:
        """Cut it in two, to find out which part is to blame."""
        items = list(self.waiting.items())
        middle = len(items) // 2
        for part in (items[:middle], items[middle:]):
            yield Batch(self.lane, dict(part))


class TransactionSizes:
    """How many people each of the latest transactions concerns, over all messages seen of it."""

    def __init__(self, remembered: int = 1_000) -> None:
        self._remembered = remembered
        self._people: OrderedDict[str, int] = OrderedDict()

    def count(self, transaction: str, people: int) -> int:
        """Return the size so far, `people` included; of "" no more than those is known."""
        if not transaction:
            return people
        size = self._people.pop(transaction, 0) + people
        self._people[transaction] = size
        if len(self._people) > self._remembered:
            self._people.popitem(last=False)
        return size


class Backlog:
    """What has not been begun. Asking for somebody who already waits adds to who is told."""

    def __init__(self, bulk_above: int) -> None:
        self._bulk_above = bulk_above
        self._sizes = TransactionSizes()
        # Ordered ones, since a plain dict slows down as its front is taken off.
        self._lanes: dict[Lane, OrderedDict[Key, list[Ticket]]] = {
            lane: OrderedDict() for lane in Lane
        }

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(self, ticket: Ticket, by_transaction: Mapping[str, Set[Key]]) -> None:
        """Queue everybody concerned; a transaction that concerns more than `bulk_above` is bulk."""
        fresh: set[Key] = set()
        bulk: set[Key] = set()
        for transaction, keys in by_transaction.items():
            size = self._sizes.count(transaction, len(keys))
            (bulk if size > self._bulk_above else fresh).update(keys)
        bulk -= fresh
        ticket.outstanding += len(fresh) + len(bulk)
        self._add_fresh(ticket, fresh)
        self._add_bulk(ticket, bulk)

    def again(self, lane: Lane, key: Key, ticket: Ticket) -> None:
        """Queue somebody once more for a ticket that has been waiting for him all along."""
        if lane is Lane.FRESH:
            self._add_fresh(ticket, {key})
        else:
            self._add_bulk(ticket, {key})

    def waiting(self, lane: Lane) -> int:
        """How many people and rows wait in the lane."""
        return len(self._lanes[lane])

    def _add_fresh(self, ticket: Ticket, keys: Set[Key]) -> None:
        fresh, bulk = self._lanes[Lane.FRESH], self._lanes[Lane.BULK]
        for key in keys:
            overtaken = bulk.pop(key, None)
            if overtaken is not None:
                fresh[key] = [*overtaken, ticket]
            else:
                fresh.setdefault(key, []).append(ticket)

    def _add_bulk(self, ticket: Ticket, keys: Set[Key]) -> None:
        fresh, bulk = self._lanes[Lane.FRESH], self._lanes[Lane.BULK]
        for key in keys:
            waiting = fresh if key in fresh else bulk
            waiting.setdefault(key, []).append(ticket)

    def take(self, lane: Lane, limit: int) -> Batch:
        """Remove up to `limit` of those who wait longest; empty when nobody does."""
        source = self._lanes[lane]
        taken: dict[Key, list[Ticket]] = {}
        while source and len(taken) < limit:
            key, waiting = source.popitem(last=False)
            tickets = [ticket for ticket in waiting if not ticket.is_abandoned]
            if tickets:
                taken[key] = tickets
        return Batch(lane, taken)

    def drain(self) -> list[Ticket]:
        """Remove everything and return whose it was."""
        tickets: dict[Ticket, None] = {}
        for lane in self._lanes.values():
            for waiting in lane.values():
                tickets.update(dict.fromkeys(waiting))
            lane.clear()
        return [ticket for ticket in tickets if not ticket.is_abandoned]


def lane_to_serve(
    backlog: Backlog, running: Mapping[Lane, int], limit: int, gather: int = 1
) -> Lane | None:
    """Return the lane the next of at most `limit` concurrent batches comes from; None to wait.

    Neither lane takes the last place: a small change never waits for bulk alone, nor bulk for
    small changes; and small changes that come thick gather into fewer, larger batches. Beside a
    batch of the same lane another is begun only once `gather` people wait.
    """
    if sum(running.values()) >= limit:
        return None
    for lane in (Lane.FRESH, Lane.BULK):
        waiting, others = backlog.waiting(lane), running[lane]
        if waiting and others < max(1, limit - 1) and (not others or waiting >= gather):
            return lane
    return None
