"""Forgetting what is no longer needed."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.queue.rules import RetentionRules
from services.queue.store import assignments
from services.queue.store.database import Database

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many answers to request ids were deleted."""

    requests: int
    has_more: bool


class Housekeeping:
    """Deletes in small batches; any number of copies may run."""

    def __init__(self, database: Database, rules: RetentionRules) -> None:
        self._database = database
        self._keep = timedelta(hours=rules.request_hours)

    async def run_once(self, now: datetime) -> Forgotten:
        """Delete one batch of old answers."""
        async with self._database.statements() as tx:
            deleted = await assignments.delete_requests(tx, now - self._keep, _BATCH)
        return Forgotten(deleted, has_more=deleted == _BATCH)
