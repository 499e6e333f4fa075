"""Services that speak the real protocol but live in memory, and a gateway in front of them."""

import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import grpc.aio
from dialler.binlog_relay.v1 import binlog_relay_pb2, binlog_relay_pb2_grpc
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc
from google.protobuf.message import Message

from gateway.app import build
from gateway.fake import Fake
from gateway.fake_desk import FakeDesk
from gateway.settings import GatewaySettings
from gateway.token import development_token
from servicekit.errors import Conflict, InvalidArgument, NotFound
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings

# A moment in summer: 2025-06-02T09:00:00Z.
MOMENT_SECONDS = 1_748_854_800

M = TypeVar("M", bound=Message)


@dataclass
class FakeUserContext(Fake, user_context_pb2_grpc.UserContextServiceServicer):
    """Contexts by user id, those of `cached` at once; `stale` marks all of them."""

    contexts: dict[int, bytes] = field(default_factory=dict)
    cached: set[int] = field(default_factory=set)
    etag: str = "e1"
    read_at_seconds: int = MOMENT_SECONDS
    stale: bool = False
    people: list[user_context_pb2.FoundUser] = field(default_factory=list)

    async def SearchUsers(self, request: Any, context: Any) -> Any:
        """Return everybody, up to the limit."""
        await self.received("SearchUsers", request)
        shown = self.people[: request.limit]
        is_complete = len(shown) == len(self.people)
        return user_context_pb2.SearchUsersResponse(users=shown, is_complete=is_complete)

    async def GetUserContext(self, request: Any, context: Any) -> Any:
        """Return the bytes kept for the person."""
        await self.received("GetUserContext", request)
        found = self.contexts.get(request.user_id)
        if found is None:
            raise NotFound("USER_NOT_FOUND", "no such person", user_id=str(request.user_id))
        return self._answer(found)

    async def BatchGetUserContexts(self, request: Any, context: Any) -> Any:
        """Return the bytes kept for those of the people who are cached."""
        await self.received("BatchGetUserContexts", request)
        cached = [it for it in request.user_ids if it in self.cached]
        return user_context_pb2.BatchGetUserContextsResponse(
            contexts=[self._answer(self.contexts[it]) for it in cached],
            uncached_user_ids=[it for it in request.user_ids if it not in self.cached],
        )

    def _answer(self, found: bytes) -> user_context_pb2.GetUserContextResponse:
        response = user_context_pb2.GetUserContextResponse(context_json=found)
        response.freshness.stale = self.stale
        response.freshness.cached = True
        response.freshness.etag = self.etag
        response.freshness.read_at.seconds = self.read_at_seconds
        return response

    async def GetCacheStats(self, request: Any, context: Any) -> Any:
        """Return made-up counts."""
        await self.received("GetCacheStats", request)
        return user_context_pb2.GetCacheStatsResponse(hits=9, misses=1)


