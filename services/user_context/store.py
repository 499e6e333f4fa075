"""What the service keeps in PostgreSQL: the order of readings, and fences still to be raised."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from servicekit.backoff import UNAVAILABLE
from servicekit.database import database_errors
from servicekit.errors import Unavailable
from services.user_context.domain import Part, UserId
from services.user_context.tables import read_version, unraised_fences


@dataclass(frozen=True, slots=True)
class UnraisedFence:
    """An invalidation that Redis does not have yet."""

    part: Part
    user_id: UserId
    version: int


class FenceStore:
    """Versions of readings, and fences that Redis does not have yet.

    Every method raises Unavailable or DeadlineExceeded when PostgreSQL does not answer.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._next_version = sa.select(read_version.next_value())

    async def draw_version(self) -> int:
        """Return a number higher than any drawn before, by any process."""
        with database_errors():
            async with self._engine.connect() as connection:
                return int(await connection.scalar(self._next_version) or 0)

    async def remember_unraised(self, part: Part, versions: Mapping[UserId, int]) -> None:
        """Keep these invalidations until Redis has them; of two of a person the higher is kept."""
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
        """Return up to ``limit`` invalidations that Redis does not have yet."""
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


@contextmanager
def versions_needed() -> Iterator[None]:
    """Raise Unavailable (VERSIONS_UNAVAILABLE) when PostgreSQL does not answer."""
    try:
        yield
    except UNAVAILABLE as error:
        raise Unavailable(
            "VERSIONS_UNAVAILABLE",
            "the dialler's own database cannot be reached now",
            retry_after_seconds=1.0,
        ) from error
