"""A double of the reconciler: runs that stay pending."""

import uuid
from dataclasses import dataclass, field
from typing import Any

from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc

from servicekit.errors import NotFound, Unavailable
from tests.fakes.recorded_calls import DoubleFaults, RecordingDouble


@dataclass
class FakeReconciler(RecordingDouble, reconciler_pb2_grpc.ReconcilerServiceServicer):
    """Keeps the requested runs and their reasons; starts none while `is_refusing`.

    `run`, if set, is the answer to every request for a run.
    """

    runs: list[reconciler_pb2.Run] = field(default_factory=list)
    run: reconciler_pb2.Run | None = None
    reasons: list[str] = field(default_factory=list)
    is_refusing: bool = False
    refusals: int = 0
    faults: DoubleFaults = field(default_factory=DoubleFaults)
    freshness: reconciler_pb2.GetFreshnessResponse = field(
        default_factory=lambda: reconciler_pb2.GetFreshnessResponse(
            mode=reconciler_pb2.FRESHNESS_MODE_BATCH, reason="CAPTURE_SILENT"
        )
    )

    async def StartRun(self, request: Any, context: Any) -> Any:
        """Return the run of that id, the pending one, or a new one."""
        await self.faults.strike(())
        await self.received("StartRun", request)
        if self.is_refusing:
            self.refusals += 1
            raise Unavailable("RECONCILER_UNAVAILABLE", "not now")
        self.reasons.append(request.reason)
        if self.run is not None:
            assert request.kind == reconciler_pb2.RUN_KIND_FULL
            return reconciler_pb2.StartRunResponse(run=self.run)
        pending = reconciler_pb2.RUN_STATE_PENDING
        for run in self.runs:
            is_alike = run.state == pending and run.allow_gone == request.allow_gone
            if run.run_id == request.request_id or is_alike:
                return reconciler_pb2.StartRunResponse(run=run)
        run = reconciler_pb2.Run(
            run_id=request.request_id or str(uuid.uuid4()),
            kind=request.kind,
            state=pending,
            reason=request.reason,
            allow_gone=request.allow_gone,
        )
        self.runs.append(run)
        return reconciler_pb2.StartRunResponse(run=run)

    async def ListRuns(self, request: Any, context: Any) -> Any:
        """Return the latest."""
        await self.received("ListRuns", request)
        return reconciler_pb2.ListRunsResponse(runs=self.runs[: request.page_size or 20])

    async def GetRun(self, request: Any, context: Any) -> Any:
        """Return the run."""
        await self.received("GetRun", request)
        for run in self.runs:
            if run.run_id == request.run_id:
                return reconciler_pb2.GetRunResponse(run=run)
        raise NotFound("RUN_NOT_FOUND", "there is no such run")

    async def ListDrift(self, request: Any, context: Any) -> Any:
        """Return one user, and one more on the next page."""
        await self.received("ListDrift", request)
        is_first = not request.page_token
        drifted = reconciler_pb2.Drift(
            user_id=2**60 if is_first else 2**60 + 1,
            kind=reconciler_pb2.DRIFT_KIND_OUTDATED,
            table="claims",
        )
        token = "next" if is_first else ""
        return reconciler_pb2.ListDriftResponse(drift=[drifted], next_page_token=token)

    async def GetFreshness(self, request: Any, context: Any) -> Any:
        """Return what is set: at first, that runs stand in."""
        await self.received("GetFreshness", request)
        return self.freshness
