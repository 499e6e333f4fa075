"""Whole tables of the main app, read page by page in order of key on one snapshot."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mainapp.description import Description
from services.user_context.mysql.rows import ColumnReader, driver_rows
from services.user_context.mysql.snapshots import (
    keep_snapshots_repeatable,
    main_app_errors,
    snapshot,
)
from services.user_context.mysql.tables import main_app_tables

Columns = list[Sequence[Any]]


class TableScans:
    """Starts scans that see the main app as of one moment.

    Reading a table in order of its key costs the server a fraction of reading it person by person,
    since the requirements of a person are scattered over the whole table.
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
    """One snapshot. Only one of its tables may be read at a time."""

    def __init__(
        self, connection: AsyncConnection, description: Description, tables: dict[str, sa.Table]
    ) -> None:
        self._connection = connection
        self._description = description
        self._tables = tables

    async def highest(self, table: str) -> int:
        """Return the highest key of a table whose key is a number; 0 for an empty one."""
        described = self._description.tables[table]
        key = self._tables[table].c[described.our_name(described.key)]
        return int(await self._connection.scalar(sa.select(sa.func.max(key))) or 0)

    async def pages(
        self, table: str, names: Sequence[str], *, rows: int, after: object = None
    ) -> AsyncGenerator[Columns, None]:
        """Yield the columns of up to ``rows`` rows whose keys are above ``after``, until the end.

        Only the last page, which may be empty, holds fewer rows. The server reads the next page
        while the caller works on this one.
        """
        described = self._description.tables[table]
        key = described.our_name(described.key)
        read = (key, *(name for name in names if name != key))
        reader = ColumnReader(described, read)
        places = [read.index(name) for name in names]
        columns = self._tables[table].c
        query = sa.select(*(columns[name] for name in read)).order_by(columns[key]).limit(rows)
        first = query if after is None else query.where(columns[key] > after)
        asked = asyncio.create_task(driver_rows(self._connection, first))
        try:
            while True:
                found = await asked
                if len(found) == rows:
                    following = query.where(columns[key] > found[-1][0])
                    asked = asyncio.create_task(driver_rows(self._connection, following))
                    # Sends the statement before the caller begins its work.
                    await asyncio.sleep(0)
                values = reader.columns(found)
                yield [values[place] for place in places]
                if len(found) < rows:
                    return
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
