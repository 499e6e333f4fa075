"""Reconciliations: what they compared, found and repaired; requests for new ones."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

from dialler.reconciler.v1 import reconciler_pb2
from fastapi import Body, Path, Query
from pydantic import BaseModel, Field, StrictBool, StringConstraints

from gateway.access.auth import Role
from gateway.channels import configured
from gateway.resources.fields import CallerOf, EnumNames, Id, Moment, OptionalKey, RequestBody
from servicekit.call_state_json import moment_in
from servicekit.errors import PermissionDenied

if TYPE_CHECKING:
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

RunId = Annotated[UUID, Path(description="The reconciliation's id.")]


class RunKind(StrEnum):
    """What a reconciliation compares."""

    FULL = "full"
    CHANGED = "changed"
    WARMING = "warming"
    HOUSEKEEPING = "housekeeping"


class RunState(StrEnum):
    """The state of a reconciliation."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RunPhase(StrEnum):
    """The phase of a reconciliation."""

    READING = "reading"
    COMPARING = "comparing"
    RECHECKING = "rechecking"
    REPAIRING = "repairing"
    FILLING = "filling"


class DriftKind(StrEnum):
    """How a person's data differed from the main app."""

    MISSING = "missing"
    ORPHANED = "orphaned"
    OUTDATED = "outdated"
    ALTERED = "altered"
    CACHED_OUTDATED = "cached_outdated"
    CACHED_ALTERED = "cached_altered"


class FreshnessMode(StrEnum):
    """What keeps the suite's data fresh."""

    CHANGE_CAPTURE = "change_capture"
    BATCH = "batch"


RUN_KINDS = EnumNames(RunKind, reconciler_pb2.RunKind)
RUN_STATES = EnumNames(RunState, reconciler_pb2.RunState)
RUN_PHASES = EnumNames(RunPhase, reconciler_pb2.RunPhase)
DRIFT_KINDS = EnumNames(DriftKind, reconciler_pb2.DriftKind)
FRESHNESS_MODES = EnumNames(FreshnessMode, reconciler_pb2.FreshnessMode)


class DriftCount(BaseModel):
    """How many people had one kind of drift."""

    kind: DriftKind | None
    table: str | None = Field(description="The main app's table whose rows were outdated.")
    users: int


class Drift(BaseModel):
    """One person's drift of one kind."""

    user_id: Id
    kind: DriftKind | None
    table: str | None = Field(description="The main app's table whose rows were outdated.")


class DriftPage(BaseModel):
    """Drift by rising user id; a reconciliation keeps the first 10,000 it finds."""

    drift: list[Drift]
    next_page_token: str | None = Field(description="Null on the last page.")


class Freshness(BaseModel):
    """How fresh the suite's data is."""

    mode: FreshnessMode | None
    since: Moment | None
    reason: str | None = Field(description="Why reconciliations replace change capture.")
    capture_alive_at: Moment | None = Field(
        description="When change capture last sent a heartbeat or a change."
    )
    verified_at: Moment | None = Field(
        description="When the latest successful full reconciliation began."
    )

    @classmethod
    def of(cls, message: reconciler_pb2.GetFreshnessResponse) -> Self:
        """Return what the message says."""
        return cls(
            mode=FRESHNESS_MODES.name(message.mode),
            since=moment_in(message, "since"),
            reason=message.reason or None,
            capture_alive_at=moment_in(message, "capture_alive_at"),
            verified_at=moment_in(message, "verified_at"),
        )


