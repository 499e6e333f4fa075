"""Reconciliations: what the batch half looked at, found and put right, and asking for more."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

from dialler.reconciler.v1 import reconciler_pb2
from fastapi import Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.channels import configured
from gateway.fields import CallerOf, OptionalKey
from gateway.schemas import Id, Moment, moment_in, name_in

if TYPE_CHECKING:
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

RunId = Annotated[UUID, Path(description="The reconciliation's id.")]


class RunKind(StrEnum):
    """What a reconciliation looks at."""

    FULL = "full"
    CHANGED = "changed"
    WARMING = "warming"
    HOUSEKEEPING = "housekeeping"


class RunState(StrEnum):
    """How far a reconciliation is."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RunPhase(StrEnum):
    """What a reconciliation is doing."""

    READING = "reading"
    COMPARING = "comparing"
    RECHECKING = "rechecking"
    REPAIRING = "repairing"


class DriftKind(StrEnum):
    """How somebody had drifted."""

    MISSING = "missing"
    ORPHANED = "orphaned"
    OUTDATED = "outdated"
    ALTERED = "altered"
    CACHED_OUTDATED = "cached_outdated"
    CACHED_ALTERED = "cached_altered"


class FreshnessMode(StrEnum):
    """Where the suite's freshness comes from."""

    CHANGE_CAPTURE = "change_capture"
    BATCH = "batch"


class DriftCount(BaseModel):
    """How many people had drifted in one way."""

    kind: DriftKind | None
    table: str | None = Field(description="The main app's table whose rows were outdated.")
    users: int


class Drift(BaseModel):
    """One person who had drifted in one way."""

    user_id: Id
    kind: DriftKind | None
    table: str | None = Field(description="The main app's table whose rows were outdated.")


class DriftPage(BaseModel):
    """Who had drifted, by rising id; a reconciliation keeps the first 10,000 it finds."""

    drift: list[Drift]
    next_page_token: str | None = Field(description="Null on the last page.")


class Freshness(BaseModel):
    """What the suite's data is as fresh as."""

    mode: FreshnessMode | None
    since: Moment | None
    reason: str | None = Field(description="Why reconciliations stand in for change capture.")
    capture_alive_at: Moment | None = Field(description="Last sign of life of change capture.")
    verified_at: Moment | None = Field(
        description="When the latest successful full reconciliation began."
    )

    @classmethod
    def of(cls, message: reconciler_pb2.GetFreshnessResponse) -> Self:
        """Return what the message says."""
        mode = name_in(reconciler_pb2.FreshnessMode.Name, "FRESHNESS_MODE_", message.mode)
        return cls(
            mode=FreshnessMode(mode) if mode else None,
            since=moment_in(message, "since"),
            reason=message.reason or None,
            capture_alive_at=moment_in(message, "capture_alive_at"),
            verified_at=moment_in(message, "verified_at"),
        )


class Reconciliation(BaseModel):
    """One reconciliation: what it looked at, found and put right, and at what cost."""

    run_id: str
    kind: RunKind | None
    state: RunState | None
    reason: str
    requested_at: Moment | None
    started_at: Moment | None
    ended_at: Moment | None
    phase: RunPhase | None = Field(description="What it is doing; null before it has begun.")
    phase_done: int = Field(description="How much of the phase is done, of `phase_total`.")
    phase_total: int = Field(description="0 while that is not known.")
    users_checked: int
    users_drifted: int
    users_refreshed: int
    users_moved: int = Field(description="People whose place in a queue had to be changed.")
    users_unsettled: int = Field(description="People who kept changing; refreshed, not accused.")
    users_failed: int
    drift: list[DriftCount] = Field(description="How people had drifted.")
    rows_read: int = Field(description="Rows that MySQL added up.")
    mysql_statements: int
    mysql_seconds: float
    done: dict[str, int] = Field(description="What housekeeping or warming did: how many.")
    error: str | None

    @classmethod
    def of(cls, message: reconciler_pb2.Run) -> Self:
        """Return what the message says."""
        kind = name_in(reconciler_pb2.RunKind.Name, "RUN_KIND_", message.kind)
        state = name_in(reconciler_pb2.RunState.Name, "RUN_STATE_", message.state)
        phase = name_in(reconciler_pb2.RunPhase.Name, "RUN_PHASE_", message.phase)
        return cls(
            run_id=message.run_id,
            kind=RunKind(kind) if kind else None,
            state=RunState(state) if state else None,
            reason=message.reason,
            requested_at=moment_in(message, "requested_at"),
            started_at=moment_in(message, "started_at"),
            ended_at=moment_in(message, "ended_at"),
            phase=RunPhase(phase) if phase else None,
            phase_done=message.phase_done,
            phase_total=message.phase_total,
            users_checked=message.users_checked,
            users_drifted=message.users_drifted,
            users_refreshed=message.users_refreshed,
            users_moved=message.users_moved,
            users_unsettled=message.users_unsettled,
            users_failed=message.users_failed,
            drift=[
                DriftCount(kind=_drift_kind(it.kind), table=it.table or None, users=it.users)
                for it in message.drift
            ],
            rows_read=message.rows_read,
            mysql_statements=message.mysql_statements,
            mysql_seconds=message.mysql_seconds,
            done=dict(sorted(message.done.items())),
            error=message.error or None,
        )


