"""Runs and what they found in PostgreSQL, and the lock that leaves one copy at work."""

import contextlib
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import (
    Column,
    ColumnElement,
    Executable,
    Row,
    and_,
    delete,
    func,
    or_,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from servicekit.database import database_errors, lock_session
from servicekit.errors import Conflict, InvalidArgument, NotFound, Unavailable
from services.reconciler.domain.drift import Difference, DriftKind
from services.reconciler.domain.freshness import Freshness, FreshnessMode
from services.reconciler.domain.runs import Figures, Run, RunId, RunKind, RunPhase, RunState
from services.reconciler.tables import drift, freshness, runs

_ACTIVE = text("state IN ('PENDING', 'RUNNING')")
_PENDING = text("state = 'PENDING'")
_UNREAD = {"holder", "checkpoint", "last_user_id", "max_user_id"}
_READ = [column for column in runs.c if column.name not in _UNREAD]
_LOCK_KEY: Final = zlib.crc32(b"reconciler")
_ANSWER_SECONDS: Final = 3.0
_REQUEST_ATTEMPTS: Final = 5
# What clocks of copies may differ by.
_CLOCKS_APART: Final = timedelta(minutes=1)
_RUNS_PER_DELETION: Final = 1_000

# A row of the page of drift that came before.
Drifted = tuple[int, Difference]


class DriftKept(NamedTuple):
    """How many people a run has found to have drifted, and in how many of them each difference."""

    users: int
    differences: Counter[Difference]


class RunStore:
    """Runs by id. Every method raises what `database_errors` does."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ping(self) -> None:
        """Raise unless PostgreSQL answers."""
        with database_errors():
            async with self._engine.connect() as connection:
                await connection.execute(select(1))

    async def request(
        self, kind: RunKind, reason: str, now: datetime, run_id: RunId | None = None
    ) -> Run:
        """Return the run with that id, the one of the kind that is waiting, else a new one.

        One that is under way may have passed those whom the request is about: it does not count.
        Raises InvalidArgument (REQUEST_ID_REUSED) for the id of a run of another kind.
        """
        run_id = run_id or RunId(uuid4())
        values = {
            "run_id": run_id,
            "kind": kind,
            "state": RunState.PENDING,
            "reason": reason,
            "requested_at": now,
        }
        made = insert(runs).values(values).on_conflict_do_nothing().returning(*_READ)
        there = (
            select(*_READ)
            .where(or_(runs.c.run_id == run_id, and_(runs.c.kind == kind, _PENDING)))
            .order_by((runs.c.run_id == run_id).desc())
            .limit(1)
        )
        # The run that is in the way may begin before it is read; then there is room for a new one.
        for _ in range(_REQUEST_ATTEMPTS):
            with database_errors():
                async with self._engine.begin() as connection:
                    row = (await connection.execute(made)).one_or_none()
                    row = row or (await connection.execute(there)).one_or_none()
            if row is not None:
                return _of_kind(_run(row), kind)
        raise Conflict("RUNS_CHANGING", "runs of this kind begin and end too fast")

    async def get(self, run_id: RunId) -> Run:
        """Return the run; raises NotFound (RUN_NOT_FOUND)."""
        rows = await self._rows(select(*_READ).where(runs.c.run_id == run_id))
        if not rows:
            raise NotFound("RUN_NOT_FOUND", "there is no such run", run_id=str(run_id))
        return _run(rows[0])

    async def latest(self, limit: int) -> list[Run]:
        """Return so many runs at most, newest first."""
        query = select(*_READ).order_by(runs.c.requested_at.desc(), runs.c.run_id).limit(limit)
        return [_run(row) for row in await self._rows(query)]

    async def first_requested(self) -> datetime | None:
        """Return when the earliest run there is was asked for; None when there is none."""
        rows = await self._rows(select(func.min(runs.c.requested_at)))
        moment: datetime | None = rows[0][0]
        return moment

    async def last_requested(self, now: datetime) -> dict[RunKind, datetime]:
        """Return when each kind was last asked for, up to now."""
        return await self._latest_of(RunKind, runs.c.requested_at, now)

    async def last_success(self, kinds: Sequence[RunKind], now: datetime) -> datetime | None:
        """Return when the latest successful run of these kinds began, up to now."""
        is_success = runs.c.state == RunState.SUCCEEDED
        began = await self._latest_of(kinds, runs.c.started_at, now, is_success)
        return max(began.values(), default=None)

    async def _latest_of(
        self,
        kinds: Iterable[RunKind],
        moment: Column[datetime],
        now: datetime,
        *conditions: ColumnElement[bool],
    ) -> dict[RunKind, datetime]:
        """Return a moment of the latest run of each kind; one step down an index for each.

        There may be more than a hundred thousand: batch freshness runs once a minute. Runs of a
        copy whose clock was ahead do not count: nothing would be due until that time had come.
        """
        latest_of_all = now + _CLOCKS_APART
        conditions = (*conditions, runs.c.requested_at <= latest_of_all, moment <= latest_of_all)
        latest = [
            select(runs.c.kind, moment)
            .where(runs.c.kind == kind, *conditions)
            .order_by(runs.c.requested_at.desc())
            .limit(1)
            .subquery()
            for kind in kinds
        ]
        found = await self._rows(union_all(*(select(it) for it in latest)))
        return {RunKind(kind): at for kind, at in found}

    async def take(self, holder: UUID, now: datetime) -> Run | None:
        """Return the run that has waited longest, now RUNNING and ours; None when none waits.

        Whoever held it before can no longer write to it.
        """
        oldest = (
            select(runs.c.run_id)
            .where(_ACTIVE)
            .order_by(runs.c.state == RunState.PENDING, runs.c.requested_at)
            .limit(1)
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

    async def save(self, run_id: RunId, holder: UUID, figures: Figures) -> None:
        """Store what the run has done; raises Conflict (RUN_TAKEN_OVER) if it is not ours."""
        await self._write(run_id, holder, _figure_values(figures))

    async def save_checkpoint(self, run_id: RunId, holder: UUID, checkpoint: object) -> None:
        """Keep what need not be read again; raises Conflict (RUN_TAKEN_OVER)."""
        await self._write(run_id, holder, {"checkpoint": checkpoint})

    async def checkpoint(self, run_id: RunId) -> Any:
        """Return what was kept last; None for nothing."""
        rows = await self._rows(select(runs.c.checkpoint).where(runs.c.run_id == run_id))
        return rows[0][0] if rows else None

    async def end(
        self, run_id: RunId, holder: UUID, state: RunState, error: str, now: datetime
    ) -> None:
        """End the run; raises Conflict (RUN_TAKEN_OVER) if it is no longer ours."""
        values = {"state": state, "error": error, "ended_at": now, "checkpoint": None}
        await self._write(run_id, holder, values)

    async def add_drift(self, run_id: RunId, found: Iterable[Drifted]) -> DriftKept:
        """Keep who had drifted, repeats once; return what is now kept of the run."""
        values = [
            {"run_id": run_id, "user_id": user_id, "kind": it.kind, "table_name": it.table}
            for user_id, it in found
        ]
        mine = drift.c.run_id == run_id
        users = select(func.count(drift.c.user_id.distinct())).where(mine)
        kinds = (drift.c.kind, drift.c.table_name)
        differences = select(*kinds, func.count()).where(mine).group_by(*kinds)
        with database_errors():
            async with self._engine.begin() as connection:
                if values:
                    await connection.execute(insert(drift).on_conflict_do_nothing(), values)
                counted = (await connection.execute(differences)).all()
                people = (await connection.execute(users)).scalar_one()
        return DriftKept(
            int(people),
            Counter({Difference(DriftKind(kind), name): count for kind, name, count in counted}),
        )

    async def list_drift(self, run_id: RunId, after: Drifted | None, limit: int) -> list[Drifted]:
        """Return who had drifted by rising id, kind and table, from behind `after`."""
        order = (drift.c.user_id, drift.c.kind, drift.c.table_name)
        query = select(*order).where(drift.c.run_id == run_id).order_by(*order).limit(limit)
        if after is not None:
            user_id, last = after
            query = query.where(tuple_(*order) > tuple_(user_id, last.kind.value, last.table))
        return [
            (int(user_id), Difference(DriftKind(kind), table))
            for user_id, kind, table in await self._rows(query)
        ]

    async def forget(self, before: datetime) -> int:
        """Delete runs that ended before then, but for the latest of each kind; return how many."""
        latest = select(func.max(runs.c.requested_at)).group_by(runs.c.kind)
        is_old = and_(runs.c.ended_at < before, runs.c.requested_at.not_in(latest))
        some = select(runs.c.run_id).where(is_old).limit(_RUNS_PER_DELETION)
        statement = delete(runs).where(runs.c.run_id.in_(some))
        deleted = 0
        while True:
            with database_errors():
                async with self._engine.begin() as connection:
                    count = int((await connection.execute(statement)).rowcount)
            deleted += count
            if count < _RUNS_PER_DELETION:
                return deleted

    async def freshness(self) -> Freshness | None:
        """Return where freshness comes from; None before it was ever judged."""
        columns = freshness.c
        query = select(columns.mode, columns.since, columns.reason, columns.capture_alive_at)
        rows = await self._rows(query)
        if not rows:
            return None
        mode, since, reason, alive_at = rows[0]
        return Freshness(FreshnessMode(mode), since, reason, alive_at)

    async def save_freshness(self, now_is: Freshness) -> None:
        """Say where freshness comes from."""
        values = {
            "mode": now_is.mode,
            "since": now_is.since,
            "reason": now_is.reason,
            "capture_alive_at": now_is.capture_alive_at,
        }
        statement = insert(freshness).values(row_id=1, **values)
        upsert = statement.on_conflict_do_update(index_elements=["row_id"], set_=values)
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(upsert)

    async def _rows(self, query: Executable) -> Sequence[Any]:
        with database_errors():
            async with self._engine.connect() as connection:
                rows: Sequence[Any] = (await connection.execute(query)).all()
        return rows

    async def _write(self, run_id: RunId, holder: UUID, values: Mapping[str, Any]) -> None:
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

    @property
    def is_held(self) -> bool:
        """True while the lock was ours when it was last asked for."""
        return self._connection is not None

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
            server_settings=lock_session("reconciler-lock"),
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


def _of_kind(run: Run, kind: RunKind) -> Run:
    if run.kind is not kind:
        raise InvalidArgument("REQUEST_ID_REUSED", "a run of another kind has this id")
    return run


def _run(row: Row[Any]) -> Run:
    return Run(
        run_id=RunId(row.run_id),
        kind=RunKind(row.kind),
        state=RunState(row.state),
        reason=row.reason,
        requested_at=row.requested_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        figures=_figures(row),
        error=row.error,
    )


_COUNTS: Final = (
    "phase_done",
    "phase_total",
    "users_checked",
    "users_refreshed",
    "users_moved",
    "users_drifted",
    "users_unsettled",
    "users_failed",
    "rows_read",
    "mysql_statements",
    "mysql_seconds",
)


def _figures(row: Row[Any]) -> Figures:
    values = row._mapping
    return Figures(
        phase=RunPhase(row.phase),
        failed_user_ids=[int(user_id) for user_id in row.failed_user_ids],
        drift=Counter({_difference(name): users for name, users in row.drift.items()}),
        done=Counter(row.done),
        **{name: values[name] for name in _COUNTS},
    )


def _figure_values(figures: Figures) -> dict[str, Any]:
    return {
        "phase": figures.phase,
        "failed_user_ids": figures.failed_user_ids,
        "drift": {" ".join(it).strip(): users for it, users in figures.drift.items()},
        "done": dict(figures.done),
        **{name: getattr(figures, name) for name in _COUNTS},
    }


def _difference(name: str) -> Difference:
    kind, _, table = name.partition(" ")
    return Difference(DriftKind(kind), table)
