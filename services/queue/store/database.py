"""Transactions on the queue's PostgreSQL."""

import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NewType

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from servicekit.database import database_errors

# A connection within a transaction, or one whose every statement is a transaction of its own.
Transaction = NewType("Transaction", AsyncConnection)

Columns = Sequence[tuple[str, str]]

# The kind of a column that holds phone numbers.
TEXTS = "text[]"

# Held shared while people are given a phone number, exclusively while numbers are suppressed.
PHONES_GUARD = zlib.crc32(b"queue.suppressed_phones")


# Set in a connection's `info` by a transaction that leaves something in an outbox.
_WAKES_DISPATCH = "queue.wakes_dispatch"


class Database:
    """Opens transactions; failures of PostgreSQL are raised as ServiceError."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._after_outbox_commit: Callable[[], None] = lambda: None

    def after_outbox_commit(self, hook: Callable[[], None]) -> None:
        """Have `hook` called after each commit that leaves something in an outbox."""
        self._after_outbox_commit = hook

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Run the block as one transaction, which is committed at its end."""
        with database_errors():
            async with self._engine.begin() as connection:
                connection.info.pop(_WAKES_DISPATCH, None)
                yield Transaction(connection)
                wakes_dispatch = connection.info.pop(_WAKES_DISPATCH, False)
        if wakes_dispatch:
            self._after_outbox_commit()

    @asynccontextmanager
    async def statements(self) -> AsyncIterator[Transaction]:
        """Commit each statement within the block by itself, in one round trip."""
        with database_errors():
            async with self._autocommit.connect() as connection:
                connection.info.pop(_WAKES_DISPATCH, None)
                yield Transaction(connection)
                wakes_dispatch = connection.info.pop(_WAKES_DISPATCH, False)
        if wakes_dispatch:
            self._after_outbox_commit()

    async def ping(self) -> None:
        """Raise unless PostgreSQL has our tables and takes writes."""
        async with self.statements() as tx:
            await tx.execute(_PING)


# Locks no row, but only a server that takes writes would.
_PING = text("SELECT user_id FROM queue.entries LIMIT 0 FOR UPDATE")


def wake_dispatch(tx: Transaction) -> None:
    """Have the hook of `after_outbox_commit` called once `tx` is committed.

    Stores call it when they have left something in an outbox.
    """
    tx.info[_WAKES_DISPATCH] = True


def unnested(columns: Columns, alias: str, *, parameters: str = "", position: str = "") -> str:
    """Return a FROM item that makes rows of one array parameter for each column.

    Parameters are called like the columns, after `parameters` if that is given. With `position` the
    rows have their number as another column of that name. PostgreSQL would flatten arrays of
    arrays, so a `text[]` comes as the text of an array.
    """
    prefix = f"{parameters}_" if parameters else ""
    given = ", ".join(
        f"CAST(:{prefix}{name} AS text[])"
        if kind == TEXTS
        else f"CAST(:{prefix}{name} AS {kind}[])"
        for name, kind in columns
    )
    numbered, number = (" WITH ORDINALITY", f", {position}") if position else ("", "")
    rows = f"unnest({given}){numbered} AS {alias}({names(columns)}{number})"
    if all(kind != TEXTS for _, kind in columns):
        return rows
    cast = ", ".join(
        f"CAST({name} AS text[]) AS {name}" if kind == TEXTS else name for name, kind in columns
    )
    return f"(SELECT {cast}{number} FROM {rows}) AS {alias}"  # noqa: S608 - our own column names


def arrays(
    columns: Columns, rows: Iterable[Sequence[Any]], *, parameters: str = ""
) -> dict[str, list[Any]]:
    """Return the parameters for `unnested`; each row has the columns' values in their order."""
    prefix = f"{parameters}_" if parameters else ""
    transposed = [list(values) for values in zip(*rows, strict=True)]
    if not transposed:
        return {f"{prefix}{name}": [] for name, _ in columns}
    rows_given = len(transposed[0])
    return {
        # Numbers in E.164 need no quotes in the text of an array.
        f"{prefix}{name}": [f"{{{','.join(phones)}}}" for phones in values]
        if kind == TEXTS
        # PostgreSQL makes up for shorter arrays with NULLs: a column without values costs nothing.
        else ([] if values.count(None) == rows_given and name != columns[0][0] else values)
        for (name, kind), values in zip(columns, transposed, strict=True)
    }


def names(columns: Columns) -> str:
    """Return the columns' names, separated by commas."""
    return ", ".join(name for name, _ in columns)


def statement(sql: str) -> TextClause:
    """Return the statement; `sql` is made of our own constants alone."""
    return text(sql)
