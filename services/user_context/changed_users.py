"""Who has rows that say they were changed since a moment."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from mainapp.description import Description
from servicekit.clock import Clock
from services.user_context.chunk_walk import Chunk, ChunkWalks
from services.user_context.domain import UserId
from services.user_context.store import KEYS_PER_STATEMENT, MainAppStore

_MOMENTS = ("created_at", "updated_at")


class ChangedChunk(NamedTuple):
    """The people found in one chunk of one table."""

    user_ids: Sequence[UserId]
    rows_read: int
    statements: int
    mysql_seconds: float


class ChangedUsers:
    """Walks every described table that says when its rows were created or updated."""

    def __init__(
        self, walks: ChunkWalks, store: MainAppStore, description: Description, clock: Clock
    ) -> None:
        self._walks = walks
        self._store = store
        self._clock = clock
        self._described = description.tables
        self._tables = walks.tables

    async def since(
        self, moment: datetime, *, load_share: float
    ) -> AsyncGenerator[ChangedChunk, None]:
        """Yield the people of rows created or updated at a moment (naive, UTC) or later.

        No index leads to these rows, so all are looked at. Rows that lead through another table
        lead to those their row there belongs to now. Raises Unavailable (MAIN_APP_UNAVAILABLE).
        """
        for table in self._described:
            columns = self._tables[table].c
            told = [columns[name] >= moment for name in _MOMENTS if name in columns]
            if not told:
                continue
            chunks = self._walks.chunks(
                table, self._reading(table, sa.or_(*told)), load_share=load_share
            )
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield await self._resolved(table, chunk)

    def _reading(self, table: str, is_changed: sa.ColumnElement[bool]) -> Any:
        described = self._described[table]
        name = described.user.column
        owner = self._tables[table].c[described.columns[name].name_with_us or name]
        # One statement says who and how many rows there were; the rest are counted under NULL.
        changed = sa.case((is_changed, owner))

        def reading(inside: sa.ColumnElement[bool]) -> sa.Select[Any]:
            query = sa.select(changed.label("changed"), sa.func.count()).where(inside)
            return query.group_by(sa.literal_column("changed")).order_by(sa.null())

        return reading

    async def _resolved(self, table: str, chunk: Chunk) -> ChangedChunk:
        rows_read = sum(count for _, count in chunk.found)
        owners = [owner for owner, _ in chunk.found if owner is not None and owner > 0]
        through = self._described[table].user.table
        if through is None or not owners:
            people = [UserId(owner) for owner in owners]
            return ChangedChunk(people, rows_read, chunk.statements, chunk.mysql_seconds)
        started = self._clock.monotonic()
        found = await self._store.users_of(through, [str(owner) for owner in owners])
        return ChangedChunk(
            sorted(found),
            rows_read,
            chunk.statements - (-len(owners) // KEYS_PER_STATEMENT),
            chunk.mysql_seconds + self._clock.monotonic() - started,
        )
