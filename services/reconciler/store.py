"""Runs in PostgreSQL, and the lock that leaves one copy at work."""

import contextlib
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from servicekit.database import database_errors
from servicekit.errors import Conflict, NotFound, Unavailable
from services.reconciler.domain import Progress, Run, RunId, RunKind, RunState
from services.reconciler.tables import runs

_ACTIVE = text("state IN ('PENDING', 'RUNNING')")
_READ = [column for column in runs.c if column.name != "holder"]
_LOCK_KEY: Final = zlib.crc32(b"reconciler")
_ANSWER_SECONDS: Final = 3.0
_REQUEST_ATTEMPTS: Final = 5


class RunStore:
    """Runs by id. Every method raises what `database_errors` does."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ping(self) -> None:
        """Raise unless PostgreSQL answers."""
        with database_errors():
            async with self._engine.connect() as connection:
                await connection.execute(select(1))

    async def request(self, kind: RunKind, reason: str, now: datetime) -> Run:
        """Return the run of the kind that is waiting or running, else a new one."""
        values = {
            "run_id": uuid4(),
            "kind": kind,
            "state": RunState.PENDING,
            "reason": reason,
            "requested_at": now,
        }
        made = (
            insert(runs)
            .values(values)
            .on_conflict_do_nothing(index_elements=[runs.c.kind], index_where=_ACTIVE)
            .returning(*_READ)
        )
        there = select(*_READ).where(runs.c.kind == kind, _ACTIVE)
        # The run that is in the way may end before it is read; then there is room for a new one.
        for _ in range(_REQUEST_ATTEMPTS):
            with database_errors():
                async with self._engine.begin() as connection:
                    row = (await connection.execute(made)).one_or_none()
                    row = row or (await connection.execute(there)).one_or_none()
            if row is not None:
                return _run(row)
        raise Conflict("RUNS_CHANGING", "runs of this kind begin and end too fast")

    async def get(self, run_id: RunId) -> Run:
        """Return the run; raises NotFound (RUN_NOT_FOUND)."""
        with database_errors():
            async with self._engine.connect() as connection:
                found = await connection.execute(select(*_READ).where(runs.c.run_id == run_id))
                row = found.one_or_none()
        if row is None:
            raise NotFound("RUN_NOT_FOUND", "there is no such run", run_id=str(run_id))
        return _run(row)

    async def latest(self, limit: int) -> list[Run]:
        """Return so many runs at most, newest first."""
        statement = select(*_READ).order_by(runs.c.requested_at.desc(), runs.c.run_id).limit(limit)
        with database_errors():
            async with self._engine.connect() as connection:
                found = await connection.execute(statement)
                return [_run(row) for row in found]

    async def take(self, holder: UUID, now: datetime) -> Run | None:
        """Return the run that has waited longest, now RUNNING and ours; None when none waits.

        Whoever held it before can no longer write to it.
        """
        oldest = (
            select(runs.c.run_id).where(_ACTIVE).order_by(runs.c.requested_at).limit(1)
        ).scalar_subquery()
        statement = (
            update(runs)
            .where(runs.c.run_id == oldest, _ACTIVE)
            .values(
                state=RunState.RUNNING,
                holder=holder,
                started_at=func.coalesce(runs.c.started_at, now),
            )
            .returning(*_READ)
        )
        with database_errors():
            async with self._engine.begin() as connection:
                row = (await connection.execute(statement)).one_or_none()
        return None if row is None else _run(row)

    async def save(self, run_id: RunId, holder: UUID, progress: Progress) -> None:
        """Store how far the run is; raises Conflict (RUN_TAKEN_OVER) if it is no longer ours."""
        await self._write(run_id, holder, _progress_values(progress))

    async def end(
        self, run_id: RunId, holder: UUID, state: RunState, error: str, now: datetime
    ) -> None:
        """End the run; raises Conflict (RUN_TAKEN_OVER) if it is no longer ours."""
        await self._write(run_id, holder, {"state": state, "error": error, "ended_at": now})

    async def _write(self, run_id: RunId, holder: UUID, values: dict[str, Any]) -> None:
        statement = (
            update(runs)
            .where(
                runs.c.run_id == run_id,
                runs.c.holder == holder,
                runs.c.state == RunState.RUNNING,
            )
            .values(values)
        )
        with database_errors():
            async with self._engine.begin() as connection:
                result = await connection.execute(statement)
        if result.rowcount != 1:
            raise Conflict("RUN_TAKEN_OVER", "another copy works on this run", run_id=str(run_id))


class Leadership:
    """The advisory lock of the one copy that works, on a connection of its own.

    The lock goes with the connection: PgBouncer in transaction mode may not be in between.
    """

    def __init__(self, postgres_url: str) -> None:
        dsn = make_url(postgres_url).set(drivername="postgresql")
        self._dsn = dsn.render_as_string(hide_password=False)
        self._connection: Any = None

    async def is_ours(self) -> bool:
        """Try to take the lock, or make sure that we still have it.

        Raises:
            Unavailable: PostgreSQL cannot be asked; the lock is then not ours.
        """
        try:
            if self._connection is not None:
                await self._connection.fetchval("SELECT 1")
                return True
            return await self._acquire()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            await self.release()
            raise Unavailable(
                "DATABASE_UNAVAILABLE", "PostgreSQL cannot be asked for the lock"
            ) from error

    async def release(self) -> None:
        """Give the lock up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _close(connection)

    async def _acquire(self) -> bool:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=_ANSWER_SECONDS,
            command_timeout=_ANSWER_SECONDS,
            server_settings={"application_name": "reconciler-lock"},
        )
        try:
            is_locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY)
        except BaseException:
            await _close(connection)
            raise
        if is_locked:
            self._connection = connection
        else:
            await _close(connection)
        return bool(is_locked)


async def _close(connection: Any) -> None:
    # A connection that cannot be closed politely is gone anyway.
    with contextlib.suppress(Exception):
        await connection.close(timeout=_ANSWER_SECONDS)


def _run(row: Row[Any]) -> Run:
    return Run(
        run_id=RunId(row.run_id),
        kind=RunKind(row.kind),
        state=RunState(row.state),
        reason=row.reason,
        requested_at=row.requested_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        progress=Progress(
            users_checked=row.users_checked,
            users_moved=row.users_moved,
            users_failed=row.users_failed,
            failed_user_ids=tuple(map(int, row.failed_user_ids)),
            last_user_id=int(row.last_user_id),
            max_user_id=int(row.max_user_id),
        ),
        error=row.error,
    )


def _progress_values(progress: Progress) -> dict[str, int | Sequence[int]]:
    return {
        "users_checked": progress.users_checked,
        "users_moved": progress.users_moved,
        "users_failed": progress.users_failed,
        "failed_user_ids": list(progress.failed_user_ids),
        "last_user_id": progress.last_user_id,
        "max_user_id": progress.max_user_id,
    }