class Reconciliation(BaseModel):
    """One reconciliation: what it compared, found and repaired, and at what cost."""

    run_id: str
    kind: RunKind | None
    state: RunState | None
    reason: str
    requested_at: Moment | None
    started_at: Moment | None
    ended_at: Moment | None
    phase: RunPhase | None = Field(description="Its phase; null before it has begun.")
    phase_done: int = Field(description="How much of the phase is done, of `phase_total`.")
    phase_total: int = Field(description="0 while it is not known.")
    users_checked: int
    users_drifted: int
    users_refreshed: int
    users_moved: int = Field(description="People whose queue entry had to be changed.")
    users_unsettled: int = Field(
        description="People who kept changing; refreshed, not reported as drift."
    )
    users_failed: int
    users_withheld: int = Field(
        description="People whom the queue has and the main app does not, left as they are because"
        " they are implausibly many; the reconciliation failed with TOO_MANY_GONE."
    )
    drift: list[DriftCount] = Field(description="People by kind of drift.")
    rows_read: int = Field(description="Rows that MySQL read for checksums.")
    mysql_statements: int
    mysql_seconds: float
    done: dict[str, int] = Field(description="What housekeeping or warming did, with counts.")
    error: str | None
    allow_gone: bool = Field(description="Missing people count as deleted however many they are.")

    @classmethod
    def of(cls, message: reconciler_pb2.Run) -> Self:
        """Return what the message says."""
        return cls(
            run_id=message.run_id,
            kind=RUN_KINDS.name(message.kind),
            state=RUN_STATES.name(message.state),
            reason=message.reason,
            requested_at=moment_in(message, "requested_at"),
            started_at=moment_in(message, "started_at"),
            ended_at=moment_in(message, "ended_at"),
            phase=RUN_PHASES.name(message.phase),
            phase_done=message.phase_done,
            phase_total=message.phase_total,
            users_checked=message.users_checked,
            users_drifted=message.users_drifted,
            users_refreshed=message.users_refreshed,
            users_moved=message.users_moved,
            users_unsettled=message.users_unsettled,
            users_failed=message.users_failed,
            users_withheld=message.users_withheld,
            drift=[
                DriftCount(kind=DRIFT_KINDS.name(it.kind), table=it.table or None, users=it.users)
                for it in message.drift
            ],
            rows_read=message.rows_read,
            mysql_statements=message.mysql_statements,
            mysql_seconds=message.mysql_seconds,
            done=dict(sorted(message.done.items())),
            error=message.error or None,
            allow_gone=message.allow_gone,
        )


class Reconciliations(BaseModel):
    """The latest reconciliations, newest first."""

    reconciliations: list[Reconciliation]


class ReconciliationRequest(RequestBody):
    """What to compare, and why."""

    kind: RunKind = RunKind.FULL
    reason: Annotated[str, StringConstraints(max_length=100, pattern=r"^[\w .,:;()/-]*$")] = Field(
        default="", description="Kept with the run; no personal data."
    )
    allow_gone: StrictBool = Field(
        default=False,
        description="Treat missing people as deleted from the main app even if they are an"
        " implausible share of all: after a reconciliation that failed with TOO_MANY_GONE, once"
        " they are known to be deleted. For supervisors, and for the kinds full and changed.",
    )


class ReconciliationRoutes:
    """Reconciliations; `reconciler` is None where its address is not configured."""

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
        """One reconciliation, with its progress while it runs."""
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
        """The drift that one reconciliation found."""
        answer = await self._stub.ListDrift(
            reconciler_pb2.ListDriftRequest(
                run_id=str(run_id), page_size=page_size, page_token=page_token
            )
        )
        return DriftPage(
            drift=[
                Drift(
                    user_id=str(it.user_id), kind=DRIFT_KINDS.name(it.kind), table=it.table or None
                )
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
        """Request a reconciliation; while one of its kind is pending, that one is returned."""
        asked = body or ReconciliationRequest()
        if asked.allow_gone and caller.role is not Role.SUPERVISOR:
            raise PermissionDenied("ROLE_NOT_ALLOWED", "allow_gone is for supervisors")
        reason = f"{caller.role} {caller.subject}"
        request = reconciler_pb2.StartRunRequest(
            kind=RUN_KINDS.number(asked.kind),
            reason=f"{reason}: {asked.reason}" if asked.reason else reason,
            request_id=str(key or ""),
            allow_gone=asked.allow_gone,
        )
        return Reconciliation.of((await self._stub.StartRun(request)).run)

    @property
    def _stub(self) -> "ReconcilerServiceAsyncStub":
        return configured(self._reconciler)
