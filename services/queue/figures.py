"""What others want to know of the queue: call states, figures, pages."""

import asyncio
from collections.abc import Sequence
from dataclasses import astuple
from datetime import datetime
from zoneinfo import ZoneInfo

from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit import deadline
from servicekit.clock import Clock
from services.queue import messages
from services.queue.domain import pages
from services.queue.domain.terms import AgentId, Queue, UserId
from services.queue.rulebook import Rulebook
from services.queue.store import callbacks, reading
from services.queue.store.database import Database, Transaction
from services.queue.store.reading import EntryFilter, PlaceFigures


class Figures:
    """Reads; changes nothing."""

    def __init__(self, database: Database, rulebook: Rulebook, clock: Clock) -> None:
        self._database = database
        self._rulebook = rulebook
        self._clock = clock
        self._under_way: asyncio.Task[list[PlaceFigures]] | None = None

    async def call_states(self, user_ids: Sequence[UserId]) -> list[call_state_pb2.CallState]:
        """Return the call state of each person, in the order asked for."""
        async with self._database.statements() as tx:
            found = await self.states_within(tx, user_ids)
        return [
            found.get(user_id) or call_state_pb2.CallState(user_id=user_id) for user_id in user_ids
        ]

    async def states_within(
        self, tx: Transaction, user_ids: Sequence[UserId]
    ) -> dict[UserId, call_state_pb2.CallState]:
        """Return the call states of those who are known, as the transaction sees them."""
        now, placement = self._clock.now(), self._rulebook.placement
        people = await reading.people(tx, user_ids)
        called = [it.entry.user_id for it in people if it.entry.attempts]
        attempts = await reading.recent_attempts(tx, called) if called else {}
        promised = [it.entry.user_id for it in people if it.entry.callback_id is not None]
        agreed = await callbacks.open_of(tx, promised) if promised else {}
        return {
            it.entry.user_id: messages.call_state_message(
                it,
                placement.score(it.entry, now),
                attempts.get(it.entry.user_id, ()),
                agreed.get(it.entry.user_id),
                now,
            )
            for it in people
        }

    async def state_within(self, tx: Transaction, user_id: UserId) -> call_state_pb2.CallState:
        """Return one person's call state as the transaction sees it."""
        states = await self.states_within(tx, [user_id])
        return states.get(user_id) or call_state_pb2.CallState(user_id=user_id)

    async def stats(self) -> queue_pb2.GetQueueStatsResponse:
        """Return how many people are where, and what has happened since midnight."""
        since = self._midnight()
        async with self._database.statements() as tx:
            day = await reading.day_figures(tx, since)
            by_agent = await reading.agent_figures(tx, since)
        return messages.stats_message(await self._place_figures(), day, by_agent)

    async def agent_days(self) -> dict[AgentId, queue_pb2.AgentDay]:
        """Return what each agent has done since midnight, those with nothing left out."""
        async with self._database.statements() as tx:
            by_agent = await reading.agent_figures(tx, self._midnight())
        return messages.agent_day_messages(by_agent)

    async def empty(self, queues: Sequence[Queue]) -> queue_pb2.EmptyQueue:
        """Return why nobody of these queues can be called."""
        now = self._clock.now()
        open_at = self._rulebook.placement.calling_hours.open_at(now)
        begin_at = open_at if open_at != now else None
        return messages.empty_message(await self._place_figures(), queues, begin_at)

    async def page(
        self, asked: EntryFilter, size: int, token: str
    ) -> queue_pb2.ListEntriesResponse:
        """Return a page; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        listed = ["entries", *astuple(asked)]
        after = pages.read(token, listed, asked.state)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await reading.page(tx, asked, after, limit + 1)
        now, placement = self._clock.now(), self._rulebook.placement
        shown = found[:limit]
        is_last = len(found) <= limit
        position = None if is_last else pages.position_of(shown[-1], asked.state)
        return queue_pb2.ListEntriesResponse(
            entries=[
                messages.entry_message(it, asked.queue, placement.score(it, now), now)
                for it in shown
            ],
            next_page_token="" if position is None else pages.written(position, listed),
        )

    def _midnight(self) -> datetime:
        zone = ZoneInfo(self._rulebook.rules.calls.company_time_zone)
        today = self._clock.now().astimezone(zone)
        return today.replace(hour=0, minute=0, second=0, microsecond=0)

    async def _place_figures(self) -> list[PlaceFigures]:
        """Count everybody once for all who ask at the same time."""
        task = self._under_way
        if task is None or task.done():
            with deadline.detached():
                task = self._under_way = asyncio.create_task(self._counted())
        # Whoever gives up must not take the count away from the others.
        return await asyncio.shield(task)

    async def _counted(self) -> list[PlaceFigures]:
        async with self._database.statements() as tx:
            return await reading.place_figures(tx)
