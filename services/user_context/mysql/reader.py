"""The main app's rows by key: users, claims and what belongs to them, in few statements."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from mainapp.description import ColumnType, Description
from servicekit.errors import InvalidArgument
from services.user_context.domain import (
    PeopleRows,
    Person,
    UserId,
    assemble,
    numeric_key,
)
from services.user_context.mysql.fingerprints import (
    ROW_FINGERPRINT,
    RowChecksums,
    combined,
    edition_of,
    packed,
)
from services.user_context.mysql.people_queries import PeopleQueries
from services.user_context.mysql.rows import RowReader, Values
from services.user_context.mysql.snapshots import (
    answer_at_once,
    keep_snapshots_repeatable,
    main_app_errors,
    read_at_once,
)
from services.user_context.mysql.tables import main_app_tables

# MySQL and MariaDB read so many keys as one set; larger questions need several statements.
KEYS_PER_STATEMENT = 1_000

_KEYS: sa.BindParameter[Any] = sa.bindparam("keys", expanding=True)


class PeopleReading(NamedTuple):
    """The people who were found, and the GTIDs that the server had executed before."""

    people: Mapping[UserId, Person]
    executed_gtids: str


class MainAppStore:
    """Reads the main app: named columns of the described tables, by key, within time limits.

    ``engine`` is in autocommit, so a lone statement is one round trip. Every method raises
    Unavailable (MAIN_APP_UNAVAILABLE) when MySQL cannot answer or does not in time.
    """

    def __init__(self, engine: AsyncEngine, description: Description) -> None:
        self._engine = engine
        self._description = description
        self._tables = main_app_tables(description)
        self._edition = edition_of(description.tables)
        self._whole, self._fingerprinted = (
            PeopleQueries(self._tables, description, fingerprinted=each) for each in (False, True)
        )
        self._facts = {
            name: RowReader(table, table.facts)
            for name, table in description.tables.items()
            if table.facts
        }
        users, claims = self._tables["users"], self._tables["claims"]
        requirements = self._tables["claim_requirements"]
        joined = users.outerjoin(claims, claims.c.user_id == users.c.user_id).outerjoin(
            requirements, requirements.c.claim_id == claims.c.claim_id
        )
        columns = [
            self._tables[name].c[column].label(f"{name}_{column}")
            for name, reader in self._facts.items()
            for column in reader.names
        ]
        query = sa.select(*columns).select_from(joined)
        self._facts_query = query.where(users.c.user_id.in_(_KEYS))
        keep_snapshots_repeatable(engine)
        answer_at_once(engine)

    async def ping(self) -> None:
        """Return when MySQL answers."""
        with main_app_errors():
            async with self._engine.connect() as connection:
                await connection.execute(sa.select(1))

    async def read_people(
        self, user_ids: Sequence[UserId], *, fingerprinted: bool = False
    ) -> PeopleReading:
        """Return those of up to 1,000 people who exist, all as of one moment after the call.

        The number of statements does not depend on the number of people. With ``fingerprinted``
        the same statements return the checksum of each row, and one more those of all addresses.
        """
        if not user_ids:
            return PeopleReading({}, "")
        queries = self._fingerprinted if fingerprinted else self._whole
        sets, executed_gtids = await read_at_once(self._engine, queries.texts(user_ids))
        found = queries.rows(sets)
        if fingerprinted:
            claim_rows: Sequence[Mapping[str, Any]] = found.claims
            checksums = RowChecksums(
                _combined(found.users, "user_id"),
                [(row["claim_id"], row["user_id"], row[ROW_FINGERPRINT]) for row in claim_rows],
                {row[0]: row[1] for row in sets[-1]},
                _combined(found.requirements, "claim_id"),
                _combined(found.vehicle_packages, "claim_id"),
            )
            found = replace(found, row_fingerprints=packed(checksums, self._edition))
        return PeopleReading(assemble(found), executed_gtids)

    async def read_facts(self, user_ids: Sequence[UserId]) -> dict[UserId, Person]:
        """Return the facts of those of up to 1,000 people who exist.

        One statement, so all of them are as of one moment after the call.
        """
        with main_app_errors():
            async with self._engine.connect() as connection:
                result = await connection.execute(self._facts_query, {"keys": user_ids})
                found: Sequence[Sequence[Any]] = result.all()
        # Undoes the join, so that each row of each table comes once. Each table's key is its first
        # column, NULL where the outer join found no row.
        readers = self._facts["users"], self._facts["claims"], self._facts["claim_requirements"]
        ends = len(readers[0].names), len(readers[0].names) + len(readers[1].names)
        users: dict[object, Values] = {}
        claims: dict[object, Values] = {}
        requirements: list[Values] = []
        for values in found:
            user_id, claim_id, requirement_id = values[0], values[ends[0]], values[ends[1]]
            users.setdefault(user_id, values[: ends[0]])
            if claim_id is not None:
                claims.setdefault(claim_id, values[ends[0] : ends[1]])
            if requirement_id is not None:
                requirements.append(values[ends[1] :])
        tables = (tuple(users.values()), tuple(claims.values()), requirements)
        return assemble(
            PeopleRows(*(reader.rows(rows) for reader, rows in zip(readers, tables, strict=True)))
        )

    async def users_of(self, table: str, keys: Sequence[str]) -> set[UserId]:
        """Return the people to whom the rows of ``table`` with these primary keys belong.

        A key without a row, or one that cannot be a key of that table, belongs to no person.

        Raises:
            InvalidArgument: the main app's description has no such table.
        """
        described = self._description.tables.get(table)
        if described is None:
            raise InvalidArgument("UNKNOWN_TABLE", "no such table is described", table=table)
        known: Sequence[object] = keys
        if described.columns[described.key].type is ColumnType.UINT64:
            # MySQL would take "12abc" for 12.
            known = [number for number in map(numeric_key, keys) if number is not None]
        source: sa.FromClause = self._tables[table]
        columns = source.c
        key, owner = columns[described.our_name(described.key)], described.user
        user_id = columns[described.our_name(owner.column)]
        while owner.table is not None:
            joined, described = self._tables[owner.table], self._description.tables[owner.table]
            source = source.join(joined, joined.c[described.our_name(described.key)] == user_id)
            owner = described.user
            user_id = joined.c[described.our_name(owner.column)]
        query = sa.select(user_id).distinct().select_from(source).where(key.in_(_KEYS))
        people: set[UserId] = set()
        with main_app_errors():
            async with self._engine.connect() as connection:
                for start in range(0, len(known), KEYS_PER_STATEMENT):
                    some = known[start : start + KEYS_PER_STATEMENT]
                    result = await connection.execute(query, {"keys": some})
                    # Some applications write 0 or a negative number where a row has no owner.
                    people.update(UserId(user_id) for (user_id,) in result if (user_id or 0) > 0)
        return people

    async def list_ids(self, after: int, limit: int) -> tuple[list[UserId], UserId]:
        """Return up to ``limit`` ids above ``after`` in rising order, and the highest of all."""
        key = self._tables["users"].c.user_id
        page = sa.select(key).where(key > after).order_by(key).limit(limit)
        with main_app_errors():
            async with self._engine.connect() as connection:
                ids = [UserId(user_id) for (user_id,) in await connection.execute(page)]
                highest = await connection.scalar(sa.select(sa.func.max(key)))
        return ids, UserId(highest or 0)


def _combined(rows: Sequence[Mapping[str, Any]], owner: str) -> dict[int, int]:
    return combined((row[owner], row[ROW_FINGERPRINT]) for row in rows)
