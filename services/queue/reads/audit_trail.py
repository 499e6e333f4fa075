"""The audit trail: which agent or system saw or changed which user."""

import re
from collections.abc import Sequence
from dataclasses import astuple

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import InvalidArgument
from servicekit.paging import cut_page
from services.queue.domain import pages
from services.queue.store import audit
from services.queue.store.audit import AuditFilter
from services.queue.store.database import Database
from services.queue.types import AgentId, UserId
from services.queue.wire import messages

_ACTION = re.compile(r"[A-Z][A-Z0-9_]{0,62}[A-Z0-9]")


class AuditTrail:
    """Notes accesses and lists entries; a change of a user is noted in the change's transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def note_access(self, actor_id: AgentId, user_ids: Sequence[UserId], action: str) -> None:
        """Note what the actor did, once for each user, or once for none.

        Raises InvalidArgument (ACTION_INVALID).
        """
        if not _ACTION.fullmatch(action):
            raise InvalidArgument("ACTION_INVALID", "an action is a word in UPPER_SNAKE")
        async with self._database.statements() as tx:
            await audit.note(tx, actor_id, action, user_ids or [None], self._clock.now())

    async def page(
        self, asked: AuditFilter, size: int, token: str
    ) -> queue_pb2.ListAuditEntriesResponse:
        """Return a page, the latest first; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        filters = ["audit", *astuple(asked)]
        before = pages.number_from(token, filters)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await audit.page(tx, asked, before, limit + 1)
        shown, next_token = cut_page(
            found, limit, lambda last: pages.number_token(last.audit_id, filters)
        )
        return queue_pb2.ListAuditEntriesResponse(
            entries=[messages.audit_message(it) for it in shown],
            next_page_token=next_token,
        )
