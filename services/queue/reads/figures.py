"""Figures of the queue, call states of users, and pages of entries."""

import asyncio
from collections.abc import Sequence
from dataclasses import astuple
from datetime import datetime
from zoneinfo import ZoneInfo

from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit import deadline
from servicekit.clock import Clock
from servicekit.paging import cut_page
from services.queue.domain import pages
from services.queue.domain.callbacks import Callback
from services.queue.people.rulebook import Rulebook
from services.queue.store import callbacks, pauses, reading
from services.queue.store.database import Database, Transaction
from services.queue.store.reading import (
    EntryFilter,
    KnownPerson,
    PlaceFigures,
    RecentAttempt,
)
from services.queue.types import AgentId, Queue, UserId
from services.queue.wire import messages


class QueueFigures:
    """Reads only."""

    def __init__(self, database: Database, rulebook: Rulebook, clock: Clock) -> None:
        self._database = database
        self._rulebook = rulebook
        self._clock = clock
        self._under_way: asyncio.Task[list[PlaceFigures]] | None = None

    async def call_states(self, user_ids: Sequence[UserId]) -> list[call_state_pb2.CallState]:
        """Return the call state of each user, in the order of the ids."""
        async with self._database.statements() as tx:
            found = await self.states_within(tx, user_ids)
        return [
            found.get(user_id) or call_state_pb2.CallState(user_id=user_id) for user_id in user_ids
        ]

    async def states_within(
        self, tx: Transaction, user_ids: Sequence[UserId]
    ) -> dict[UserId, call_state_pb2.CallState]:
        """Return the call states of the users known, as the transaction sees them."""
        people = await reading.people(tx, user_ids)
        called = [it.entry.user_id for it in people if it.entry.attempts]
        attempts = await reading.recent_attempts(tx, called) if called else {}
        scheduled = [it.entry.user_id for it in people if it.entry.callback_id is not None]
        open_callbacks = await callbacks.open_of(tx, scheduled) if scheduled else {}
        return {
            it.entry.user_id: self.state(
                it, attempts.get(it.entry.user_id, ()), open_callbacks.get(it.entry.user_id)
            )
            for it in people
        }

    def state(
        self, person: KnownPerson, attempts: Sequence[RecentAttempt], callback: Callback | None
    ) -> call_state_pb2.CallState:
        """Return the call state of a user with these latest calls and this open callback."""
        now, placement, entry = self._clock.now(), self._rulebook.placement, person.entry
        # For a user whom an agent holds: the block, if one came since, for the agent's screen.
        block = None if entry.is_unassigned else placement.contact_block(entry)
        reason = block or entry.reason
        score = placement.score(entry, now)
        return messages.call_state_message(person, score, reason, attempts, callback, now)

    async def state_within(self, tx: Transaction, user_id: UserId) -> call_state_pb2.CallState:
        """Return one user's call state as the transaction sees it."""
        states = await self.states_within(tx, [user_id])
        return states.get(user_id) or call_state_pb2.CallState(user_id=user_id)

    async def stats(self) -> queue_pb2.GetQueueStatsResponse:
        """Return how many users each queue and state has, and what has happened since midnight."""
        since = self._midnight()
        async with self._database.statements() as tx:
            day = await reading.day_figures(tx, since)
            by_agent = await reading.agent_figures(tx, since)
            paused = await pauses.in_force(tx, self._clock.now())
        return messages.stats_message(await self._place_figures(), day, by_agent, paused)

    async def agent_days(self) -> dict[AgentId, queue_pb2.AgentDay]:
        """Return what each agent has done since midnight; agents without a call are absent."""
        async with self._database.statements() as tx:
            by_agent = await reading.agent_figures(tx, self._midnight())
        return messages.agent_day_messages(by_agent)

    async def empty(self, queues: Sequence[Queue]) -> queue_pb2.EmptyQueue:
        """Return why no user of these queues can be called now."""
        now = self._clock.now()
        open_at = self._rulebook.placement.calling_hours.open_at(now)
        begin_at = open_at if open_at != now else None
        async with self._database.statements() as tx:
            paused = await pauses.in_force(tx, now)
        return messages.empty_message(await self._place_figures(), queues, begin_at, paused)

    async def page(
        self, asked: EntryFilter, size: int, token: str
    ) -> queue_pb2.ListEntriesResponse:
        """Return a page; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        filters = ["entries", *astuple(asked)]
        after = pages.position_from(token, filters, asked.state)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await reading.page(tx, asked, after, limit + 1)
        now, placement = self._clock.now(), self._rulebook.placement
        shown, next_token = cut_page(
            found,
            limit,
            lambda last: pages.position_token(pages.position_of(last, asked.state), filters),
        )
        return queue_pb2.ListEntriesResponse(
            entries=[
                messages.entry_message(it, asked.queue, placement.score(it, now), now)
                for it in shown
            ],
            next_page_token=next_token,
        )

    def _midnight(self) -> datetime:
        zone = ZoneInfo(self._rulebook.rules.calls.company_time_zone)
        today = self._clock.now().astimezone(zone)
        return today.replace(hour=0, minute=0, second=0, microsecond=0)

    async def _place_figures(self) -> list[PlaceFigures]:
        """Count all users, once for all callers of the same moment."""
        task = self._under_way
        if task is None or task.done():

            async def count() -> list[PlaceFigures]:
                async with self._database.statements() as tx:
                    return await reading.place_figures(tx)

            with deadline.detached():
                task = self._under_way = asyncio.create_task(count())
        # Shielded: a caller that gives up must not cancel the count of the others.
        return await asyncio.shield(task)
