"""Doubles of the queue: one of entries, calls and agents, one of applied row fingerprints."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import grpc.aio
from dialler.model.v1 import call_state_pb2
from dialler.model.v1.change_pb2 import ChangeTimeline
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from google.protobuf.message import Message

from servicekit import telemetry
from servicekit.errors import Conflict, InvalidArgument, NotFound, ServiceError, Unavailable
from tests.fakes.queue_desk import FakeDesk
from tests.fakes.recorded_calls import MOMENT_SECONDS, DoubleFaults

Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)

_ROWS_PER_CHUNK = 50


@dataclass
class AppliedChange:
    """The facts of one user that the queue has received."""

    user_id: int
    version: int
    timeline: ChangeTimeline
    traceparent: str | None


@dataclass
class FakeQueue(FakeDesk, queue_pb2_grpc.QueueServiceServicer):
    """Hands out `ready` people in order, keeps applied facts, and returns `states`."""

    ready: list[int] = field(default_factory=list)
    live: dict[str, queue_pb2.Assignment] = field(default_factory=dict)
    handed_out: set[str] = field(default_factory=set)
    ended: dict[str, queue_pb2.Assignment] = field(default_factory=dict)
    answers: dict[str, tuple[Message, Message]] = field(default_factory=dict)
    stats: queue_pb2.GetQueueStatsResponse | None = None
    # Call states by user id, and user ids by phone number.
    states: dict[int, call_state_pb2.CallState] = field(default_factory=dict)
    phones: dict[str, list[int]] = field(default_factory=dict)
    # Call states cannot be had.
    is_unavailable: bool = False
    asked: list[tuple[int, ...]] = field(default_factory=list)
    applied: list[AppliedChange] = field(default_factory=list)
    # How many calls have applied facts.
    applications: int = 0
    faults: DoubleFaults = field(default_factory=DoubleFaults)

    def user_ids(self) -> list[int]:
        """Return the applied users in order, repeats included."""
        return [each.user_id for each in self.applied]

    async def ApplyUserFacts(
        self, request: queue_pb2.ApplyUserFactsRequest, context: Context
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Record the facts."""
        await self.faults.strike(facts.user_id for facts in request.facts)
        self.applications += 1
        for facts in request.facts:
            timeline = request.timelines.get(facts.user_id, ChangeTimeline())
            self.applied.append(
                AppliedChange(facts.user_id, facts.version, timeline, telemetry.inject())
            )
        return queue_pb2.ApplyUserFactsResponse(applied=len(request.facts))

    async def BatchGetCallStates(
        self, request: queue_pb2.BatchGetCallStatesRequest, context: Context
    ) -> queue_pb2.BatchGetCallStatesResponse:
        """Return `states`; other users are unknown to the queue."""
        self.asked.append(tuple(request.user_ids))
        if self.faults.failure is not None:
            raise self.faults.failure
        if self.is_unavailable:
            raise Unavailable("QUEUE_UNAVAILABLE", "unavailable, as the test wants it")
        return queue_pb2.BatchGetCallStatesResponse(
            call_states=[
                self.states.get(user_id, call_state_pb2.CallState(user_id=user_id))
                for user_id in request.user_ids
            ]
        )

    async def FindUsersByPhone(
        self, request: queue_pb2.FindUsersByPhoneRequest, context: Context
    ) -> queue_pb2.FindUsersByPhoneResponse:
        """Return the users of `phones`."""
        found = self.phones.get(request.phone_e164, [])[: request.limit]
        return queue_pb2.FindUsersByPhoneResponse(user_ids=found)

    async def ClaimNext(self, request: Any, context: Any) -> Any:
        """Hand out the first, or what the agent holds."""
        await self.received("ClaimNext", request)
        if request.request_id in self.answers:
            first = self._once(request, queue_pb2.ClaimNextResponse())
            live = {it.assignment_id for it in self.live.values()}
            if first.HasField("assignment") and first.assignment.assignment_id not in live:
                raise Conflict("CLAIM_ENDED", "what this request was handed has ended")
            return first
        return self._once(request, self._claimed(request.agent_id))

    async def AssignUser(self, request: Any, context: Any) -> Any:
        """Hand out the person named, or what the agent holds of that person."""
        await self.received("AssignUser", request)
        for agent_id, held in self.live.items():
            if held.user_id == request.user_id and agent_id != request.agent_id:
                raise Conflict("PERSON_HELD", "another agent holds the person", agent_id=agent_id)
        already_held = request.agent_id in self.live
        held = self.live.get(request.agent_id) or self.hold(request.agent_id, request.user_id)
        held.direction = request.direction
        return queue_pb2.AssignUserResponse(assignment=held, already_held=already_held)

    async def GetCurrentAssignment(self, request: Any, context: Any) -> Any:
        """Return what the agent holds."""
        await self.received("GetCurrentAssignment", request)
        held = self.live.get(request.agent_id)
        if held is None:
            raise NotFound("NO_LIVE_ASSIGNMENT", "the agent has no assignment")
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
        """End the assignment with an outcome; of one that has ended, take an objection alone."""
        await self.received("RecordOutcome", request)
        ended = self.ended.get(request.assignment_id)
        is_objection = request.outcome == call_state_pb2.OUTCOME_DO_NOT_CONTACT
        if ended is not None and ended.agent_id == request.agent_id and is_objection:
            state = call_state_pb2.CallState(
                user_id=ended.user_id, state=call_state_pb2.ENTRY_STATE_SUPPRESSED
            )
            return self._once(request, queue_pb2.RecordOutcomeResponse(call_state=state))
        return self._once(
            request, queue_pb2.RecordOutcomeResponse(call_state=self._ended(request, request))
        )

    async def RecordCallEvent(self, request: Any, context: Any) -> Any:
        """Return the assignment of any agent, or with `own_only` the agent's own."""
        await self.received("RecordCallEvent", request)
        for held in self.live.values():
            if held.assignment_id == request.assignment_id:
                if request.own_only and held.agent_id != request.actor_id:
                    raise Conflict("ASSIGNMENT_NOT_YOURS", "another agent has it")
                return queue_pb2.RecordCallEventResponse(assignment=held, is_live=True)
        raise NotFound("ASSIGNMENT_NOT_FOUND", "there is no such assignment")

    async def RecordMissedCall(self, request: Any, context: Any) -> Any:
        """Agree a callback with each user of `phones`."""
        await self.received("RecordMissedCall", request)
        made = [self.agree(it, "") for it in self.phones.get(request.phone, [])]
        return queue_pb2.RecordMissedCallResponse(callbacks=made)

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
        response.unreported_calls_today = 2
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
        held = self.hold(agent_id, self.ready.pop(0))
        held.lease_expires_at.GetCurrentTime()
        held.lease_expires_at.seconds += 60
        return queue_pb2.ClaimNextResponse(assignment=held)

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
            raise Conflict("ASSIGNMENT_NOT_YOURS", "another agent holds it")
        raise self.not_live(request.assignment_id)

    def _ended(self, request: Any, outcome: Any = None) -> call_state_pb2.CallState:
        if request.request_id in self.answers:
            return call_state_pb2.CallState()
        held = self._own(request)
        self.ended[held.assignment_id] = self.live.pop(request.agent_id)
        state = call_state_pb2.CallState(
            user_id=held.user_id, state=call_state_pb2.ENTRY_STATE_WAITING, version=2
        )
        if outcome is not None:
            state.last_outcome = outcome.outcome
            state.attempts = 1
        return state


