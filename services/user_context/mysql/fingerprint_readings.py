"""Reads fingerprints of rows, computed inside MySQL, by range of owners, owner and person."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from mainapp.description import Description
from servicekit.clock import Clock
from services.user_context.domain import HIGHEST_ID, OF_CLAIMS, OF_PEOPLE, UserId
from services.user_context.mysql.chunk_reader import Chunk, ChunkReader
from services.user_context.mysql.fingerprints import (
    RowChecksums,
    edition_of,
    expression,
    folded,
    packed,
)
from services.user_context.mysql.rows import Values, driver_rows
from services.user_context.mysql.snapshots import (
    keep_snapshots_repeatable,
    main_app_errors,
    snapshot,
)

# Owners that one statement may return.
OWNERS_PER_STATEMENT = 20_000


class OwnerFingerprints(NamedTuple):
    """The owners that have rows, and the fingerprint of each, in parallel."""

    owner_ids: Sequence[int]
    fingerprints: Sequence[int]
    statements: int
    mysql_seconds: float


class PeopleFingerprints(NamedTuple):
    """UserFacts.row_fingerprints of the people who exist."""

    packed: dict[int, bytes]
    statements: int
    mysql_seconds: float


class RangeFingerprints(NamedTuple):
    """The fingerprints of one chunk's rows by range, in parallel."""

    ranges: Sequence[int]
    fingerprints: Sequence[int]
    row_counts: Sequence[int]
    chunk: Chunk


class FingerprintReadings:
    """Asks MySQL for fingerprints of rows; no row leaves it.

    Rows whose owner is NULL or 0 do not count. Raises Unavailable (MAIN_APP_UNAVAILABLE) when MySQL
    cannot answer or does not in time.
    """

    def __init__(
        self, engine: AsyncEngine, description: Description, chunk_reader: ChunkReader, clock: Clock
    ) -> None:
        self._engine = engine
        self._chunk_reader = chunk_reader
        self._clock = clock
        self._tables = chunk_reader.tables
        self._edition = edition_of(description.tables)
        self._owners: dict[str, sa.ColumnElement[Any]] = {}
        self._row: dict[str, sa.ColumnElement[Any]] = {}
        for name in (*OF_PEOPLE, *OF_CLAIMS):
            described = description.tables[name]
            owner = described.user.column
            names = self._tables[name].c
            self._owners[name] = names[described.our_name(owner)]
            self._row[name] = sa.literal_column(expression(name, described), sa.BigInteger)
        keep_snapshots_repeatable(engine)

    async def ranges(
        self, table: str, range_size: int, *, after_key: str, load_share: float
    ) -> AsyncGenerator[RangeFingerprints, None]:
        """Yield the fingerprints of a table's rows by range of their owners' ids."""
        owner = self._owners[table]
        number = owner.op("DIV")(sa.literal_column(str(range_size)))
        columns = (number, sa.func.bit_xor(self._row[table]), sa.func.count())

        def reading(inside: sa.ColumnElement[bool]) -> sa.Select[Any]:
            query = sa.select(*columns).where(inside, owner > 0)
            # Without an explicit order, old servers sort what they group.
            return query.group_by(number).order_by(sa.null())

        chunks = self._chunk_reader.chunks(
            table, reading, after_key=after_key, load_share=load_share
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                numbers, sums, counts = _columns(chunk.found, 3)
                yield RangeFingerprints(numbers, list(map(folded, sums)), counts, chunk)

    async def owners(self, table: str, range_size: int, ranges: Sequence[int]) -> OwnerFingerprints:
        """Return the fingerprint of each owner's rows, of the owners in some ranges."""
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
                    found += await driver_rows(connection, self._by_owner(table, inside))
        owner_ids, sums = _columns(found, 2)
        return OwnerFingerprints(
            owner_ids,
            list(map(folded, sums)),
            -(-len(wanted) // at_once),
            self._clock.monotonic() - started,
        )

    async def people(self, user_ids: Sequence[UserId]) -> PeopleFingerprints:
        """Return the fingerprints of people's rows, all as of one moment after the call."""
        started = self._clock.monotonic()
        claims = self._tables["claims"]
        is_owned = claims.c.user_id.in_(user_ids)
        columns = (claims.c.claim_id, claims.c.user_id, self._row["claims"])
        queries = {
            table: self._by_owner(table, self._owners[table].in_(user_ids))
            for table in ("users", "user_addresses")
        }
        for table in OF_CLAIMS:
            queries[table] = self._by_owner(table, is_owned, through=claims)
        sums: dict[str, dict[int, int]] = {}
        async with snapshot(self._engine) as connection:
            rows = await driver_rows(connection, sa.select(*columns).where(is_owned))
            for table, query in queries.items():
                found = await driver_rows(connection, query)
                sums[table] = {row[0]: row[1] for row in found}
        checksums = RowChecksums(
            claims=[(claim_id, owner_id, checksum) for claim_id, owner_id, checksum in rows],
            addresses=sums["user_addresses"],
            users=sums["users"],
            requirements=sums["claim_requirements"],
            vehicle_packages=sums["claim_vehicle_packages"],
        )
        # With the beginning and the end of the snapshot.
        statements = len(queries) + 3
        return PeopleFingerprints(
            packed(checksums, self._edition), statements, self._clock.monotonic() - started
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


def _columns(rows: Sequence[Values], width: int) -> Sequence[Sequence[int]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width
