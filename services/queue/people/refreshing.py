"""Reads people anew and applies their facts; a person who fails does not fail the others."""

import logging
from collections.abc import Sequence

from servicekit.errors import ServiceError
from services.queue.people.apply_facts import FactsApplication
from services.queue.people.isolation import isolated
from services.queue.people.user_context_client import UserContextClient
from services.queue.types import UserId
from services.queue.wire.requests import FactsUpdate

_log = logging.getLogger(__name__)


class Refreshing:
    """Applies the present facts of people."""

    def __init__(self, user_context: UserContextClient, facts: FactsApplication) -> None:
        self._user_context = user_context
        self._facts = facts

    async def refresh(self, user_ids: Sequence[UserId]) -> set[UserId]:
        """Refresh these people; returns those for whom that fails for a reason of their own.

        Raises Unavailable when the main app cannot be read, and what `FactsApplication` raises when
        PostgreSQL is.
        """
        faulty: set[UserId] = set()

        async def refresh(some: Sequence[UserId]) -> None:
            facts = await self._user_context.refresh(some)
            await self._facts.apply([FactsUpdate(it) for it in facts])
            faulty.update(set(some) - {it.user_id for it in facts})

        async def note(user_id: UserId, error: Exception) -> None:
            faulty.add(user_id)
            cause = error.reason if isinstance(error, ServiceError) else type(error).__name__
            _log.warning("refresh_failed", extra={"user_id": user_id, "cause": cause})

        await isolated(user_ids, refresh, note)
        return faulty