class AppliedEntry(NamedTuple):
    """What the queue has applied of one user."""

    version: int
    context: int
    rows: bytes
    is_absent: bool = False
    is_altered: bool = False


class FakeAppliedFacts(queue_pb2_grpc.QueueServiceServicer):
    """Keeps what is applied; `gate` holds applications beyond `free_calls`."""

    def __init__(self) -> None:
        self.entries: dict[int, AppliedEntry] = {}
        self.applied: Counter[int] = Counter()
        self.failure: ServiceError | None = None
        self.free_calls = 1_000_000
        self.gate = asyncio.Event()
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0
        self.rounds_of_housekeeping = 3
        self.misplaced: set[int] = set()
        # Users of the main app whom a rebuild places, and how many rebuilds there were.
        self.main_app: Collection[int] = ()
        self.rebuilds = 0
        self.rebuild_failure: ServiceError | None = None

    async def Rebuild(
        self, request: queue_pb2.RebuildRequest, context: Context
    ) -> AsyncIterator[queue_pb2.RebuildResponse]:
        """Place the users of `main_app`, without row fingerprints."""
        self.rebuilds += 1
        if self.rebuild_failure is not None:
            raise self.rebuild_failure
        new = [it for it in self.main_app if it not in self.entries]
        yield queue_pb2.RebuildResponse(phase=queue_pb2.REBUILD_PHASE_READING, people_new=len(new))
        self.entries |= {it: AppliedEntry(version=1, context=0, rows=b"") for it in new}
        yield queue_pb2.RebuildResponse(
            phase=queue_pb2.REBUILD_PHASE_DONE, people_new=len(new), people_written=len(new)
        )

    async def ApplyUserFacts(
        self, request: queue_pb2.ApplyUserFactsRequest, context: Context
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Keep the facts; a user who is new counts as moved."""
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.calls > self.free_calls:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            moved = sum(facts.user_id not in self.entries for facts in request.facts)
            for facts in request.facts:
                self.applied[facts.user_id] += 1
                self.entries[facts.user_id] = AppliedEntry(
                    facts.version, facts.fingerprint, facts.row_fingerprints, not facts.exists
                )
            return queue_pb2.ApplyUserFactsResponse(applied=len(request.facts), moved=moved)
        finally:
            self.at_once -= 1

    async def StreamAppliedFacts(
        self, request: queue_pb2.StreamAppliedFactsRequest, context: Context
    ) -> AsyncIterator[queue_pb2.StreamAppliedFactsResponse]:
        """Yield every user in blocks."""
        user_ids = sorted(it for it in self.entries if it > request.after_user_id)
        for start in range(0, len(user_ids), _ROWS_PER_CHUNK):
            applied = self._facts(user_ids[start : start + _ROWS_PER_CHUNK])
            yield queue_pb2.StreamAppliedFactsResponse(applied=applied)

    async def ReadAppliedFacts(
        self, request: queue_pb2.ReadAppliedFactsRequest, context: Context
    ) -> queue_pb2.ReadAppliedFactsResponse:
        """Return some people."""
        known = sorted(it for it in set(request.user_ids) if it in self.entries)
        return queue_pb2.ReadAppliedFactsResponse(applied=self._facts(known))

    def _facts(self, user_ids: Iterable[int]) -> queue_pb2.AppliedFacts:
        found = {it: self.entries[it] for it in user_ids}
        return queue_pb2.AppliedFacts(
            user_ids=found,
            versions=[it.version for it in found.values()],
            fingerprints=[it.context for it in found.values()],
            row_fingerprint_bytes=[len(it.rows) for it in found.values()],
            row_fingerprints=b"".join(it.rows for it in found.values()),
            absent_user_ids=[it for it, entry in found.items() if entry.is_absent],
            altered_user_ids=[it for it, entry in found.items() if entry.is_altered],
        )

    async def ListEntries(
        self, request: queue_pb2.ListEntriesRequest, context: Context
    ) -> queue_pb2.ListEntriesResponse:
        """Return every user, on two pages."""
        user_ids = sorted(self.entries)
        middle = len(user_ids) // 2
        page = user_ids[middle:] if request.page_token else user_ids[:middle]
        return queue_pb2.ListEntriesResponse(
            entries=[queue_pb2.QueueEntry(user_id=it) for it in page],
            next_page_token="" if request.page_token else "more",
        )

    async def PurgeExpired(
        self, request: queue_pb2.PurgeExpiredRequest, context: Context
    ) -> queue_pb2.PurgeExpiredResponse:
        """Do a round."""
        self.rounds_of_housekeeping -= 1
        return queue_pb2.PurgeExpiredResponse(
            done={"requests_deleted": 10}, more=self.rounds_of_housekeeping > 0
        )

    async def CheckEntries(
        self, request: queue_pb2.CheckEntriesRequest, context: Context
    ) -> queue_pb2.CheckEntriesResponse:
        """Repair the entries of `misplaced`."""
        page = sorted(it for it in self.entries if it > request.after_user_id)[:_ROWS_PER_CHUNK]
        corrected = [it for it in page if it in self.misplaced]
        self.misplaced.difference_update(corrected)
        return queue_pb2.CheckEntriesResponse(
            checked=len(page),
            corrected_user_ids=corrected,
            through_user_id=page[-1] if page else 0,
        )