class Reconciliations(BaseModel):
    """The latest reconciliations, newest first."""

    reconciliations: list[Reconciliation]


class ReconciliationRequest(BaseModel):
    """What to look at, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: RunKind = RunKind.FULL
    reason: Annotated[str, StringConstraints(max_length=100, pattern=r"^[\w .,:;()/-]*$")] = Field(
        default="", description="Kept with the run; no personal data."
    )


class ReconciliationRoutes:
    """What the batch half found; `reconciler` is None where its address is not configured."""

    def __init__(self, reconciler: "ReconcilerServiceAsyncStub | None") -> None:
        self._reconciler = reconciler

    async def reconciliations(
        self, page_size: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> Reconciliations:
        """The latest reconciliations, newest first."""
        request = reconciler_pb2.ListRunsRequest(page_size=page_size)
        answer = await self._stub.ListRuns(request)
        return Reconciliations(reconciliations=[Reconciliation.of(each) for each in answer.runs])

    async def reconciliation(self, run_id: RunId) -> Reconciliation:
        """One reconciliation, with its progress while it works."""
        request = reconciler_pb2.GetRunRequest(run_id=str(run_id))
        return Reconciliation.of((await self._stub.GetRun(request)).run)

    async def drift(
        self,
        run_id: RunId,
        page_size: Annotated[int, Query(ge=1, le=1_000)] = 100,
        page_token: Annotated[
            str, Query(max_length=500, description="`next_page_token` of the page before.")
        ] = "",
    ) -> DriftPage:
        """Who had drifted, as one reconciliation found them."""
        answer = await self._stub.ListDrift(
            reconciler_pb2.ListDriftRequest(
                run_id=str(run_id), page_size=page_size, page_token=page_token
            )
        )
        return DriftPage(
            drift=[
                Drift(user_id=str(it.user_id), kind=_drift_kind(it.kind), table=it.table or None)
                for it in answer.drift
            ],
            next_page_token=answer.next_page_token or None,
        )

    async def reconcile(
        self,
        caller: CallerOf,
        body: Annotated[ReconciliationRequest | None, Body()] = None,
        key: OptionalKey = None,
    ) -> Reconciliation:
        """Ask for a reconciliation; while one of its kind is waiting, that one is returned."""
        asked = body or ReconciliationRequest()
        reason = f"{caller.role} {caller.subject}"
        number = reconciler_pb2.RunKind.Value(f"RUN_KIND_{asked.kind.name}")
        request = reconciler_pb2.StartRunRequest(
            kind=number,
            reason=f"{reason}: {asked.reason}" if asked.reason else reason,
            request_id=str(key or ""),
        )
        return Reconciliation.of((await self._stub.StartRun(request)).run)

    @property
    def _stub(self) -> "ReconcilerServiceAsyncStub":
        return configured(self._reconciler)


def _drift_kind(number: "reconciler_pb2.DriftKind.ValueType") -> DriftKind | None:
    name = name_in(reconciler_pb2.DriftKind.Name, "DRIFT_KIND_", number)
    return DriftKind(name) if name else None
