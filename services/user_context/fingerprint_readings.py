"""Fingerprints computed inside MySQL: of ranges of owners, of owners, of people."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mainapp.description import Description
from servicekit.clock import Clock
from services.user_context.chunk_walk import Chunk, ChunkWalks, Values
from services.user_context.domain import HIGHEST_ID, OF_CLAIMS, OF_PEOPLE, UserId
from services.user_context.fingerprints import (
    LaneReading,
    edition_of,
    expression,
    folded,
    packed,
)
from services.user_context.snapshots import keep_snapshots_repeatable, main_app_errors, snapshot

# Owners a statement may have to tell apart.
OWNERS_PER_STATEMENT = 20_000


class OwnerFingerprints(NamedTuple):
    """Owners that have rows, and what these come to, side by side."""

    owner_ids: Sequence[int]
    fingerprints: Sequence[int]
    statements: int
    mysql_seconds: float


class PeopleFingerprints(NamedTuple):
    """UserFacts.row_fingerprints of the people who exist."""

    packed: dict[int, bytes]
    statements: int
    mysql_seconds: float


class RangeChunk(NamedTuple):
    """What the rows of one chunk come to by range, side by side."""

    ranges: Sequence[int]
    fingerprints: Sequence[int]
    row_counts: Sequence[int]
    chunk: Chunk


class FingerprintReadings:
    """Asks MySQL what rows come to; no row leaves it.

    Rows whose owner is NULL or 0 are nobody's and do not count. Raises Unavailable
    (MAIN_APP_UNAVAILABLE) when MySQL cannot answer or does not in time.
    """

    def __init__(
        self, engine: AsyncEngine, description: Description, walks: ChunkWalks, clock: Clock
    ) -> None:
        self._engine = engine
        self._walks = walks
        self._clock = clock
        self._tables = walks.tables
        self._edition = edition_of(description.tables)
        self._owners: dict[str, sa.ColumnElement[Any]] = {}
        self._row: dict[str, sa.ColumnElement[Any]] = {}
        for name in (*OF_PEOPLE, *OF_CLAIMS):
            described = description.tables[name]
            owner = described.user.column
            names = self._tables[name].c
            self._owners[name] = names[described.columns[owner].name_with_us or owner]
            self._row[name] = sa.literal_column(expression(name, described), sa.BigInteger)
        keep_snapshots_repeatable(engine)

    async def ranges(
        self, table: str, range_size: int, *, after_key: str, load_share: float
    ) -> AsyncGenerator[RangeChunk, None]:
        """Yield what the rows of a table come to by range of their owners' ids."""
        owner = self._owners[table]
        number = owner.op("DIV")(sa.literal_column(str(range_size)))
        columns = (number, sa.func.bit_xor(self._row[table]), sa.func.count())

        def reading(inside: sa.ColumnElement[bool]) -> sa.Select[Any]:
            query = sa.select(*columns).where(inside, owner > 0)
            # Without an order asked for, servers of old sort what they group.
            return query.group_by(number).order_by(sa.null())

        chunks = self._walks.chunks(table, reading, after_key=after_key, load_share=load_share)
        async with aclosing(chunks):
            async for chunk in chunks:
                numbers, sums, counts = _columns(chunk.found, 3)
                yield RangeChunk(numbers, list(map(folded, sums)), counts, chunk)

    async def owners(self, table: str, range_size: int, ranges: Sequence[int]) -> OwnerFingerprints:
        """Return what each owner's rows come to, of owners in some ranges."""
        owner = self._owners[table]
        at_once = max(1, OWNERS_PER_STATEMENT // range_size)
        wanted = sorted(set(ranges))
        found: list[Values] = []
        started = self._clock.monotonic()
        with main_app_errors():
            async with self._engine.connect() as connection:
                for start in range(0, len(wanted), at_once):
                    spans = _spans(wanted[start : start + at_once], range_size)
                    inside = sa.or_(*(owner.between(low, high) for low, high in spans))
                    found += await _rows(connection, self._by_owner(table, inside))
        owner_ids, sums = _columns(found, 2)
        return OwnerFingerprints(
            owner_ids,
            list(map(folded, sums)),
            -(-len(wanted) // at_once),
            self._clock.monotonic() - started,
        )

    async def people(self, user_ids: Sequence[UserId]) -> PeopleFingerprints:
        """Return what the rows of people come to, all as of one moment after the call."""
        started = self._clock.monotonic()
        claims = self._tables["claims"]
        wanted = claims.c.user_id.in_(user_ids)
        columns = (claims.c.claim_id, claims.c.user_id, self._row["claims"])
        async with snapshot(self._engine) as connection:
            rows = await _rows(connection, sa.select(*columns).where(wanted))
            people = [
                await _rows(connection, self._by_owner(table, self._owners[table].in_(user_ids)))
                for table in ("users", "user_addresses")
            ]
            hanging = [
                await _rows(connection, self._by_owner(table, wanted, through=claims))
                for table in OF_CLAIMS
            ]
        reading = LaneReading(
            _by_id(people[0]),
            [(row[0], row[1], row[2]) for row in rows],
            _by_id(people[1]),
            _by_id(hanging[0]),
            _by_id(hanging[1]),
        )
        # With the beginning and the end of the snapshot.
        return PeopleFingerprints(
            packed(reading, self._edition), 7, self._clock.monotonic() - started
        )

    def _by_owner(
        self, table: str, condition: sa.ColumnElement[bool], through: sa.Table | None = None
    ) -> sa.Select[Any]:
        owner = self._owners[table]
        source: sa.FromClause = self._tables[table]
        if through is not None:
            source = source.join(through, through.c.claim_id == owner)
        query = sa.select(owner, sa.func.bit_xor(self._row[table]))
        query = query.select_from(source).where(condition)
        return query.group_by(owner).order_by(sa.null())


def _spans(ranges: Sequence[int], range_size: int) -> list[tuple[int, int]]:
    """Return the first and the last id of each run of neighbouring ranges."""
    spans: list[tuple[int, int]] = []
    for number in ranges:
        low, high = number * range_size, min((number + 1) * range_size - 1, HIGHEST_ID)
        if spans and spans[-1][1] + 1 == low:
            low = spans.pop()[0]
        spans.append((max(low, 1), high))
    return spans


async def _rows(connection: AsyncConnection, query: sa.Select[Any]) -> Sequence[Values]:
    cursor = (await connection.execute(query)).cursor
    return () if cursor is None else cursor.fetchall()


def _by_id(rows: Sequence[Values]) -> dict[int, int]:
    return {row[0]: row[1] for row in rows}


def _columns(rows: Sequence[Values], width: int) -> Sequence[Sequence[int]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width
