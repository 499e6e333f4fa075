"""Runs and their findings in PostgreSQL, and the key of the lock that lets one replica work."""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

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
from sqlalchemy.ext.asyncio import AsyncEngine

from servicekit.database import database_errors
from servicekit.errors import Conflict, InvalidArgument, NotFound
from services.reconciler.domain.drift import Difference, DriftKind
from services.reconciler.domain.freshness import Freshness, FreshnessMode
from services.reconciler.domain.runs import (
    COUNTS,
    Run,
    RunFigures,
    RunId,
    RunKind,
    RunPhase,
    RunState,
)
from services.reconciler.tables import drift, freshness, runs

_ACTIVE = text("state IN ('PENDING', 'RUNNING')")
_PENDING = text("state = 'PENDING'")
_UNREAD = {"holder", "checkpoint", "last_user_id", "max_user_id"}
_READ = [column for column in runs.c if column.name not in _UNREAD]
LOCK_KEY: Final = zlib.crc32(b"reconciler")
_REQUEST_ATTEMPTS: Final = 5
# The clocks of replicas may differ by this much.
_CLOCKS_APART: Final = timedelta(minutes=1)
_RUNS_PER_DELETION: Final = 1_000

# A row of drift: a user and one difference.
Drifted = tuple[int, Difference]


class StoredDrift(NamedTuple):
    """How many users a run has found drifted, and how many of them with each difference."""

    users: int
    differences: Counter[Difference]