@dataclass
class FakeQueue(FakeDesk, queue_pb2_grpc.QueueServiceServicer):
    """Hands out `ready` people in order and keeps the promises about repeats and ownership."""

    ready: list[int] = field(default_factory=list)
    live: dict[str, queue_pb2.Assignment] = field(default_factory=dict)
    handed_out: set[str] = field(default_factory=set)
    answers: dict[str, tuple[Message, Message]] = field(default_factory=dict)
    stats: queue_pb2.GetQueueStatsResponse | None = None

    async def ClaimNext(self, request: Any, context: Any) -> Any:
        """Hand out the first, or what the agent holds."""
        await self.received("ClaimNext", request)
        return self._once(request, self._claimed(request.agent_id))

    async def GetCurrentAssignment(self, request: Any, context: Any) -> Any:
        """Return what the agent holds."""
        await self.received("GetCurrentAssignment", request)
        held = self.live.get(request.agent_id)
        if held is None:
            raise NotFound("NO_LIVE_ASSIGNMENT", "the agent holds nobody")
        return queue_pb2.GetCurrentAssignmentResponse(assignment=held)

    async def HeartbeatAssignment(self, request: Any, context: Any) -> Any:
        """Extend the lease by a minute."""
        await self.received("HeartbeatAssignment", request)
        held = self._own(request)
        held.lease_expires_at.seconds += 60
        return queue_pb2.HeartbeatAssignmentResponse(assignment=held)

    async def ReleaseAssignment(self, request: Any, context: Any) -> Any:
        """End the assignment."""
        await self.received("ReleaseAssignment", request)
        return self._once(
            request, queue_pb2.ReleaseAssignmentResponse(call_state=self._ended(request))
        )

    async def RecordOutcome(self, request: Any, context: Any) -> Any:
        """End the assignment with an outcome."""
        await self.received("RecordOutcome", request)
        return self._once(
            request, queue_pb2.RecordOutcomeResponse(call_state=self._ended(request, request))
        )

    async def GetQueueStats(self, request: Any, context: Any) -> Any:
        """Return one queue's figures."""
        await self.received("GetQueueStats", request)
        if self.stats is not None:
            return self.stats
        response = queue_pb2.GetQueueStatsResponse(calls_today=7)
        stats = response.queues.add(queue=call_state_pb2.QUEUE_UNSIGNED_USERS, waiting=3)
        stats.ready = len(self.ready)
        stats.holds.add(hold=call_state_pb2.HOLD_COOLING, people=2)
        stats.blocked.add(reason="DO_NOT_CONTACT", people=1)
        response.outcomes_today.add(outcome=call_state_pb2.OUTCOME_NO_ANSWER, calls=7)
        response.callbacks_missed = 4
        return response

    async def ListEntries(self, request: Any, context: Any) -> Any:
        """Return a page; tokens are offsets in decimal."""
        await self.received("ListEntries", request)
        if request.page_token and not request.page_token.isdecimal():
            raise InvalidArgument("PAGE_TOKEN_INVALID", "the page token is not one of ours")
        begin = int(request.page_token or 0)
        end = begin + (request.page_size or 50)
        response = queue_pb2.ListEntriesResponse()
        for user_id in self.ready[begin:end]:
            response.entries.add(user_id=user_id, queue=request.queue, state=request.state)
        response.next_page_token = str(end) if end < len(self.ready) else ""
        return response

    def hold(self, agent_id: str, user_id: int) -> queue_pb2.Assignment:
        """Make the agent hold the person."""
        held = self.live[agent_id] = queue_pb2.Assignment(
            assignment_id=str(uuid.uuid4()),
            agent_id=agent_id,
            user_id=user_id,
            queue=call_state_pb2.QUEUE_UNSIGNED_USERS,
            reason="NO_SIGNATURE",
            fence=1,
        )
        self.handed_out.add(held.assignment_id)
        held.started_at.seconds = MOMENT_SECONDS
        held.lease_expires_at.seconds = MOMENT_SECONDS + 60
        return held

    def _claimed(self, agent_id: str) -> queue_pb2.ClaimNextResponse:
        held = self.live.get(agent_id)
        if held is not None:
            return queue_pb2.ClaimNextResponse(assignment=held, already_held=True)
        if not self.ready:
            return queue_pb2.ClaimNextResponse(
                empty=queue_pb2.EmptyQueue(waiting=3, assigned=2), rejected_by_live_check=1
            )
        return queue_pb2.ClaimNextResponse(assignment=self.hold(agent_id, self.ready.pop(0)))

    def _once(self, request: Any, response: M) -> M:
        """Return the first answer given under the request's id."""
        first = self.answers.setdefault(request.request_id, (request, response))
        if first[0] != request:
            raise InvalidArgument("REQUEST_ID_REUSED", "the id was used for another request")
        return cast("M", first[1])

    def _own(self, request: Any) -> queue_pb2.Assignment:
        held = self.live.get(request.agent_id)
        if held is not None and held.assignment_id == request.assignment_id:
            return held
        if any(each.assignment_id == request.assignment_id for each in self.live.values()):
            raise Conflict("ASSIGNMENT_NOT_YOURS", "somebody else holds it")
        raise self.not_live(request.assignment_id)

    def _ended(self, request: Any, outcome: Any = None) -> call_state_pb2.CallState:
        if request.request_id in self.answers:
            return call_state_pb2.CallState()
        held = self._own(request)
        del self.live[request.agent_id]
        state = call_state_pb2.CallState(
            user_id=held.user_id, state=call_state_pb2.ENTRY_STATE_WAITING, version=2
        )
        if outcome is not None:
            state.last_outcome = outcome.outcome
            state.attempts = 1
        return state


