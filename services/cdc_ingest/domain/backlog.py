"""The people that wait to be refreshed, and the messages that wait for each of them.

A person is refreshed once for all messages that ask. Small changes have a lane of their own, so
that they do not wait behind bulk changes.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import Enum

from services.cdc_ingest.domain.messages import ChangeTimes, Message
from services.cdc_ingest.domain.people import Key, RowKey
from services.cdc_ingest.domain.staleness import Observations


class Lane(Enum):
    """Small changes and bulk changes wait in queues of their own."""

    FRESH = "fresh"
    BULK = "bulk"


@dataclass(slots=True, eq=False)
class MessageTicket:
    """One message in the pipeline. It is done when `outstanding` is 0.

    `fault` is the reason for which it then goes to the dead-letter queue. An abandoned ticket has
    gone back to SQS; work that still finishes for it has no effect. A settled ticket is deleted or
    dead-lettered. `stale_readings` counts the readings that were older than the message;
    `rechecked` holds the keys that are read once more although no reading was older.
    """

    message: Message
    times: ChangeTimes
    owners: Mapping[RowKey, Set[Key]]
    observations: Observations = field(default_factory=dict)
    outstanding: int = 0
    fault: str | None = None
    is_abandoned: bool = False
    is_settled: bool = False
    stale_readings: dict[Key, int] = field(default_factory=dict)
    rechecked: set[Key] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class RefreshBatch:
    """People and rows that are refreshed together, each with the tickets that wait for it."""

    lane: Lane
    waiting: dict[Key, list[MessageTicket]]

    def tickets(self) -> list[MessageTicket]:
        """Return each ticket once, the longest waiting first."""
        return list(dict.fromkeys(t for tickets in self.waiting.values() for t in tickets))

    def halves(self) -> Iterator["RefreshBatch"]:
        """Yield the two halves of the batch, to find the one that fails."""
        items = list(self.waiting.items())
        middle = len(items) // 2
        for part in (items[:middle], items[middle:]):
            yield RefreshBatch(self.lane, dict(part))


class TransactionSizes:
    """Counts the people of each of the latest transactions, over all messages of it."""

    def __init__(self, remembered: int = 1_000) -> None:
        self._remembered = remembered
        self._people: OrderedDict[str, int] = OrderedDict()

    def count(self, transaction: str, people: int) -> int:
        """Return the size so far, `people` included; just `people` for an unknown transaction."""
        if not transaction:
            return people
        size = self._people.pop(transaction, 0) + people
        self._people[transaction] = size
        if len(self._people) > self._remembered:
            self._people.popitem(last=False)
        return size


class Backlog:
    """The work that has not begun. A person who already waits gets one more ticket."""

    def __init__(self, bulk_above: int) -> None:
        self._bulk_above = bulk_above
        self._sizes = TransactionSizes()
        # A plain dict slows down as its first items are removed.
        self._lanes: dict[Lane, OrderedDict[Key, list[MessageTicket]]] = {
            lane: OrderedDict() for lane in Lane
        }

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(self, ticket: MessageTicket, by_transaction: Mapping[str, Set[Key]]) -> None:
        """Add the keys of a ticket; a transaction of more than `bulk_above` keys is bulk."""
        fresh: set[Key] = set()
        bulk: set[Key] = set()
        for transaction, keys in by_transaction.items():
            size = self._sizes.count(transaction, len(keys))
            (bulk if size > self._bulk_above else fresh).update(keys)
        bulk -= fresh
        ticket.outstanding += len(fresh) + len(bulk)
        self._add_fresh(ticket, fresh)
        self._add_bulk(ticket, bulk)

    def again(self, lane: Lane, key: Key, ticket: MessageTicket) -> None:
        """Add a key once more for a ticket that still waits for it."""
        (self._add_fresh if lane is Lane.FRESH else self._add_bulk)(ticket, {key})

    def waiting(self, lane: Lane) -> int:
        """Return how many people and rows wait in the lane."""
        return len(self._lanes[lane])

    def _add_fresh(self, ticket: MessageTicket, keys: Set[Key]) -> None:
        fresh, bulk = self._lanes[Lane.FRESH], self._lanes[Lane.BULK]
        for key in keys:
            overtaken = bulk.pop(key, None)
            if overtaken is not None:
                fresh[key] = [*overtaken, ticket]
            else:
                fresh.setdefault(key, []).append(ticket)

    def _add_bulk(self, ticket: MessageTicket, keys: Set[Key]) -> None:
        fresh, bulk = self._lanes[Lane.FRESH], self._lanes[Lane.BULK]
        for key in keys:
            waiting = fresh if key in fresh else bulk
            waiting.setdefault(key, []).append(ticket)

    def take(self, lane: Lane, limit: int) -> RefreshBatch:
        """Remove up to `limit` of the longest waiting keys; the batch is empty when none waits."""
        source = self._lanes[lane]
        taken: dict[Key, list[MessageTicket]] = {}
        while source and len(taken) < limit:
            key, waiting = source.popitem(last=False)
            tickets = [ticket for ticket in waiting if not ticket.is_abandoned]
            if tickets:
                taken[key] = tickets
        return RefreshBatch(lane, taken)

    def drain(self) -> list[MessageTicket]:
        """Remove everything and return the tickets."""
        tickets: dict[MessageTicket, None] = {}
        for lane in self._lanes.values():
            for waiting in lane.values():
                tickets.update(dict.fromkeys(waiting))
            lane.clear()
        return [ticket for ticket in tickets if not ticket.is_abandoned]


def lane_to_serve(
    backlog: Backlog, running: Mapping[Lane, int], limit: int, gather: Mapping[Lane, int]
) -> Lane | None:
    """Return the lane of the next of at most `limit` concurrent batches; None to wait.

    Neither lane takes the last place: a small change never waits for bulk changes alone, nor the
    reverse. While a batch of a lane runs, another of that lane begins only once as many people wait
    as `gather` says, at least one: many small changes gather into fewer, larger batches.
    """
    if sum(running.values()) >= limit:
        return None
    for lane in (Lane.FRESH, Lane.BULK):
        waiting, others = backlog.waiting(lane), running[lane]
        if (
            waiting
            and others < max(1, limit - 1)
            and (not others or waiting >= gather.get(lane, 1))
        ):
            return lane
    return None