class RunStore:
    """Runs by id. Every method raises what `database_errors` does."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ping(self) -> None:
        """Raise unless PostgreSQL has our tables and takes writes."""
        with database_errors():
            async with self._engine.connect() as connection:
                # Locks no row, but only a server that takes writes would.
                await connection.execute(select(runs.c.run_id).limit(0).with_for_update())

    async def request(
        self,
        kind: RunKind,
        reason: str,
        now: datetime,
        run_id: RunId | None = None,
        *,
        allow_gone: bool = False,
    ) -> Run:
        """Return the run with that id, else the pending one of the kind, else a new one.

        A running one does not count: it may have passed the users whom the request is about. Nor
        does one with another `allow_gone`. Raises InvalidArgument (REQUEST_ID_REUSED) for the id of
        a run of another kind, or with another `allow_gone`.
        """
        run_id = run_id or RunId(uuid4())
        values = {
            "run_id": run_id,
            "kind": kind,
            "state": RunState.PENDING,
            "reason": reason,
            "requested_at": now,
            "allow_gone": allow_gone,
        }
        is_alike = and_(runs.c.kind == kind, runs.c.allow_gone == allow_gone)
        made = insert(runs).values(values).on_conflict_do_nothing().returning(*_READ)
        there = (
            select(*_READ)
            .where(or_(runs.c.run_id == run_id, and_(is_alike, _PENDING)))
            .order_by((runs.c.run_id == run_id).desc())
            .limit(1)
        )
        # The pending run may begin before it is read; then a new one can be inserted.
        for _ in range(_REQUEST_ATTEMPTS):
            with database_errors():
                async with self._engine.begin() as connection:
                    row = (await connection.execute(made)).one_or_none()
                    row = row or (await connection.execute(there)).one_or_none()
            if row is None:
                continue
            run = _run(row)
            if run.kind is not kind or run.allow_gone is not allow_gone:
                raise InvalidArgument(
                    "REQUEST_ID_REUSED", "a run that was asked otherwise has this id"
                )
            return run
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
        """Return when the earliest stored run was requested; None when there is none."""
        rows = await self._rows(select(func.min(runs.c.requested_at)))
        moment: datetime | None = rows[0][0]
        return moment

    async def last_requested(self, now: datetime) -> dict[RunKind, datetime]:
        """Return when each kind was last requested, up to now."""
        return await self._latest_of(RunKind, runs.c.requested_at, now)

    async def last_failed_at(self, kind: RunKind, now: datetime) -> datetime | None:
        """Return when the last requested run of this kind, up to now, failed; None if not."""
        is_known = and_(runs.c.kind == kind, runs.c.requested_at <= now + _CLOCKS_APART)
        query = (
            select(runs.c.state, runs.c.ended_at)
            .where(is_known)
            .order_by(runs.c.requested_at.desc())
            .limit(1)
        )
        rows = await self._rows(query)
        if not rows or rows[0][0] != RunState.FAILED:
            return None
        moment: datetime = rows[0][1]
        return moment

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

        There may be more than a hundred thousand runs: batch freshness runs once a minute. Runs of
        a replica whose clock was ahead do not count: no run would be due until then.
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
        """Return the run that has waited longest, now RUNNING and ours, or None.

        The holder before can no longer write to it.
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

    async def save(self, run_id: RunId, holder: UUID, figures: RunFigures) -> None:
        """Store what the run has done; raises Conflict (RUN_TAKEN_OVER) if it is not ours."""
        values = {
            "phase": figures.phase,
            "failed_user_ids": figures.failed_user_ids,
            "drift": {" ".join(it).strip(): users for it, users in figures.drift.items()},
            "done": dict(figures.done),
            **{name: getattr(figures, name) for name in COUNTS},
        }
        await self._write(run_id, holder, values)

    async def save_checkpoint(self, run_id: RunId, holder: UUID, checkpoint: object) -> None:
        """Store the run's checkpoint; raises Conflict (RUN_TAKEN_OVER)."""
        await self._write(run_id, holder, {"checkpoint": checkpoint})

    async def checkpoint(self, run_id: RunId) -> Any:
        """Return the run's last checkpoint; None before the first."""
        rows = await self._rows(select(runs.c.checkpoint).where(runs.c.run_id == run_id))
        return rows[0][0] if rows else None

    async def end(
        self, run_id: RunId, holder: UUID, state: RunState, error: str, now: datetime
    ) -> None:
        """End the run; raises Conflict (RUN_TAKEN_OVER) if it is no longer ours."""
        values = {"state": state, "error": error, "ended_at": now, "checkpoint": None}
        await self._write(run_id, holder, values)

    async def add_drift(self, run_id: RunId, found: Iterable[Drifted]) -> StoredDrift:
        """Store drifted users, repeats once; return the counts stored of the run."""
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
        return StoredDrift(
            int(people),
            Counter({Difference(DriftKind(kind), name): count for kind, name, count in counted}),
        )

    async def list_drift(self, run_id: RunId, after: Drifted | None, limit: int) -> list[Drifted]:
        """Return drift by rising user id, kind and table, from behind `after`."""
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
        """Return where freshness comes from; None before the first judgement."""
        columns = freshness.c
        query = select(columns.mode, columns.since, columns.reason, columns.capture_alive_at)
        rows = await self._rows(query)
        if not rows:
            return None
        mode, since, reason, alive_at = rows[0]
        return Freshness(FreshnessMode(mode), since, reason, alive_at)

    async def save_freshness(self, current: Freshness) -> None:
        """Store where freshness comes from."""
        values = {
            "mode": current.mode,
            "since": current.since,
            "reason": current.reason,
            "capture_alive_at": current.capture_alive_at,
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


def _run(row: Row[Any]) -> Run:
    values = row._mapping
    drift_counts: Counter[Difference] = Counter()
    for name, users in row.drift.items():
        kind, _, table = name.partition(" ")
        drift_counts[Difference(DriftKind(kind), table)] = users
    figures = RunFigures(
        phase=RunPhase(row.phase),
        failed_user_ids=[int(user_id) for user_id in row.failed_user_ids],
        drift=drift_counts,
        done=Counter(row.done),
        **{name: values[name] for name in COUNTS},
    )
    return Run(
        run_id=RunId(row.run_id),
        kind=RunKind(row.kind),
        state=RunState(row.state),
        reason=row.reason,
        requested_at=row.requested_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        figures=figures,
        error=row.error,
        allow_gone=row.allow_gone,
    )
