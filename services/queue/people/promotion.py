"""Moves people whom the passing of time concerns: due, no longer reserved, or frozen."""

from dataclasses import dataclass
from datetime import datetime

from services.queue.people.placing import Moved, write_moved
from services.queue.people.rulebook import Rulebook
from services.queue.store import entries
from services.queue.store.database import Database
from services.queue.types import SCORED_QUEUES, State

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Promoted:
    """How many people fell due, were released from a reservation, or froze in this batch."""

    due: int
    released: int
    frozen: int

    @property
    def has_more(self) -> bool:
        """True when one of the batches was full."""
        return max(self.due, self.released, self.frozen) >= _BATCH


class Promotion:
    """Moves people in small batches; any number of replicas may run."""

    def __init__(self, database: Database, rulebook: Rulebook) -> None:
        self._database = database
        self._rulebook = rulebook

    async def run_once(self, now: datetime) -> Promoted:
        """Move one batch of each kind, each in a transaction of its own."""
        placement = self._rulebook.placement
        async with self._database.transaction() as tx:
            due = await entries.lock_due(tx, State.WAITING, now, _BATCH)
            await write_moved(tx, [Moved(it, placement.placed(it, now)) for it in due], now)
        async with self._database.transaction() as tx:
            reserved = await entries.lock_due(tx, State.RESERVED, now, _BATCH)
            await write_moved(tx, [Moved(it, placement.settled(it, now)) for it in reserved], now)
        frozen_from, frozen = placement.ranking.frozen_from(now), 0
        for queue in SCORED_QUEUES:
            async with self._database.transaction() as tx:
                cold = await entries.lock_frozen(tx, queue, frozen_from, _BATCH)
                await write_moved(tx, [Moved(it, placement.placed(it, now)) for it in cold], now)
            frozen += len(cold)
        return Promoted(len(due), len(reserved), frozen)
