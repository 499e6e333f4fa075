"""Reads whole tables in chunks by primary key, at a load that the main app's MySQL can bear."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mainapp.description import ColumnType, Description
from servicekit.clock import Clock
from servicekit.errors import DeadlineExceeded, InvalidArgument, Unavailable
from services.user_context import metrics
from services.user_context.domain import numeric_key
from services.user_context.mysql.replica_lag import ReplicaLag
from services.user_context.mysql.rows import Values, driver_rows
from services.user_context.mysql.snapshots import main_app_errors
from services.user_context.mysql.tables import main_app_tables

# 20,000 rows take a few hundredths of a second: long enough that the cost of a statement itself
# does not count, short enough that other statements do not wait for it.
MOST_ROWS = 20_000
LEAST_ROWS = 100

# A chunk that takes longer is halved; one that is faster is doubled.
SLOW_SECONDS = 1.0
QUICK_SECONDS = 0.25

# Pause before a lagging replica is asked again.
_LAG_SECONDS = 1.0
# After so long the caller gets an error, since it may have other work than to wait.
LONGEST_LAG_SECONDS = 60.0

_UUID_CHARACTERS = 36

# Makes the statement that reads the rows for which a condition holds.
Reading = Callable[[sa.ColumnElement[bool]], sa.Select[Any]]
Sleep = Callable[[float], Awaitable[None]]


class Chunk(NamedTuple):
    """The result of one statement, which covers the rows up to a key."""

    found: Sequence[Values]
    through_key: str
    is_last: bool
    statements: int
    mysql_seconds: float


class ChunkLoadLimiter:
    """Chooses how many rows a chunk has and how long MySQL rests after it."""

    def __init__(self, load_share: float) -> None:
        self.rows = MOST_ROWS
        self._rest_for_each_second = 1.0 / load_share - 1.0

    def took(self, seconds: float) -> None:
        """Fit the size of the next chunk to how long a statement of this one took."""
        if seconds > SLOW_SECONDS:
            self.rows = max(self.rows // 2, LEAST_ROWS)
        elif seconds < QUICK_SECONDS:
            self.rows = min(self.rows * 2, MOST_ROWS)

    def rest_seconds(self, worked_seconds: float) -> float:
        """Return how long MySQL must rest after having worked."""
        return worked_seconds * self._rest_for_each_second


class _StatementTimer:
    """Counts statements and how long MySQL takes for them, and for the longest of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.statements = 0
        self.seconds = 0.0
        self.longest = 0.0

    async def rows(self, connection: AsyncConnection, query: sa.Select[Any]) -> Sequence[Values]:
        started = self._clock.monotonic()
        self.statements += 1
        try:
            return await driver_rows(connection, query)
        finally:
            took = self._clock.monotonic() - started
            self.seconds += took
            self.longest = max(self.longest, took)


class ChunkReader:
    """Reads described tables in chunks along their primary keys.

    No snapshot and, between chunks, no connection is held: a row that changes meanwhile is read as
    it was or as it is, and a row inserted below the present key is not read. The last key of a
    chunk is remembered: finding it costs up to a fifth of a reading, and any key serves the next.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        description: Description,
        clock: Clock,
        lag: ReplicaLag,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._lag = lag
        self._sleep = sleep
        self._description = description
        self._clock = clock
        # Statements must be made of these, or they would name each table twice.
        self.tables = main_app_tables(description)
        # The last key of a full chunk by its table and the key it begins behind.
        self._ends: dict[tuple[str, object], object] = {}

    async def chunks(
        self, table: str, reading: Reading, *, load_share: float, after_key: str = ""
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the results of ``reading`` for the rows above ``after_key``, chunk by chunk.

        The wait between chunks is after the yield, so that the caller's work counts towards it.
        Raises InvalidArgument (AFTER_KEY_INVALID) for what could not be a key of the table, and
        Unavailable: MAIN_APP_UNAVAILABLE when MySQL cannot answer, or not in time for a chunk of
        the smallest size; MAIN_APP_LAGGING when a replica does not catch up.
        """
        low = self._parsed_key(table, after_key) if after_key else None
        limiter = ChunkLoadLimiter(load_share)
        while True:
            since = self._clock.monotonic()
            while await self._lag.is_too_long():
                if self._clock.monotonic() - since > LONGEST_LAG_SECONDS:
                    raise Unavailable("MAIN_APP_LAGGING", "the replica is too far behind")
                await self._sleep(_LAG_SECONDS)
            timer = _StatementTimer(self._clock)
            try:
                chunk, low = await self._read(table, reading, low, limiter.rows, timer)
            except Unavailable as error:
                is_slow = isinstance(error.__cause__, DeadlineExceeded)
                if not is_slow or limiter.rows == LEAST_ROWS:
                    raise
                limiter.took(SLOW_SECONDS + timer.longest)
                await self._sleep(limiter.rest_seconds(timer.seconds))
                continue
            finally:
                metrics.CHUNK_STATEMENTS.inc(timer.statements)
                metrics.CHUNK_SECONDS.inc(timer.seconds)
            limiter.took(timer.longest)
            rested_from = self._clock.monotonic()
            yield chunk
            if chunk.is_last:
                return
            rested = self._clock.monotonic() - rested_from
            await self._sleep(max(0.0, limiter.rest_seconds(timer.seconds) - rested))

    async def _read(
        self, table: str, reading: Reading, low: object, rows: int, timer: _StatementTimer
    ) -> tuple[Chunk, object]:
        """Return the chunk of up to ``rows`` rows above a key, and its last key."""
        described = self._description.tables[table]
        key = self.tables[table].c[described.our_name(described.key)]
        above = [] if low is None else [key > low]
        with main_app_errors():
            async with self._engine.connect() as connection:
                high, is_last = self._ends.get((table, low)), False
                if high is None or rows < MOST_ROWS:
                    nth = sa.select(key).where(*above).order_by(key).limit(1).offset(rows - 1)
                    if ends := await timer.rows(connection, nth):
                        high = ends[0][0]
                        if rows == MOST_ROWS:
                            self._ends[table, low] = high
                    else:
                        highest = sa.select(sa.func.max(key)).where(*above)
                        ((high,),), is_last = await timer.rows(connection, highest), True
                found: Sequence[Values] = ()
                if high is not None:
                    found = await timer.rows(connection, reading(sa.and_(key <= high, *above)))
        if timer.longest > QUICK_SECONDS:
            # Rows may have been inserted below the remembered key.
            self._ends.pop((table, low), None)
        through = low if high is None else high
        text = "" if through is None else str(through)
        return Chunk(found, text, is_last, timer.statements, timer.seconds), through

    def _parsed_key(self, table: str, key: str) -> object:
        described = self._description.tables[table]
        if described.columns[described.key].type is ColumnType.UINT64:
            number = numeric_key(key)
            if number is not None:
                return number
        elif len(key) <= _UUID_CHARACTERS and key.isprintable():
            return key
        raise InvalidArgument("AFTER_KEY_INVALID", "that cannot be a key", table=table)
