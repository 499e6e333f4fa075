"""Whole tables in chunks by primary key, at a pace that the main app's MySQL can bear."""

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
from services.user_context.replica_lag import ReplicaLag
from services.user_context.snapshots import main_app_errors
from services.user_context.tables import main_app_tables

# 20,000 rows take a few hundredths of a second: long enough that the statements themselves cost
# next to nothing, short enough that nobody waits for one.
MOST_ROWS = 20_000
LEAST_ROWS = 100

# A chunk that takes longer is halved; one that would still be quick at twice the size is doubled.
SLOW_SECONDS = 1.0
QUICK_SECONDS = 0.25

# How long a replica that lags is left alone before it is asked again.
_LAG_SECONDS = 1.0
# Then whoever asked is told: they may have something better to do than to wait for it.
LONGEST_LAG_SECONDS = 60.0

_UUID_CHARACTERS = 36

Values = Sequence[Any]
# Makes the statement that reads the rows for which a condition holds.
Reading = Callable[[sa.ColumnElement[bool]], sa.Select[Any]]
Sleep = Callable[[float], Awaitable[None]]


class Chunk(NamedTuple):
    """What a statement said of the rows up to a key."""

    found: Sequence[Values]
    through_key: str
    is_last: bool
    statements: int
    mysql_seconds: float


class Pace:
    """How many rows a chunk has and how long MySQL rests after it."""

    def __init__(self, load_share: float) -> None:
        self.rows = MOST_ROWS
        self._rest_for_each_second = 1.0 / load_share - 1.0

    def took(self, seconds: float) -> None:
        """Fit the next chunk to how long a statement of this one took."""
        if seconds > SLOW_SECONDS:
            self.rows = max(self.rows // 2, LEAST_ROWS)
        elif seconds < QUICK_SECONDS:
            self.rows = min(self.rows * 2, MOST_ROWS)

    def rest_seconds(self, worked_seconds: float) -> float:
        """Return how long MySQL must be left alone after having worked."""
        return worked_seconds * self._rest_for_each_second


class _Timer:
    """Statements made and how long MySQL took for them, the longest of them apart."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.statements = 0
        self.seconds = 0.0
        self.longest = 0.0

    async def rows(self, connection: AsyncConnection, query: sa.Select[Any]) -> Sequence[Values]:
        started = self._clock.monotonic()
        self.statements += 1
        try:
            result = await connection.execute(query)
            # The driver's own tuples: making SQLAlchemy's rows of them doubles the cost.
            cursor = result.cursor
            return () if cursor is None else cursor.fetchall()
        finally:
            took = self._clock.monotonic() - started
            self.seconds += took
            self.longest = max(self.longest, took)


class ChunkWalks:
    """Walks along the primary keys of described tables.

    No snapshot and, between chunks, no connection is held: a row that changes meanwhile is seen as
    it was or as it is, one that is put in behind the walk is not seen. Where a chunk ended is
    remembered: finding it costs up to a fifth of a walk, and any key will do for the next.
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
        # Readings must be made of these, or their statements would have two tables.
        self.tables = main_app_tables(description)
        # The last key of a full chunk by its table and the key it begins behind.
        self._ends: dict[tuple[str, object], object] = {}

    async def chunks(
        self, table: str, reading: Reading, *, load_share: float, after_key: str = ""
    ) -> AsyncGenerator[Chunk, None]:
        """Yield what ``reading`` makes of the rows above ``after_key``, chunk by chunk.

        The wait between chunks is after the yield, so that the caller's work counts towards it.
        Raises InvalidArgument (AFTER_KEY_INVALID) for what could not be a key of the table, and
        Unavailable: MAIN_APP_UNAVAILABLE when MySQL cannot answer, or not in time for a chunk of
        the smallest size; MAIN_APP_LAGGING when a replica does not catch up.
        """
        low = self._parsed(table, after_key) if after_key else None
        pace = Pace(load_share)
        while True:
            await self._caught_up()
            timer = _Timer(self._clock)
            try:
                chunk, low = await self._read(table, reading, low, pace.rows, timer)
            except Unavailable as error:
                is_slow = isinstance(error.__cause__, DeadlineExceeded)
                if not is_slow or pace.rows == LEAST_ROWS:
                    raise
                pace.took(SLOW_SECONDS + timer.longest)
                await self._sleep(pace.rest_seconds(timer.seconds))
                continue
            finally:
                metrics.count_walked(timer.statements, timer.seconds)
            pace.took(timer.longest)
            rested_from = self._clock.monotonic()
            yield chunk
            if chunk.is_last:
                return
            rested = self._clock.monotonic() - rested_from
            await self._sleep(max(0.0, pace.rest_seconds(timer.seconds) - rested))

    async def _caught_up(self) -> None:
        """Return once the replica may be worked on."""
        since = self._clock.monotonic()
        while await self._lag.is_too_long():
            if self._clock.monotonic() - since > LONGEST_LAG_SECONDS:
                raise Unavailable("MAIN_APP_LAGGING", "the replica is too far behind to be read")
            await self._sleep(_LAG_SECONDS)

    async def _read(
        self, table: str, reading: Reading, low: object, rows: int, timer: _Timer
    ) -> tuple[Chunk, object]:
        key = self._key(table)
        above = [] if low is None else [key > low]
        with main_app_errors():
            async with self._engine.connect() as connection:
                high, is_last = self._ends.get((table, low)), False
                if high is None or rows < MOST_ROWS:
                    high, is_last = await self._end(connection, table, low, rows, timer)
                found: Sequence[Values] = ()
                if high is not None:
                    inside = sa.and_(key <= high, *above)
                    found = await timer.rows(connection, reading(inside))
        if timer.longest > QUICK_SECONDS:
            # Rows may have been put in between.
            self._ends.pop((table, low), None)
        through = low if high is None else high
        text = "" if through is None else str(through)
        return Chunk(found, text, is_last, timer.statements, timer.seconds), through

    async def _end(
        self, connection: AsyncConnection, table: str, low: object, rows: int, timer: _Timer
    ) -> tuple[object, bool]:
        """Return the last key of the next chunk, None for no rows, and whether it is the last."""
        key = self._key(table)
        above = [] if low is None else [key > low]
        nth = sa.select(key).where(*above).order_by(key).limit(1).offset(rows - 1)
        if ends := await timer.rows(connection, nth):
            if rows == MOST_ROWS:
                self._ends[table, low] = ends[0][0]
            return ends[0][0], False
        ((highest,),) = await timer.rows(connection, sa.select(sa.func.max(key)).where(*above))
        return highest, True

    def _key(self, table: str) -> sa.ColumnElement[Any]:
        described = self._description.tables[table]
        return self.tables[table].c[described.columns[described.key].name_with_us or described.key]

    def _parsed(self, table: str, key: str) -> object:
        described = self._description.tables[table]
        if described.columns[described.key].type is ColumnType.UINT64:
            number = numeric_key(key)
            if number is not None:
                return number
        elif len(key) <= _UUID_CHARACTERS and key.isprintable():
            return key
        raise InvalidArgument("AFTER_KEY_INVALID", "that cannot be a key", table=table)
