"""Deletes what is kept no longer, batch by batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from services.queue.calls.leases import Leases
from services.queue.domain.rules import Rules
from services.queue.people.phone_placing import PhonePlacing
from services.queue.people.rulebook import Rulebook
from services.queue.store import rebuilding, retention
from services.queue.store.database import Database
from services.queue.store.retention import FIRST_CALL, Cutoffs

_BATCH = 1_000
# Old calls looked at in one run: most may be of people whose claims are open.
_CALLS_LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows of each kind were deleted, by the names that PurgeExpired answers with.

    `rebuild_leftovers` are people whom a rebuild that did not finish had staged.
    """

    done: Mapping[str, int]
    rebuild_leftovers: int = 0

    @property
    def has_more(self) -> bool:
        """True when one of the batches was full."""
        return max(self.done.values()) == _BATCH


# Longer than any two releases run side by side.


class Housekeeping:
    """Deletes in small batches; any number of replicas may run.

    Each replica goes through the old calls from the oldest on, and then begins again.
    """

    def __init__(self, database: Database, rulebook: Rulebook, phone_placing: PhonePlacing) -> None:
        self._database = database
        self._rulebook = rulebook
        self._phone_placing = phone_placing
        self._calls_after = FIRST_CALL

    async def run_once(self, now: datetime) -> Purged:
        """Delete one batch of each kind; every statement is a transaction of its own."""
        cutoffs = cutoffs_of(self._rulebook.rules, now)
        async with self._database.statements() as tx:
            calls, self._calls_after = await retention.sweep_calls(
                tx, self._calls_after, cutoffs.calls, _BATCH, _CALLS_LOOKED_AT
            )
            done = await retention.sweep(tx, cutoffs, now, _BATCH)
        async with self._database.transaction() as tx:
            left = await rebuilding.clear_leftovers(tx)
        await self._phone_placing.settle()
        return Purged({"attempts_deleted": calls, **done}, left)


def cutoffs_of(rules: Rules, now: datetime) -> Cutoffs:
    """Return the moment before which each kind is deleted."""
    kept = rules.retention

    def days(number: float) -> datetime:
        return now - timedelta(days=number)

    return Cutoffs(
        requests=now - timedelta(hours=kept.request_hours),
        audit=days(kept.audit_days),
        calls=days(kept.call_days),
        call_notes=days(kept.call_notes_days),
        assignments=days(kept.assignment_days),
        prevented_calls=days(kept.prevented_call_days),
        closed_callbacks=days(kept.closed_callback_days),
        lifted_suppressions=days(kept.lifted_suppression_days),
        absent_people=days(kept.absent_person_days),
        reports=days(kept.report_days),
        agents_seen=now - timedelta(seconds=rules.agents.presence_seconds),
    )


class PurgeExpired:
    """Ends and deletes what is out of date, on request."""

    def __init__(self, housekeeping: Housekeeping, leases: Leases, clock: Clock) -> None:
        self._housekeeping = housekeeping
        self._leases = leases
        self._clock = clock

    async def run(self) -> queue_pb2.PurgeExpiredResponse:
        """End or delete one batch of each kind."""
        now = self._clock.now()
        swept = await self._leases.sweep_once(now)
        deleted = await self._housekeeping.run_once(now)
        done = {
            "leases_ended": swept.expired,
            "rebuild_leftovers_deleted": deleted.rebuild_leftovers,
            **deleted.done,
        }
        return queue_pb2.PurgeExpiredResponse(done=done, more=swept.has_more or deleted.has_more)
