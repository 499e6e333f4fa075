"""Transactions on the queue's PostgreSQL."""

import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NewType

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from servicekit.database import database_errors

# A connection within a transaction, or one whose every statement is a transaction of its own.
Transaction = NewType("Transaction", AsyncConnection)

Columns = Sequence[tuple[str, str]]

# Held shared by whoever gives people a phone number, alone by whoever suppresses numbers.
PHONES_GUARD = zlib.crc32(b"queue.suppressed_phones")


class Database:
    """Hands out transactions; failures of PostgreSQL come out as ServiceError."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Everything within the block is committed at its end, or nothing is."""
        with database_errors():
            async with self._engine.begin() as connection:
                yield Transaction(connection)

    @asynccontextmanager
    async def statements(self) -> AsyncIterator[Transaction]:
        """Each statement within the block is committed by itself, in one round trip."""
        with database_errors():
            async with self._autocommit.connect() as connection:
                yield Transaction(connection)

    async def ping(self) -> None:
        """Raise unless PostgreSQL answers and has our tables."""
        async with self.statements() as tx:
            await tx.execute(_PING)


_PING = text("SELECT user_id FROM queue.entries LIMIT 1")


def unnested(columns: Columns, alias: str) -> str:
    """Return a FROM item that makes rows of one array parameter for each column."""
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns)
    return f"unnest({arrays}) AS {alias}({', '.join(name for name, _ in columns)})"


def arrays(columns: Columns, rows: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """Return the parameters for `unnested`; each row has the columns' values in their order."""
    transposed = [list(values) for values in zip(*rows, strict=True)]
    if not transposed:
        return {name: [] for name, _ in columns}
    return {name: values for (name, _), values in zip(columns, transposed, strict=True)}


def names(columns: Columns) -> str:
    """Return the columns' names, separated by commas."""
    return ", ".join(name for name, _ in columns)


def statement(sql: str) -> TextClause:
    """Return the statement; `sql` is made of our own constants alone."""
    return text(sql)
