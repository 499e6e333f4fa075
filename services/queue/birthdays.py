"""People who reach an age at which their points change."""

from dataclasses import dataclass
from datetime import datetime

from services.queue.facts_application import FactsApplication
from services.queue.main_app import MainApp
from services.queue.requests import FactsUpdate
from services.queue.store import entries
from services.queue.store.database import Database

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Aged:
    """How many people were read anew."""

    people: int

    @property
    def has_more(self) -> bool:
        """True when the batch was full."""
        return self.people == _BATCH


class Birthdays:
    """Has them read anew, which ranks them by their age."""

    def __init__(self, database: Database, facts: FactsApplication, main_app: MainApp) -> None:
        self._database = database
        self._facts = facts
        self._main_app = main_app

    async def run_once(self, now: datetime) -> Aged:
        """Read one batch anew; raises Unavailable when the main app is away."""
        async with self._database.statements() as tx:
            user_ids = await entries.aged(tx, now, _BATCH)
        if user_ids:
            facts = await self._main_app.refresh(user_ids)
            await self._facts.apply([FactsUpdate(it) for it in facts])
        return Aged(len(user_ids))
