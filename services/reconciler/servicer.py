"""ReconcilerService: proto to domain and back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import grpc.aio
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc

from servicekit.clock import Clock
from servicekit.errors import InvalidArgument, NotFound
from services.reconciler.domain import Run, RunId, RunKind
from services.reconciler.store import RunStore

Context = grpc.aio.ServicerContext[Any, Any]

MAX_REASON_CHARACTERS: Final = 200
DEFAULT_PAGE_SIZE: Final = 20
MAX_PAGE_SIZE: Final = 100
_WATCH_SECONDS: Final = 1.0
_KINDS: Final = {reconciler_pb2.RUN_KIND_FULL: RunKind.FULL}


class ReconcilerServicer(reconciler_pb2_grpc.ReconcilerServiceServicer):
    """Any copy answers; `nudge` is called when there may be new work."""

    def __init__(self, store: RunStore, clock: Clock, nudge: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._nudge = nudge

    async def StartRun(
        self, request: reconciler_pb2.StartRunRequest, context: Context
    ) -> reconciler_pb2.StartRunResponse:
        """Return the run asked for, or the one already waiting or running."""
        kind = _KINDS.get(request.kind)
        if kind is None:
            raise InvalidArgument("RUN_KIND_UNKNOWN", "kind must be a known kind of run")
        if len(request.reason) > MAX_REASON_CHARACTERS:
            raise InvalidArgument(
                "REASON_TOO_LONG", f"reason has more than {MAX_REASON_CHARACTERS} characters"
            )
        run = await self._store.request(kind, request.reason, self._clock.now())
        self._nudge()
        return reconciler_pb2.StartRunResponse(run=_message(run))

    async def GetRun(
        self, request: reconciler_pb2.GetRunRequest, context: Context
    ) -> reconciler_pb2.GetRunResponse:
        """Return the run."""
        run = await self._store.get(_run_id(request.run_id))
        return reconciler_pb2.GetRunResponse(run=_message(run))

    async def ListRuns(
        self, request: reconciler_pb2.ListRunsRequest, context: Context
    ) -> reconciler_pb2.ListRunsResponse:
        """Return the latest runs."""
        limit = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        runs = await self._store.latest(limit)
        return reconciler_pb2.ListRunsResponse(runs=map(_message, runs))

    async def WatchRun(
        self, request: reconciler_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[reconciler_pb2.WatchRunResponse]:
        """Yield the run now, about once a second, and when it has ended."""
        run_id = _run_id(request.run_id)
        while True:
            run = await self._store.get(run_id)
            yield reconciler_pb2.WatchRunResponse(run=_message(run))
            if run.state.is_ended:
                return
            await asyncio.sleep(_WATCH_SECONDS)


def _run_id(text: str) -> RunId:
    try:
        return RunId(UUID(text))
    except ValueError as error:
        raise NotFound("RUN_NOT_FOUND", "there is no such run") from error


def _message(run: Run) -> reconciler_pb2.Run:
    message = reconciler_pb2.Run(
        run_id=str(run.run_id),
        kind=reconciler_pb2.RunKind.Value(f"RUN_KIND_{run.kind.value}"),
        state=reconciler_pb2.RunState.Value(f"RUN_STATE_{run.state.value}"),
        reason=run.reason,
        users_checked=run.progress.users_checked,
        users_moved=run.progress.users_moved,
        last_user_id=run.progress.last_user_id,
        max_user_id=run.progress.max_user_id,
        error=run.error,
    )
    _set(message.requested_at, run.requested_at)
    _set(message.started_at, run.started_at)
    _set(message.ended_at, run.ended_at)
    return message


def _set(field: Any, moment: datetime | None) -> None:
    if moment is not None:
        field.FromDatetime(moment)
