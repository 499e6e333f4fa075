"""Compares entries with the placement that the queue's own data leads to, page by page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.clock import Clock
from services.queue.domain.entries import Entry, Placement
from services.queue.people.placing import Moved, contact_statuses, write_moved
from services.queue.people.rulebook import Rulebook
from services.queue.store import applied_facts, rebuilding, suppressions
from services.queue.store.applied_facts import Owned
from services.queue.store.database import Database, Transaction
from services.queue.types import Reason, State, UserId

_AN_INSTANT = timedelta(microseconds=1)
# Promotion would have moved a person who froze longer ago than this.
_PROMOTED_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CheckedPage:
    """How many people were checked, which were repaired, and up to which id; 0 for no person.

    People whom time alone has moved are placed, too, and do not count as repaired.
    """

    checked: int
    corrected: Sequence[UserId]
    through: UserId


class EntryCheck:
    """Repairs entries that differ from their derived placement; facts in doubt are left alone."""

    def __init__(self, database: Database, rulebook: Rulebook, clock: Clock) -> None:
        self._database = database
        self._rulebook = rulebook
        self._clock = clock

    async def check(self, after: UserId, limit: int) -> CheckedPage:
        """Check the first people above `after`, locking them for as long as it takes."""
        placement, now = self._rulebook.placement, self._clock.now()
        async with self._database.transaction() as tx:
            await suppressions.guard_shared(tx)
            page = await rebuilding.lock_page(tx, after, limit)
            ids = [it.user_id for it in page]
            in_doubt = await applied_facts.in_doubt(tx, ids)
            owned = await applied_facts.owned(tx, ids)
            sound = [it for it in page if it.user_id not in in_doubt]
            moved = await placed_anew(tx, sound, placement, now, owned)
            await write_moved(tx, moved, now)
        changed = [it for it in moved if it.before != it.after]
        corrected = [
            it.before.user_id
            for it in changed
            if not _has_only_aged(it, owned[it.before.user_id], placement, now)
        ]
        return CheckedPage(len(page), corrected, ids[-1] if ids else UserId(0))


async def placed_anew(
    tx: Transaction,
    people: Sequence[Entry],
    placement: Placement,
    now: datetime,
    owned: Mapping[UserId, Owned] | None = None,
) -> list[Moved]:
    """Return locked people placed by their calls and by what other tables own, at this moment.

    Without `owned` an entry's copies of its callback and assignment are taken for right.
    """
    statuses = await contact_statuses(tx, people, placement, now)
    moved = []
    for before in people:
        known = before if owned is None else _as_owned(before, owned[before.user_id])
        is_ghost = owned is not None and owned[before.user_id].is_free
        settle = placement.settled if is_ghost and not known.is_unassigned else placement.placed
        after = placement.with_status(known, statuses[before.user_id], now)
        moved.append(Moved(before, settle(after, now)))
    return moved


def _has_only_aged(moved: Moved, owned: Owned, placement: Placement, now: datetime) -> bool:
    """Return whether time alone has moved the person, whom promotion has not moved yet."""
    before, after = moved.before, moved.after
    if after.reason is Reason.FROZEN and before.reason is not Reason.FROZEN:
        was_warm = before.rank_key < placement.ranking.frozen_from(now - _PROMOTED_WITHIN)
        return was_warm and before.rank_key == after.rank_key
    if before.state is not State.WAITING or before.due_at is None or before.due_at > now:
        return False
    waiting = placement.placed(_as_owned(before, owned), before.due_at - _AN_INSTANT)
    return waiting == before


def _as_owned(entry: Entry, owned: Owned) -> Entry:
    """Return the entry with the callback that the table of callbacks has."""
    return entry._replace(
        callback_id=owned.callback_id,
        callback_at=owned.callback_at,
        callback_agent_id=owned.callback_agent_id,
    )
