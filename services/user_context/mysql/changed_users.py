"""Finds the users whose rows were created or updated since a moment."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from mainapp.description import Description
from servicekit.clock import Clock
from services.user_context.domain import UserId
from services.user_context.mysql.chunk_reader import Chunk, ChunkReader
from services.user_context.mysql.reader import KEYS_PER_STATEMENT, MainAppStore

_MOMENTS = ("created_at", "updated_at")


class ChangedChunk(NamedTuple):
    """The people found in one chunk of one table."""

    user_ids: Sequence[UserId]
    rows_read: int
    statements: int
    mysql_seconds: float


class ChangedUsers:
    """Reads every described table that has a column for when its rows were created or updated."""

    def __init__(
        self,
        chunk_reader: ChunkReader,
        store: MainAppStore,
        description: Description,
        clock: Clock,
    ) -> None:
        self._chunk_reader = chunk_reader
        self._store = store
        self._clock = clock
        self._described = description.tables
        self._tables = chunk_reader.tables

    async def since(
        self, moment: datetime, *, load_share: float
    ) -> AsyncGenerator[ChangedChunk, None]:
        """Yield the people of rows created or updated at a moment (naive, UTC) or later.

        No index leads to these rows, so every row is read. A row that belongs to a person through
        another table counts for the person to whom that table's row belongs now. Raises Unavailable
        (MAIN_APP_UNAVAILABLE).
        """
        for table, described in self._described.items():
            columns = self._tables[table].c
            changed = [columns[name] >= moment for name in _MOMENTS if name in columns]
            if not changed:
                continue
            owner = columns[described.our_name(described.user.column)]
            # One statement returns the owners and counts the rows; those without a change are
            # counted under NULL.
            owner_if_changed = sa.case((sa.or_(*changed), owner))
            query = sa.select(owner_if_changed.label("changed"), sa.func.count())
            query = query.group_by(sa.literal_column("changed")).order_by(sa.null())
            chunks = self._chunk_reader.chunks(table, query.where, load_share=load_share)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield await self._resolved(described.user.table, chunk)

    async def _resolved(self, through: str | None, chunk: Chunk) -> ChangedChunk:
        """Return the people of a chunk, looked up in the table through which its rows have them."""
        rows_read = sum(count for _, count in chunk.found)
        owners = [owner for owner, _ in chunk.found if owner is not None and owner > 0]
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
