"""The store of search: users of the main app in MySQL, the words of their names in PostgreSQL."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mainapp.description import Description
from servicekit.database import database_errors
from services.user_context.domain import Row, UserId
from services.user_context.mysql.rows import RowReader, driver_rows
from services.user_context.mysql.snapshots import main_app_errors
from services.user_context.mysql.tables import main_app_tables
from services.user_context.search.names import words_of

# PostgreSQL's bigint, as in the queue: an id above it cannot be in a queue either.
LARGEST_ID = 2**63 - 1

_NAMES = ("first_name", "last_name", "previous_name")
_BRIEF = (
    *_NAMES, "email_address", "phone_number", "date_of_birth", "is_enabled", "status",
)  # fmt: skip
# zlib.crc32(b"user_context.name_sweep")
_SWEEP_LOCK = 1_480_516_682


@dataclass(frozen=True, slots=True)
class Brief:
    """The columns that distinguish people with the same name."""

    user_id: UserId
    first_name: str | None
    last_name: str | None
    previous_name: str | None
    email_address: str | None
    phone_number: str | None
    date_of_birth: date | None
    is_enabled: bool
    status: str | None

    @property
    def words(self) -> list[str]:
        """The words of the names."""
        return words_of(self.first_name, self.last_name, self.previous_name)


class MainAppPeople:
    """Reads people of the main app by key or by the unique index of e-mail addresses.

    Raises Unavailable (MAIN_APP_UNAVAILABLE) when MySQL cannot answer or does not in time.
    """

    def __init__(self, engine: AsyncEngine, description: Description) -> None:
        self._engine = engine
        users = main_app_tables(description)["users"]
        self._key, self._address = users.c["user_id"], users.c["email_address"]
        self._brief = RowReader(description.tables["users"], _BRIEF)
        self._names = RowReader(description.tables["users"], _NAMES)
        self._briefs = sa.select(*(users.c[name] for name in self._brief.names))
        self._named = sa.select(*(users.c[name] for name in self._names.names))

    async def briefs(self, user_ids: Sequence[UserId]) -> dict[UserId, Brief]:
        """Return those of up to 1,000 people who exist."""
        if not user_ids:
            return {}
        rows = await self._rows(self._brief, self._briefs.where(self._key.in_(user_ids)))
        return {brief.user_id: brief for brief in map(_brief, rows)}

    async def by_address(self, email_address: str) -> list[Brief]:
        """Return the people with this address, compared as the column's collation does."""
        query = self._briefs.where(self._address == email_address).limit(2)
        return [_brief(row) for row in await self._rows(self._brief, query)]

    async def names_after(self, after: int, limit: int) -> dict[UserId, list[str]]:
        """Return the words of the names of the next people by rising id."""
        query = self._named.where(self._key > after, self._key <= LARGEST_ID)
        rows = await self._rows(self._names, query.order_by(self._key).limit(limit))
        return dict(map(_named, rows))

    async def names_of(self, user_ids: Sequence[UserId]) -> dict[UserId, list[str]]:
        """Return the words of the names of those of up to 1,000 people who exist."""
        rows = await self._rows(self._names, self._named.where(self._key.in_(user_ids)))
        return dict(map(_named, rows))

    async def _rows(self, reader: RowReader, query: sa.Select[Any]) -> list[Row]:
        with main_app_errors():
            async with self._engine.connect() as connection:
                return reader.rows(await driver_rows(connection, query))


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far names have been indexed; ``first_completed_at`` is None until all have been once."""

    through_user_id: int
    began_at: datetime | None
    completed_at: datetime | None
    first_completed_at: datetime | None


class NameStore:
    """The words of people's names in PostgreSQL, and how far a sweep has indexed them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def matching(self, words: Sequence[str], limit: int) -> list[UserId]:
        """Return people in whose names each of the words begins a word, the newest first."""
        # The words consist of letters and digits, which have no other meaning to PostgreSQL.
        query = " & ".join(f"'{word}':*" for word in words)
        with database_errors():
            async with self._engine.connect() as connection:
                found = await connection.execute(_MATCHING, {"query": query, "limit": limit})
                return [UserId(user_id) for (user_id,) in found]

    async def are_complete(self) -> bool:
        """Return whether the names of all people have been indexed at least once."""
        with database_errors():
            async with self._engine.connect() as connection:
                return (await connection.execute(_SWEEP)).one().first_completed_at is not None

    async def replace(self, user_ids: Sequence[UserId], names: Mapping[UserId, list[str]]) -> None:
        """Replace the names of these people; people without an entry in `names` have none."""
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(_FORGET, {"user_ids": [*set(user_ids) - set(names)]})
                await _keep(connection, names)

    @asynccontextmanager
    async def sweeping(self) -> "AsyncIterator[SweepStep | None]":
        """Hold the sweep for the block, in one transaction; None while another replica holds it."""
        with database_errors():
            async with self._engine.begin() as connection:
                if not await connection.scalar(_TRY_LOCK, {"key": _SWEEP_LOCK}):
                    yield None
                    return
                row = (await connection.execute(_SWEEP)).one()
                yield SweepStep(connection, Sweep(*row))


