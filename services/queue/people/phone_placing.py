"""Places people anew whose number has become a placeholder, or is one no longer."""

from dataclasses import dataclass
from datetime import datetime

from services.queue.people.placing import place_by_status
from services.queue.people.rulebook import Rulebook
from services.queue.store import entries, person_phones, suppressions
from services.queue.store.database import Database

_BATCH = 500


@dataclass(frozen=True, slots=True)
class PlacedByPhone:
    """How many people were placed anew, and whether there is more to do."""

    people: int
    has_more: bool


class PhonePlacing:
    """Places them in small batches; any number of replicas may run, and continue after a crash."""

    def __init__(self, database: Database, rulebook: Rulebook) -> None:
        self._database = database
        self._rulebook = rulebook

    async def run_once(self, now: datetime) -> PlacedByPhone:
        """Place one batch of the people of one number."""
        placement = self._rulebook.placement
        async with self._database.statements() as tx:
            if not await person_phones.has_unplaced(tx):
                return PlacedByPhone(0, has_more=False)
        async with self._database.transaction() as tx:
            await suppressions.guard(tx)
            phone = await person_phones.lock_unplaced(tx)
            if phone is None:
                return PlacedByPhone(0, has_more=False)
            user_ids = await person_phones.misplaced(tx, phone, _BATCH)
            people = await entries.lock(tx, user_ids)
            await place_by_status(tx, list(people.values()), placement, now)
            if len(user_ids) < _BATCH:
                await person_phones.delete_unplaced(tx, phone)
        return PlacedByPhone(len(user_ids), has_more=True)

    async def settle(self) -> int:
        """Find numbers that concurrent transactions have made, or unmade, placeholders."""
        limit = self._rulebook.rules.calls.placeholder_people
        async with self._database.statements() as tx:
            phones = await person_phones.unsettled(tx, limit, _BATCH)
        if phones:
            async with self._database.transaction() as tx:
                await suppressions.guard(tx)
                await person_phones.settle(tx, phones, limit)
        return len(phones)
