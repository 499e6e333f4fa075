"""All SQL: the readings of the main app, and the little we keep in PostgreSQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mainapp.description import ColumnType, Description
from servicekit.database import database_errors
from servicekit.errors import InvalidArgument
from services.user_context.domain import (
    OF_CLAIMS,
    Part,
    PeopleRows,
    Person,
    Row,
    UserId,
    assemble,
    numeric_key,
)
from services.user_context.fingerprints import (
    ROW_FINGERPRINT,
    LaneReading,
    combined,
    edition_of,
    expression,
    packed,
)
from services.user_context.rows import RowReader
from services.user_context.snapshots import keep_snapshots_repeatable, main_app_errors, snapshot
from services.user_context.tables import main_app_tables, read_version, unraised_fences

# Both servers read to here as one set of keys; larger questions go in several statements.
KEYS_PER_STATEMENT = 1_000


class MainAppStore:
    """Reads the main app: named columns of the described tables, by key, within time limits.

    ``engine`` is in autocommit, so a lone statement is one round trip. Every method raises
    Unavailable (MAIN_APP_UNAVAILABLE) when MySQL cannot answer or does not in time.
    """

    def __init__(self, engine: AsyncEngine, description: Description) -> None:
        self._engine = engine
        self._description = description
        self._tables = main_app_tables(description)
        self._whole = {
            name: RowReader(table, table.columns) for name, table in description.tables.items()
        }
        self._fingerprinted = {
            name: RowReader(table, table.columns, (ROW_FINGERPRINT,))
            for name, table in description.tables.items()
        }
        self._edition = edition_of(description.tables)
        self._row_fingerprints = {
            name: sa.literal_column(expression(name, table), sa.BigInteger)
            for name, table in description.tables.items()
        }
        self._facts = {
            name: RowReader(table, table.facts)
            for name, table in description.tables.items()
            if table.facts
        }
        self._facts_query = self._facts_statement()
        keep_snapshots_repeatable(engine)

    async def ping(self) -> None:
        """Return when MySQL answers."""
        with main_app_errors():
            async with self._engine.connect() as connection:
                await connection.execute(sa.select(1))

    async def read_people(
        self, user_ids: Sequence[UserId], *, fingerprinted: bool = False
    ) -> dict[UserId, Person]:
        """Return those of up to 1,000 people who exist, all as of one moment after the call.

        The number of statements does not depend on the number of people. With ``fingerprinted``
        the server says in the same statements what the rows come to, and in one more of addresses.
        """
        async with snapshot(self._engine) as connection:
            people, owners = self._column("users", "user_id"), self._column("claims", "user_id")
            users = await self._read(connection, "users", people, user_ids, fingerprinted)
            claims = await self._read(connection, "claims", owners, user_ids, fingerprinted)
            hanging = [
                await self._read_of_claims(connection, table, user_ids, fingerprinted)
                for table in OF_CLAIMS
            ]
            wanted = {row["current_user_address_id"] for row in users} - {None}
            address_id = self._column("user_addresses", "address_id")
            addresses = await self._read(connection, "user_addresses", address_id, list(wanted))
            every_address: Mapping[int, int] = {}
            if fingerprinted:
                every_address = await self._combined_addresses(connection, user_ids)
        rows = PeopleRows(users, claims, hanging[0], hanging[1], addresses)
        if fingerprinted:
            rows = replace(rows, row_fingerprints=_packed(rows, every_address, self._edition))
        return assemble(rows)

    async def read_facts(self, user_ids: Sequence[UserId]) -> dict[UserId, Person]:
        """Return what decides who is called, of those of up to 1,000 people who exist.

        One statement, so all of it is as of one moment after the call.
        """
        with main_app_errors():
            async with self._engine.connect() as connection:
                result = await connection.execute(self._facts_query, {"keys": user_ids})
                found: Sequence[Sequence[Any]] = result.all()
        return assemble(self._split(found))

    async def users_of(self, table: str, keys: Sequence[str]) -> set[UserId]:
        """Return the people that the rows of ``table`` with these primary keys belong to.

        A key without a row, or one that could not be a key of that table, belongs to nobody.

        Raises:
            InvalidArgument: the main app's description has no such table.
        """
        if table not in self._description.tables:
            raise InvalidArgument("UNKNOWN_TABLE", "no such table is described", table=table)
        query, known = self._users_statement(table), self._keys(table, keys)
        people: set[UserId] = set()
        with main_app_errors():
            async with self._engine.connect() as connection:
                for start in range(0, len(known), KEYS_PER_STATEMENT):
                    some = known[start : start + KEYS_PER_STATEMENT]
                    result = await connection.execute(query, {"keys": some})
                    people.update(UserId(user_id) for (user_id,) in result if user_id is not None)
        return people

    async def list_ids(self, after: int, limit: int) -> tuple[list[UserId], UserId]:
        """Return up to ``limit`` ids above ``after`` in rising order, and the highest of all."""
        key = self._column("users", "user_id")
        page = sa.select(key).where(key > after).order_by(key).limit(limit)
        with main_app_errors():
            async with self._engine.connect() as connection:
                ids = [UserId(user_id) for (user_id,) in await connection.execute(page)]
                highest = await connection.scalar(sa.select(sa.func.max(key)))
        return ids, UserId(highest or 0)

    def _column(self, table: str, name: str) -> sa.ColumnElement[Any]:
        return self._tables[table].c[name]

    async def _read(
        self,
        connection: AsyncConnection,
        table: str,
        key: sa.ColumnElement[Any],
        keys: Sequence[object],
        fingerprinted: bool = False,
    ) -> list[Row]:
        reader, columns = self._reader(table, fingerprinted)
        query = sa.select(*columns).where(key.in_(keys))
        return [reader.row(values) for values in await connection.execute(query)]

    async def _read_of_claims(
        self,
        connection: AsyncConnection,
        table: str,
        user_ids: Sequence[UserId],
        fingerprinted: bool,
    ) -> list[Row]:
        reader, columns = self._reader(table, fingerprinted)
        hanging, claims = self._tables[table], self._tables["claims"]
        query = (
            sa.select(*columns)
            .join_from(hanging, claims, claims.c.claim_id == hanging.c.claim_id)
            .where(claims.c.user_id.in_(user_ids))
        )
        return [reader.row(values) for values in await connection.execute(query)]

    def _reader(
        self, table: str, fingerprinted: bool
    ) -> tuple[RowReader, list[sa.ColumnElement[Any]]]:
        columns = [self._column(table, name) for name in self._whole[table].names]
        if not fingerprinted:
            return self._whole[table], columns
        return self._fingerprinted[table], [*columns, self._row_fingerprints[table]]

    async def _combined_addresses(
        self, connection: AsyncConnection, user_ids: Sequence[UserId]
    ) -> dict[int, int]:
        owner = self._column("user_addresses", "user_id")
        row = self._row_fingerprints["user_addresses"]
        query = (
            sa.select(owner, sa.func.bit_xor(row))
            .where(owner.in_(user_ids))
            .group_by(owner)
            .order_by(sa.null())
        )
        found = (await connection.execute(query)).all()
        return {row[0]: row[1] for row in found}

    def _facts_statement(self) -> sa.Select[Any]:
        users, claims = self._tables["users"], self._tables["claims"]
        requirements = self._tables["claim_requirements"]
        columns = [
            self._tables[name].c[column].label(f"{name}_{column}")
            for name, reader in self._facts.items()
            for column in reader.names
        ]
        joined = users.outerjoin(claims, claims.c.user_id == users.c.user_id).outerjoin(
            requirements, requirements.c.claim_id == claims.c.claim_id
        )
        keys: sa.BindParameter[Any] = sa.bindparam("keys", expanding=True)
        return sa.select(*columns).select_from(joined).where(users.c.user_id.in_(keys))

    def _split(self, found: Iterable[Sequence[Any]]) -> PeopleRows:
        """Undo the join: each row of each table once."""
        readers = self._facts["users"], self._facts["claims"], self._facts["claim_requirements"]
        # Each table's key comes first, NULL where the outer join found no row.
        ends = len(readers[0].names), len(readers[0].names) + len(readers[1].names)
        users: dict[object, Row] = {}
        claims: dict[object, Row] = {}
        requirements: list[Row] = []
        for values in found:
            user_id, claim_id, requirement_id = values[0], values[ends[0]], values[ends[1]]
            if user_id not in users:
                users[user_id] = readers[0].row(values[: ends[0]])
            if claim_id is not None and claim_id not in claims:
                claims[claim_id] = readers[1].row(values[ends[0] : ends[1]])
            if requirement_id is not None:
                requirements.append(readers[2].row(values[ends[1] :]))
        return PeopleRows(list(users.values()), list(claims.values()), requirements)

    def _users_statement(self, table: str) -> sa.Select[Any]:
        source: sa.FromClause = self._tables[table]
        name, step = table, self._description.tables[table].user
        while step.table is not None:
            source = source.join(
                self._tables[step.table], self._key(step.table) == self._named(name, step.column)
            )
            name, step = step.table, self._description.tables[step.table].user
        keys: sa.BindParameter[Any] = sa.bindparam("keys", expanding=True)
        return (
            sa.select(self._named(name, step.column))
            .distinct()
            .select_from(source)
            .where(self._key(table).in_(keys))
        )

    def _keys(self, table: str, keys: Sequence[str]) -> Sequence[object]:
        described = self._description.tables[table]
        if described.columns[described.key].type is not ColumnType.UINT64:
            return keys
        # MySQL would take "12abc" for 12.
        return [number for number in map(numeric_key, keys) if number is not None]

    def _key(self, table: str) -> sa.ColumnElement[Any]:
        return self._named(table, self._description.tables[table].key)

    def _named(self, table: str, column: str) -> sa.ColumnElement[Any]:
        """The column by the main app's name for it."""
        described = self._description.tables[table].columns[column]
        return self._tables[table].c[described.name_with_us or column]