class SweepStep:
    """One step of the sweep."""

    def __init__(self, connection: AsyncConnection, sweep: Sweep) -> None:
        self._connection = connection
        self.sweep = sweep

    async def replace(self, after: int, through: int, names: Mapping[UserId, list[str]]) -> None:
        """Replace the names of all people above ``after`` and up to ``through``."""
        gone = {"after": after, "through": through, "user_ids": list(names)}
        await self._connection.execute(_FORGET_OTHERS, gone)
        await _keep(self._connection, names)

    async def move(self, through: int, now: datetime, *, is_first: bool, is_last: bool) -> None:
        """Store how far the sweep has come."""
        values = {"through": through, "now": now, "is_first": is_first, "is_last": is_last}
        await self._connection.execute(_MOVE, values)


async def _keep(connection: AsyncConnection, names: Mapping[UserId, list[str]]) -> None:
    if names:
        values = {"user_ids": list(names), "words": [" ".join(words) for words in names.values()]}
        await connection.execute(_KEEP, values)


_MATCHING = sa.text(
    "SELECT user_id FROM user_context.name_words WHERE words @@ CAST(:query AS tsquery)"
    " ORDER BY user_id DESC LIMIT :limit"
)
_SWEEP = sa.text(
    "SELECT through_user_id, began_at, completed_at, first_completed_at"
    " FROM user_context.name_sweep"
)
_TRY_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(:key)")
_FORGET = sa.text(
    "DELETE FROM user_context.name_words WHERE user_id = ANY(CAST(:user_ids AS bigint[]))"
)
_FORGET_OTHERS = sa.text(
    "DELETE FROM user_context.name_words WHERE user_id > :after AND user_id <= :through"
    " AND NOT user_id = ANY(CAST(:user_ids AS bigint[]))"
)
# Rows that are right are not written: a sweep that finds no change writes nothing.
_KEEP = sa.text(
    """
    INSERT INTO user_context.name_words AS kept (user_id, words)
    SELECT given.user_id, array_to_tsvector(string_to_array(given.words, ' '))
    FROM unnest(CAST(:user_ids AS bigint[]), CAST(:words AS text[])) AS given(user_id, words)
    ON CONFLICT (user_id) DO UPDATE SET words = excluded.words WHERE kept.words <> excluded.words
    """
)
_MOVE = sa.text(
    """
    UPDATE user_context.name_sweep SET
        through_user_id = :through,
        began_at = CASE WHEN :is_first THEN CAST(:now AS timestamptz) ELSE began_at END,
        completed_at = CASE WHEN :is_last THEN CAST(:now AS timestamptz) ELSE completed_at END,
        first_completed_at = CASE WHEN :is_last
            THEN coalesce(first_completed_at, CAST(:now AS timestamptz))
            ELSE first_completed_at END
    """
)


def _brief(row: Row) -> Brief:
    return Brief(**{name: cast("Any", row[name]) for name in ("user_id", *_BRIEF)})


def _named(row: Row) -> tuple[UserId, list[str]]:
    names = (cast("str | None", row[name]) for name in _NAMES)
    return UserId(cast("int", row["user_id"])), words_of(*names)
