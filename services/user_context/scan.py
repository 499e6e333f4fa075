"""Whole tables of the main app, read page by page in order of key on one snapshot."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mainapp.description import Description
from services.user_context.rows import ColumnReader, Values
from services.user_context.snapshots import keep_snapshots_repeatable, main_app_errors, snapshot
from services.user_context.tables import main_app_tables

Columns = list[Sequence[Any]]


class TableScans:
    """Scans that see the main app as it is when their block begins.

    Reading a table in order of its key costs the server a fraction of what reading the rows of
    people costs it, whose requirements lie scattered over the whole table.
    """

    def __init__(self, engine: AsyncEngine, description: Description) -> None:
        self._engine = engine
        self._description = description
        self._tables = main_app_tables(description)
        keep_snapshots_repeatable(engine)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["TableScan"]:
        """Hold one connection and one snapshot for the block.

        Raises Unavailable (MAIN_APP_UNAVAILABLE) when MySQL cannot answer, does not in time, or
        has no connection free.
        """
        with main_app_errors():
            async with snapshot(self._engine) as connection:
                yield TableScan(connection, self._description, self._tables)


class TableScan:
    """One snapshot. Only one of its scans may be under way at a time."""

    def __init__(
        self, connection: AsyncConnection, description: Description, tables: dict[str, sa.Table]
    ) -> None:
        self._connection = connection
        self._description = description
        self._tables = tables

    async def highest(self, table: str) -> int:
        """Return the highest key of a table whose key is a number; 0 for an empty one."""
        return int(await self._connection.scalar(sa.select(sa.func.max(self._key(table)))) or 0)

    async def pages(
        self, table: str, names: Sequence[str], *, rows: int, after: object = None
    ) -> AsyncGenerator[Columns, None]:
        """Yield the columns of up to ``rows`` rows whose keys are above ``after``, until the end.

        Only the last page, which may be empty, holds fewer rows. The server is at work on the next
        page while the caller is on this one.
        """
        described = self._description.tables[table]
        key = described.columns[described.key].name_with_us or described.key
        read = (key, *(name for name in names if name != key))
        reader = ColumnReader(described, read)
        places = [read.index(name) for name in names]
        asked = self._ask(table, read, rows, after)
        try:
            while True:
                found = await asked
                if len(found) == rows:
                    asked = self._ask(table, read, rows, found[-1][0])
                    # Lets the statement go out before the caller takes its time.
                    await asyncio.sleep(0)
                columns = reader.columns(found)
                yield [columns[place] for place in places]
                if len(found) < rows:
                    return
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    def _ask(
        self, table: str, names: Sequence[str], rows: int, after: object
    ) -> "asyncio.Task[Sequence[Values]]":
        key = self._key(table)
        columns = self._tables[table].c
        query = sa.select(*(columns[name] for name in names)).order_by(key).limit(rows)
        if after is not None:
            query = query.where(key > after)
        return asyncio.create_task(self._rows(query))

    async def _rows(self, query: sa.Select[Any]) -> Sequence[Values]:
        result = await self._connection.execute(query)
        # The driver's own tuples: making SQLAlchemy's rows of them doubles the cost of reading.
        cursor = result.cursor
        return () if cursor is None else cursor.fetchall()

    def _key(self, table: str) -> sa.ColumnElement[Any]:
        described = self._description.tables[table]
        name = described.columns[described.key].name_with_us or described.key
        return self._tables[table].c[name]