def _packed(rows: PeopleRows, addresses: Mapping[int, int], edition: int) -> Mapping[int, bytes]:
    def pairs(of: Sequence[Mapping[str, Any]], owner: str) -> dict[int, int]:
        return combined((row[owner], row[ROW_FINGERPRINT]) for row in of)

    claims: Sequence[Mapping[str, Any]] = rows.claims
    return packed(
        LaneReading(
            pairs(rows.users, "user_id"),
            [(row["claim_id"], row["user_id"], row[ROW_FINGERPRINT]) for row in claims],
            addresses,
            pairs(rows.requirements, "claim_id"),
            pairs(rows.vehicle_packages, "claim_id"),
        ),
        edition,
    )


@dataclass(frozen=True, slots=True)
class UnraisedFence:
    """An invalidation the cache has not been told of."""

    part: Part
    user_id: UserId
    version: int


class OwnStore:
    """What the service keeps in PostgreSQL.

    Every method raises Unavailable or DeadlineExceeded when PostgreSQL does not answer.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._next_version = sa.select(read_version.next_value())

    async def draw_version(self) -> int:
        """Return a number higher than any drawn before, by whichever process."""
        with database_errors():
            async with self._engine.connect() as connection:
                return int(await connection.scalar(self._next_version) or 0)

    async def remember_unraised(self, part: Part, versions: Mapping[UserId, int]) -> None:
        """Keep these invalidations until the cache has been told; of two the higher is kept."""
        rows = [
            {"part": part.value, "user_id": user_id, "version": version}
            for user_id, version in versions.items()
        ]
        statement = insert(unraised_fences)
        higher = sa.func.greatest(unraised_fences.c.version, statement.excluded.version)
        upsert = statement.on_conflict_do_update(
            index_elements=["part", "user_id"], set_={"version": higher}
        )
        with database_errors():
            async with self._engine.connect() as connection:
                await connection.execute(upsert, rows)

    async def unraised(self, limit: int) -> list[UnraisedFence]:
        """Return up to ``limit`` invalidations the cache has not been told of."""
        columns = unraised_fences.c
        query = sa.select(columns.part, columns.user_id, columns.version).limit(limit)
        with database_errors():
            async with self._engine.connect() as connection:
                found = (await connection.execute(query)).all()
        return [
            UnraisedFence(Part(part), UserId(int(user_id)), int(version))
            for part, user_id, version in found
        ]

    async def forget_raised(self, fences: Sequence[UnraisedFence]) -> None:
        """Drop these invalidations, but not later ones of the same people."""
        columns = unraised_fences.c
        raised = sa.values(
            sa.column("part", sa.Text),
            sa.column("user_id", sa.Numeric(20, 0)),
            sa.column("version", sa.Numeric(20, 0)),
            name="raised",
        ).data([(one.part.value, one.user_id, one.version) for one in fences])
        statement = sa.delete(unraised_fences).where(
            columns.part == raised.c.part,
            columns.user_id == raised.c.user_id,
            columns.version <= raised.c.version,
        )
        with database_errors():
            async with self._engine.connect() as connection:
                await connection.execute(statement)
