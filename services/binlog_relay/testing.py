"""A reconciler that only takes note, for tests of the relay."""

from collections.abc import AsyncIterator

from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc

from servicekit.errors import NotFound, Unavailable


class FakeReconciler(reconciler_pb2_grpc.ReconcilerServiceServicer):
    """Keeps the reasons it was given; refuses while `is_refusing`; answers with `run`."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.refusals = 0
        self.is_refusing = False
        self.run = reconciler_pb2.Run(run_id="run-1", state=reconciler_pb2.RUN_STATE_PENDING)

    async def StartRun(
        self, request: reconciler_pb2.StartRunRequest, context: object
    ) -> reconciler_pb2.StartRunResponse:
        """Take note of the reason."""
        if self.is_refusing:
            self.refusals += 1
            raise Unavailable("RECONCILER_UNAVAILABLE", "not now")
        assert request.kind == reconciler_pb2.RUN_KIND_FULL  # noqa: S101 - a double for tests
        self.reasons.append(request.reason)
        return reconciler_pb2.StartRunResponse(run=self.run)

    async def GetRun(
        self, request: reconciler_pb2.GetRunRequest, context: object
    ) -> reconciler_pb2.GetRunResponse:
        """Keep no runs."""
        raise NotFound("RUN_NOT_FOUND", "no such run")

    async def ListRuns(
        self, request: reconciler_pb2.ListRunsRequest, context: object
    ) -> reconciler_pb2.ListRunsResponse:
        """Keep no runs."""
        return reconciler_pb2.ListRunsResponse()

    async def WatchRun(
        self, request: reconciler_pb2.WatchRunRequest, context: object
    ) -> AsyncIterator[reconciler_pb2.WatchRunResponse]:
        """Keep no runs."""
        raise NotFound("RUN_NOT_FOUND", "no such run")
        yield reconciler_pb2.WatchRunResponse()
