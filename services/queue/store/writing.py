"""Writes of several tables as one statement.

Each store describes what it writes as a `Write`, a statement that takes any number of rows. Alone
it is sent at once. Within `together` the rows are gathered, whichever use case or store they come
from, and leave as one statement with a part (a data-modifying CTE) for each `Write`: one round trip
where there was one for each table.

What holds for such a statement, and what use cases keep to:

- Every part sees the tables as they were before the statement. A part that needs what another one
  wrote takes it from that one's RETURNING, and names it in `after`.
- PostgreSQL runs the parts in no fixed order, except that what a part reads of `after` is written
  first. Rows that other transactions want too are therefore locked by statements before, in the
  order that all keep to (request id, assignment, entries by id); the rest is written by the holder
  of those locks alone.
- No row is written by two parts. Foreign keys are checked at the end of the whole statement.
- All events are rows of one part, so the outbox numbers them in the order of posting.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import TextClause

from services.queue.store.database import (
    Columns,
    Transaction,
    arrays,
    statement,
    unnested,
    wake_dispatch,
)

# The rows gathered so far, in a connection's `info`.
_GATHERED = "queue.gathered"


@dataclass(frozen=True, eq=False, slots=True)
class Write:
    """A statement that writes the rows it is given.

    `sql` finds them at `{given}`, an item of FROM called `given` that has the columns and a
    `position`. Without columns it writes what follows from the parts of `after`, which it can read
    by their names; these are there even if they have no rows. `wakes_dispatch` says that it leaves
    something in an outbox.
    """

    name: str
    columns: Columns
    sql: str
    after: "tuple[Write, ...]" = ()
    wakes_dispatch: bool = False

    @property
    def part(self) -> str:
        """The write as a part of a statement."""
        if not self.columns:
            return f"{self.name} AS ({self.sql})"
        given = unnested(self.columns, "given", parameters=self.name, position="position")
        return f"{self.name} AS ({self.sql.replace('{given}', given)})"


Gathered = dict[Write, list[Sequence[Any]]]


async def write(tx: Transaction, what: Write, rows: Iterable[Sequence[Any]] = ()) -> None:
    """Write the rows: now, or at the end of the block of `together` that surrounds the call.

    Raises RuntimeError for a write without columns outside such a block: the parts from which it
    follows would be empty.
    """
    gathered: Gathered | None = tx.info.get(_GATHERED)
    if gathered is None and not what.columns:
        raise RuntimeError(f"{what.name} is written together with what it follows from")
    if gathered is None:
        await _send(tx, {what: list(rows)})
    else:
        gathered.setdefault(what, []).extend(rows)


@asynccontextmanager
async def together(tx: Transaction) -> AsyncIterator[None]:
    """Send what is written within the block as one statement at its end, if the block ends well.

    Statements within the block do not see it yet. A block within a block is part of that one.
    """
    if _GATHERED in tx.info:
        yield
        return
    gathered: Gathered = {}
    tx.info[_GATHERED] = gathered
    try:
        yield
    finally:
        del tx.info[_GATHERED]
    if gathered:
        await _send(tx, gathered)


async def _send(tx: Transaction, gathered: Gathered) -> None:
    writes = _ordered(tuple(gathered))
    values: dict[str, Any] = {}
    for it in writes:
        if it.columns:
            values |= arrays(it.columns, gathered.get(it, ()), parameters=it.name)
    await tx.execute(_statement(writes), values)
    if any(it.wakes_dispatch for it in gathered):
        wake_dispatch(tx)


@lru_cache(maxsize=256)
def _ordered(writes: tuple[Write, ...]) -> tuple[Write, ...]:
    """Return the writes and those they need, each after those it needs, in one order for all.

    Use cases gather the same writes in different orders, and PostgreSQL is to know one statement.
    """
    ordered: dict[Write, None] = {}

    def add(it: Write) -> None:
        for needed in it.after:
            add(needed)
        ordered[it] = None

    for it in sorted(writes, key=lambda it: it.name):
        add(it)
    return tuple(ordered)


@lru_cache(maxsize=256)
def _statement(writes: tuple[Write, ...]) -> TextClause:
    return statement(f"WITH {', '.join(it.part for it in writes)} SELECT 1")
