"""Reads people anew who reach an age at which their points change."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.queue import metrics
from services.queue.people.refreshing import Refreshing
from services.queue.store import entries
from services.queue.store.database import Database
from services.queue.types import UserId

_BATCH = 200
# A person whose reading failed is read again after this.
_PUT_OFF = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Aged:
    """How many people were due to be read anew, and how many of them could not be."""

    people: int
    faulty: int = 0

    @property
    def has_more(self) -> bool:
        """True when the batch was full."""
        return self.people == _BATCH


class AgeBoundaries:
    """Has people read anew, which ranks them by their age.

    A person whose reading fails, or changes nothing, is not read again for an hour, so that such
    people do not block the batch. Each replica of the service notes that for itself.
    """

    def __init__(self, database: Database, refreshing: Refreshing) -> None:
        self._database = database
        self._refreshing = refreshing
        self._put_off: dict[UserId, datetime] = {}

    async def run_once(self, now: datetime) -> Aged:
        """Read one batch anew; raises Unavailable when the main app cannot be read."""
        self._put_off = {it: until for it, until in self._put_off.items() if until > now}
        async with self._database.statements() as tx:
            user_ids = await entries.aged(tx, now, list(self._put_off), _BATCH)
        faulty = await self._refreshing.refresh(user_ids)
        self._put_off |= dict.fromkeys(user_ids, now + _PUT_OFF)
        metrics.AGE_BOUNDARIES.labels("passed").inc(len(user_ids) - len(faulty))
        metrics.AGE_BOUNDARIES.labels("put_off").inc(len(faulty))
        return Aged(len(user_ids), len(faulty))
