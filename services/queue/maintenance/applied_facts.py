"""What was last applied of each person's facts, for reconciliation."""

from collections.abc import AsyncIterator, Sequence
from itertools import compress

from dialler.queue.v1 import queue_pb2

from services.queue.store import applied_facts
from services.queue.store.applied_facts import Applied
from services.queue.store.database import Database
from services.queue.types import UserId

_UNSIGNED = 2**64 - 1


class AppliedFacts:
    """Reads what was applied; each block is one short statement, so no snapshot is held open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def blocks(self, after: int, size: int) -> AsyncIterator[queue_pb2.AppliedFacts]:
        """Yield what was applied to all people with ids above `after`, by rising id."""
        while True:
            async with self._database.statements() as tx:
                found = await applied_facts.block(tx, after, size)
            if not found.user_ids:
                return
            yield _message(found)
            if len(found.user_ids) < size:
                return
            after = found.user_ids[-1]

    async def of(self, user_ids: Sequence[UserId]) -> queue_pb2.AppliedFacts:
        """Return what was applied to those of these people who are known."""
        async with self._database.statements() as tx:
            return _message(await applied_facts.given(tx, user_ids))


def _message(found: Applied) -> queue_pb2.AppliedFacts:
    rows = [it or b"" for it in found.row_fingerprints]
    return queue_pb2.AppliedFacts(
        user_ids=found.user_ids,
        versions=found.versions,
        fingerprints=[it & _UNSIGNED for it in found.fingerprints],
        row_fingerprint_bytes=list(map(len, rows)),
        row_fingerprints=b"".join(rows),
        absent_user_ids=compress(found.user_ids, found.is_absent),
        altered_user_ids=compress(found.user_ids, found.is_altered),
    )