@dataclass
class FakeIngest(Fake, cdc_ingest_pb2_grpc.CdcIngestServiceServicer):
    """An ingest with made-up figures."""

    async def GetStatus(self, request: Any, context: Any) -> Any:
        """Return them."""
        await self.received("GetStatus", request)
        response = cdc_ingest_pb2.GetStatusResponse(backlog_messages=5, dead_letter_messages=1)
        response.change_latency.count = 10
        response.change_latency.p50_seconds = 0.05
        response.capture_alive_at.seconds = 1_748_854_805
        response.applied_through.seconds = 1_748_854_800
        return response

    async def PauseIngest(self, request: Any, context: Any) -> Any:
        """Take note."""
        await self.received("PauseIngest", request)
        return cdc_ingest_pb2.PauseIngestResponse()

    async def ResumeIngest(self, request: Any, context: Any) -> Any:
        """Take note."""
        await self.received("ResumeIngest", request)
        return cdc_ingest_pb2.ResumeIngestResponse()

    async def ListDeadLetters(self, request: Any, context: Any) -> Any:
        """Return one."""
        await self.received("ListDeadLetters", request)
        return cdc_ingest_pb2.ListDeadLettersResponse(dead_letters=[_letter()], total=1)

    async def RedriveDeadLetters(self, request: Any, context: Any) -> Any:
        """Match one, and send it unless it is only asked about."""
        await self.received("RedriveDeadLetters", request)
        return cdc_ingest_pb2.RedriveDeadLettersResponse(
            matched=1,
            sent=0 if request.validate_only else 1,
            complete=True,
            dead_letters=[_letter()],
        )


def _letter() -> cdc_ingest_pb2.DeadLetter:
    return cdc_ingest_pb2.DeadLetter(
        message_id="m-1", reason="BODY_NOT_JSON", receive_count=1, concerns=["users/5"]
    )


@dataclass
class FakeRelay(Fake, binlog_relay_pb2_grpc.BinlogRelayServiceServicer):
    """Copies of a relay at a fixed position; the first `standbys` answers are a standby's."""

    standbys: int = 0

    async def GetPosition(self, request: Any, context: Any) -> Any:
        """Return it."""
        await self.received("GetPosition", request)
        if self.standbys:
            self.standbys -= 1
            return binlog_relay_pb2.GetPositionResponse(file="binlog.000003", offset=4711)
        return binlog_relay_pb2.GetPositionResponse(active=True, file="binlog.000003", offset=4711)


