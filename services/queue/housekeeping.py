"""Forgetting what is no longer needed."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.queue.rulebook import Rulebook
from services.queue.store import answers, audit
from services.queue.store.database import Database

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many answers to request ids, and entries of the audit, were deleted."""

    requests: int
    audit_entries: int

    @property
    def has_more(self) -> bool:
        """True when one of the batches was full."""
        return max(self.requests, self.audit_entries) == _BATCH


class Housekeeping:
    """Deletes in small batches; any number of copies may run."""

    def __init__(self, database: Database, rulebook: Rulebook) -> None:
        self._database = database
        self._rulebook = rulebook

    async def run_once(self, now: datetime) -> Forgotten:
        """Delete one batch of each kind."""
        rules = self._rulebook.rules.retention
        requests_before = now - timedelta(hours=rules.request_hours)
        audit_before = now - timedelta(days=rules.audit_days)
        async with self._database.statements() as tx:
            requests = await answers.delete_requests(tx, requests_before, _BATCH)
            entries = await audit.delete_old(tx, audit_before, _BATCH)
        return Forgotten(requests, entries)
