"""The passing of time: who falls due, whose reservation has lapsed, who has gone cold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dialler.model.v1 import event_pb2

from servicekit import telemetry
from services.queue import messages
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.terms import SCORED_QUEUES, State
from services.queue.rulebook import Rulebook
from services.queue.store import entries, outbox
from services.queue.store.database import Database, Transaction

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Promoted:
    """How many people fell due, came back from a reservation, or froze in this batch."""

    due: int
    released: int
    frozen: int

    @property
    def has_more(self) -> bool:
        """True when one of the batches was full."""
        return max(self.due, self.released, self.frozen) >= _BATCH


class Promotion:
    """Moves people whose time has come, in small batches; any number of copies may run."""

    def __init__(self, database: Database, rulebook: Rulebook, posted: Callable[[], None]) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._rulebook = rulebook
        self._posted = posted

    async def run_once(self, now: datetime) -> Promoted:
        """Move one batch of each kind, each in a transaction of its own."""
        placement = self._rulebook.placement
        due = released = frozen = 0
        async with self._database.transaction() as tx:
            locked = await entries.lock_due(tx, State.WAITING, now, _BATCH)
            due = await self._write(tx, locked, _placed(placement, locked, now), now)
        async with self._database.transaction() as tx:
            locked = await entries.lock_due(tx, State.RESERVED, now, _BATCH)
            settled = [placement.settled(entry, now) for entry in locked]
            released = await self._write(tx, locked, settled, now)
        frozen_from = placement.ranking.frozen_from(now)
        for queue in SCORED_QUEUES:
            async with self._database.transaction() as tx:
                locked = await entries.lock_frozen(tx, queue, frozen_from, _BATCH)
                frozen += await self._write(tx, locked, _placed(placement, locked, now), now)
        if due or released or frozen:
            self._posted()
        return Promoted(due, released, frozen)

    async def _write(
        self, tx: Transaction, before: Sequence[Entry], after: Sequence[Entry], now: datetime
    ) -> int:
        if not before:
            return 0
        await entries.update(tx, after)
        traceparent = telemetry.inject()
        moved = event_pb2.EVENT_TYPE_ENTRY_MOVED
        events = [
            messages.event(moved, was, is_, now, traceparent)
            for was, is_ in zip(before, after, strict=True)
            if messages.is_moved(was, is_)
        ]
        await outbox.post(tx, events)
        return len(before)


def _placed(placement: Placement, locked: Sequence[Entry], now: datetime) -> list[Entry]:
    return [placement.placed(entry, now) for entry in locked]