@dataclass
class FakeReconciler(Fake, reconciler_pb2_grpc.ReconcilerServiceServicer):
    """Runs that stay pending."""

    runs: list[reconciler_pb2.Run] = field(default_factory=list)
    freshness: reconciler_pb2.GetFreshnessResponse = field(
        default_factory=lambda: reconciler_pb2.GetFreshnessResponse(
            mode=reconciler_pb2.FRESHNESS_MODE_BATCH, reason="CAPTURE_SILENT"
        )
    )

    async def StartRun(self, request: Any, context: Any) -> Any:
        """Return the run of that id, the pending one, or a new one."""
        await self.received("StartRun", request)
        pending = reconciler_pb2.RUN_STATE_PENDING
        for run in self.runs:
            if run.run_id == request.request_id or run.state == pending:
                return reconciler_pb2.StartRunResponse(run=run)
        run = reconciler_pb2.Run(
            run_id=request.request_id or str(uuid.uuid4()),
            kind=request.kind,
            state=pending,
            reason=request.reason,
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
        """Return one person, and one more on the next page."""
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


class FakeServices:
    """The five services, each on a server of its own that can be stopped."""

    def __init__(self) -> None:
        # What a fake leaves out answers UNIMPLEMENTED.
        self.user_context = FakeUserContext()  # type: ignore[abstract]
        self.queue = FakeQueue()  # type: ignore[abstract]
        self.cdc_ingest = FakeIngest()
        self.binlog_relay = FakeRelay()
        self.reconciler = FakeReconciler()  # type: ignore[abstract]
        settings = ServiceSettings(drain_seconds=0.0)
        self._servers = {
            name: GrpcServer(settings, name, register, (name,))
            for name, register in self._registrations().items()
        }

    async def start(self) -> None:
        """Start all."""
        for server in self._servers.values():
            await server.start()

    async def stop(self, *names: str) -> None:
        """Stop those named, or all."""
        for name in names or tuple(self._servers):
            await self._servers[name].stop()

    def targets(self) -> dict[str, str]:
        """Return the gateway's settings that lead to them."""
        return {f"{name}_target": server.address for name, server in self._servers.items()}

    def _registrations(self) -> dict[str, Any]:
        def registering(add: Any, servicer: Fake) -> Any:
            def register(server: grpc.aio.Server) -> None:
                add(servicer, server)

            return register

        return {
            "user_context": registering(
                user_context_pb2_grpc.add_UserContextServiceServicer_to_server, self.user_context
            ),
            "queue": registering(queue_pb2_grpc.add_QueueServiceServicer_to_server, self.queue),
            "cdc_ingest": registering(
                cdc_ingest_pb2_grpc.add_CdcIngestServiceServicer_to_server, self.cdc_ingest
            ),
            "binlog_relay": registering(
                binlog_relay_pb2_grpc.add_BinlogRelayServiceServicer_to_server, self.binlog_relay
            ),
            "reconciler": registering(
                reconciler_pb2_grpc.add_ReconcilerServiceServicer_to_server, self.reconciler
            ),
        }


@dataclass(frozen=True)
class RunningGateway:
    """A gateway in this process, what stands behind it, and the secret of its tokens."""

    url: str
    services: FakeServices
    settings: GatewaySettings
    secret: str

    def token(self, role: str, subject: str, **options: Any) -> str:
        """Return a token it accepts."""
        return development_token(self.secret, role, subject, **options)

    def headers(self, role: str, subject: str, **options: Any) -> dict[str, str]:
        """Return the header that carries such a token."""
        return {"Authorization": f"Bearer {self.token(role, subject, **options)}"}


@asynccontextmanager
async def running_gateway(
    redis_url: str, changes: Mapping[str, Any] | None = None
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway on a free loopback port in front of fakes."""
    services = FakeServices()
    await services.start()
    secret = secrets.token_hex(32)
    values: dict[str, Any] = {
        "jwt_secret": secret,
        "redis_url": redis_url,
        "drain_seconds": 1.0,
        "redis_timeout_seconds": 1.0,
        # What a test sees asked of the services is what it has asked for.
        "events_history_seconds": 3600.0,
        **services.targets(),
    }
    settings = GatewaySettings(**(values | dict(changes or {})))
    gateway = build(settings)
    await gateway.start()
    try:
        yield RunningGateway(f"http://{gateway.address}", services, settings, secret)
    finally:
        await gateway.stop()
        await services.stop()
