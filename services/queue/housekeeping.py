"""Forgetting what is no longer needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.queue.rulebook import Rulebook
from services.queue.rules import Rules
from services.queue.store import rebuilding, retention
from services.queue.store.database import Database
from services.queue.store.retention import Cutoffs

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much of each kind was forgotten, by the names that KeepHouse answers with.

    `rebuild_leftovers` are people whom a rebuild that came to no end had read.
    """

    done: Mapping[str, int]
    rebuild_leftovers: int = 0

    @property
    def has_more(self) -> bool:
        """True when one of the batches was full."""
        return max(self.done.values()) == _BATCH


class Housekeeping:
    """Forgets in small batches; any number of copies may run."""

    def __init__(self, database: Database, rulebook: Rulebook) -> None:
        self._database = database
        self._rulebook = rulebook

    async def run_once(self, now: datetime) -> Forgotten:
        """Forget one batch of each kind; every statement is a transaction of its own."""
        cutoffs = cutoffs_of(self._rulebook.rules, now)
        async with self._database.statements() as tx:
            done = await retention.sweep(tx, cutoffs, now, _BATCH)
        async with self._database.transaction() as tx:
            left = await rebuilding.forget_leftovers(tx)
        return Forgotten(done, left)


def cutoffs_of(rules: Rules, now: datetime) -> Cutoffs:
    """Return the moments before which nothing is kept."""
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
        agents_seen=now - timedelta(seconds=rules.agents.presence_seconds),
    )
