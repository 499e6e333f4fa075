"""Whether people stand where the queue's own knowledge puts them, page by page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.clock import Clock
from services.queue.domain.caps import Cap, capped
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.terms import Block, Reason, State, UserId
from services.queue.rulebook import Rulebook
from services.queue.store import applied_facts, assignments, rebuilding, suppressions
from services.queue.store.applied_facts import Owned
from services.queue.store.database import Database, Transaction
from services.queue.writing import Moved, write_moved

_AN_INSTANT = timedelta(microseconds=1)
# Whoever went cold longer ago than this stands where no promoter would have left them.
_PROMOTED_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CheckedPage:
    """How many people were looked at, who was put right, and through which id; 0 for nobody.

    Whom time alone has moved is put where they belong by now, and is none of those put right.
    """

    checked: int
    corrected: Sequence[UserId]
    through: UserId


class EntryCheck:
    """Puts right whoever stands elsewhere than the rules say; facts in doubt are left alone."""

    def __init__(
        self, database: Database, rulebook: Rulebook, clock: Clock, posted: Callable[[], None]
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._rulebook = rulebook
        self._clock = clock
        self._posted = posted

    async def check(self, after: UserId, limit: int) -> CheckedPage:
        """Check the first people above `after`, locking them for as long as it takes."""
        placement, now = self._rulebook.placement, self._clock.now()
        async with self._database.transaction() as tx:
            page = await rebuilding.lock_page(tx, after, limit)
            ids = [it.user_id for it in page]
            in_doubt = await applied_facts.in_doubt(tx, ids)
            owned = await _owned(tx, page, now)
            sound = [it for it in page if it.user_id not in in_doubt]
            moved = await placed_anew(tx, sound, placement, now, owned)
            await write_moved(tx, moved, now)
        changed = [it for it in moved if it.before != it.after]
        if changed:
            self._posted()
        corrected = [
            it.before.user_id
            for it in changed
            if not _has_only_aged(it, owned[it.before.user_id], placement, now)
        ]
        return CheckedPage(len(page), corrected, ids[-1] if ids else UserId(0))


async def _owned(tx: Transaction, page: Sequence[Entry], now: datetime) -> dict[UserId, Owned]:
    """Return what other tables say of these people, and of their numbers apart from calls."""
    owned = await applied_facts.owned(tx, [it.user_id for it in page])
    numbers = [(it.user_id, it.phone_e164) for it in page if it.phone_e164 is not None]
    for user_id, standing in (await suppressions.standings(tx, numbers, now)).items():
        owned[user_id] = owned[user_id]._replace(phone_block=standing.block)
    return owned


async def placed_anew(
    tx: Transaction,
    people: Sequence[Entry],
    placement: Placement,
    now: datetime,
    owned: Mapping[UserId, Owned] | None = None,
) -> list[Moved]:
    """Return locked people where their calls, and what other tables own, put them at this moment.

    Without `owned` an entry's copies of what other tables own are taken for true.
    """
    since = now - timedelta(days=placement.rules.calls.period_days)
    called = [it.user_id for it in people if it.attempts]
    calls = await assignments.calls_of_all_since(tx, called, since) if called else {}
    moved = []
    for before in people:
        known = before if owned is None else _as_owned(before, owned[before.user_id])
        zone = placement.calling_hours.zone(known.time_zone)
        cap = capped(calls.get(known.user_id, ()), now, zone, placement.rules.calls)
        is_ghost = owned is not None and owned[before.user_id].is_free
        settle = placement.settled if is_ghost and not known.is_ours_to_place else placement.placed
        moved.append(Moved(before, settle(_as_capped(known, cap, now), now)))
    return moved


def _has_only_aged(moved: Moved, owned: Owned, placement: Placement, now: datetime) -> bool:
    """Return whether nothing but time has moved the person: the promoter was about to."""
    before, after = moved.before, moved.after
    if after.reason is Reason.FROZEN and before.reason is not Reason.FROZEN:
        was_warm = before.rank_key < placement.ranking.frozen_from(now - _PROMOTED_WITHIN)
        return was_warm and before.rank_key == after.rank_key
    if before.state is not State.WAITING or before.due_at is None or before.due_at > now:
        return False
    stood = placement.placed(_as_owned(before, owned), before.due_at - _AN_INSTANT)
    return stood == before


def _as_capped(entry: Entry, cap: Cap | None, now: datetime) -> Entry:
    """Return the entry with this cap; one that has passed is as good as none."""
    is_past = entry.capped_until is not None and entry.capped_until <= now
    return entry if cap is None and is_past else entry.with_cap(cap)


def _as_owned(entry: Entry, owned: Owned) -> Entry:
    """Return the entry with its callback, suppression and number's block as their tables have it.

    A suppression missing from its table is not lifted here: that is a supervisor's to do.
    """
    return entry._replace(
        callback_id=owned.callback_id,
        callback_at=owned.callback_at,
        callback_agent_id=owned.callback_agent_id,
        phone_block=owned.phone_block,
        block=Block.DO_NOT_CONTACT if owned.is_suppressed else entry.block,
    )
