"""ReconcilerService: proto to domain and back."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import grpc.aio
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc

from servicekit.clock import Clock
from servicekit.errors import InvalidArgument, NotFound
from servicekit.paging import cut_page, page_size
from services.reconciler.domain.drift import Difference, DriftKind
from services.reconciler.domain.freshness import Freshness, FreshnessMode
from services.reconciler.domain.runs import COUNTS, Run, RunId, RunKind
from services.reconciler.store import Drifted, RunStore

Context = grpc.aio.ServicerContext[Any, Any]

MAX_REASON_CHARACTERS: Final = 200
DEFAULT_PAGE_SIZE: Final = 20
MAX_PAGE_SIZE: Final = 100
DEFAULT_DRIFT_PAGE_SIZE: Final = 100
MAX_DRIFT_PAGE_SIZE: Final = 1_000
_WATCH_SECONDS: Final = 0.5
_KINDS: Final = {reconciler_pb2.RunKind.Value(f"RUN_KIND_{kind.value}"): kind for kind in RunKind}


class ReconcilerServicer(reconciler_pb2_grpc.ReconcilerServiceServicer):
    """Every replica answers; `nudge` is called when there may be new work."""

    def __init__(self, store: RunStore, clock: Clock, nudge: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._nudge = nudge

    async def StartRun(
        self, request: reconciler_pb2.StartRunRequest, context: Context
    ) -> reconciler_pb2.StartRunResponse:
        """Return the run requested, by this request or a repeat of it, or the one pending."""
        kind = _KINDS.get(request.kind)
        if kind is None:
            raise InvalidArgument("RUN_KIND_UNKNOWN", "kind must be a known kind of run")
        if len(request.reason) > MAX_REASON_CHARACTERS:
            raise InvalidArgument(
                "REASON_TOO_LONG", f"reason has more than {MAX_REASON_CHARACTERS} characters"
            )
        if request.allow_gone and not kind.compares:
            raise InvalidArgument(
                "ALLOW_GONE_UNSUITABLE", "allow_gone is for kinds that compare people"
            )
        try:
            run_id = RunId(UUID(request.request_id)) if request.request_id else None
        except ValueError as error:
            raise InvalidArgument("REQUEST_ID_INVALID", "request_id must be a UUID") from error
        run = await self._store.request(
            kind, request.reason, self._clock.now(), run_id, allow_gone=request.allow_gone
        )
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
        limit = page_size(request.page_size, default=DEFAULT_PAGE_SIZE, largest=MAX_PAGE_SIZE)
        runs = await self._store.latest(limit)
        return reconciler_pb2.ListRunsResponse(runs=map(_message, runs))

    async def WatchRun(
        self, request: reconciler_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[reconciler_pb2.WatchRunResponse]:
        """Yield the run now, about twice a second, and when it has ended."""
        run_id = _run_id(request.run_id)
        while True:
            run = await self._store.get(run_id)
            yield reconciler_pb2.WatchRunResponse(run=_message(run))
            if run.state.is_ended:
                return
            await asyncio.sleep(_WATCH_SECONDS)

    async def ListDrift(
        self, request: reconciler_pb2.ListDriftRequest, context: Context
    ) -> reconciler_pb2.ListDriftResponse:
        """Return a page of the users who had drifted."""
        run = await self._store.get(_run_id(request.run_id))
        limit = page_size(
            request.page_size, default=DEFAULT_DRIFT_PAGE_SIZE, largest=MAX_DRIFT_PAGE_SIZE
        )
        after: Drifted | None = None
        if request.page_token:
            try:
                user_id, kind, table = json.loads(base64.urlsafe_b64decode(request.page_token))
                after = int(user_id), Difference(DriftKind(kind), str(table))
            except (ValueError, TypeError, binascii.Error) as error:
                raise InvalidArgument(
                    "PAGE_TOKEN_INVALID", "page_token is not one of ours"
                ) from error
        found = await self._store.list_drift(run.run_id, after, limit + 1)
        page, next_token = cut_page(
            found,
            limit,
            lambda last: base64.urlsafe_b64encode(
                json.dumps([last[0], *last[1]]).encode()
            ).decode(),
        )
        return reconciler_pb2.ListDriftResponse(
            drift=[
                reconciler_pb2.Drift(user_id=user_id, kind=_drift_kind(it.kind), table=it.table)
                for user_id, it in page
            ],
            next_page_token=next_token,
        )

    async def GetFreshness(
        self, request: reconciler_pb2.GetFreshnessRequest, context: Context
    ) -> reconciler_pb2.GetFreshnessResponse:
        """Return where freshness comes from; change capture before the first judgement."""
        freshness = await self._store.freshness()
        if freshness is None:
            freshness = Freshness(FreshnessMode.CHANGE_CAPTURE, self._clock.now())
        answer = reconciler_pb2.GetFreshnessResponse(
            mode=reconciler_pb2.FreshnessMode.Value(f"FRESHNESS_MODE_{freshness.mode.value}"),
            reason=freshness.reason,
        )
        _set(answer.since, freshness.since)
        _set(answer.capture_alive_at, freshness.capture_alive_at)
        verified_at = await self._store.last_success([RunKind.FULL], self._clock.now())
        _set(answer.verified_at, verified_at)
        return answer


def _run_id(text: str) -> RunId:
    try:
        return RunId(UUID(text))
    except ValueError as error:
        raise NotFound("RUN_NOT_FOUND", "there is no such run") from error


def _message(run: Run) -> reconciler_pb2.Run:
    figures = run.figures
    message = reconciler_pb2.Run(
        run_id=str(run.run_id),
        kind=reconciler_pb2.RunKind.Value(f"RUN_KIND_{run.kind.value}"),
        state=reconciler_pb2.RunState.Value(f"RUN_STATE_{run.state.value}"),
        reason=run.reason,
        error=run.error,
        allow_gone=run.allow_gone,
        phase=reconciler_pb2.RunPhase.Value(f"RUN_PHASE_{figures.phase.value}"),
        drift=[
            reconciler_pb2.DriftCount(kind=_drift_kind(it.kind), table=it.table, users=users)
            for it, users in sorted(figures.drift.items())
        ],
        done=figures.done,
        **{name: getattr(figures, name) for name in COUNTS},
    )
    _set(message.requested_at, run.requested_at)
    _set(message.started_at, run.started_at)
    _set(message.ended_at, run.ended_at)
    return message


def _drift_kind(kind: DriftKind) -> reconciler_pb2.DriftKind.ValueType:
    return reconciler_pb2.DriftKind.Value(f"DRIFT_KIND_{kind.value}")


def _set(field: Any, moment: datetime | None) -> None:
    if moment is not None:
        field.FromDatetime(moment)
