"""gRPC to the queue and back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc.aio
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc

from servicekit.clock import Clock
from servicekit.errors import InvalidArgument
from services.queue import messages, requests
from services.queue.agent_desk import AgentDesk
from services.queue.assignment_desk import AssignmentDesk
from services.queue.audit_trail import AuditTrail
from services.queue.callback_desk import CallbackDesk
from services.queue.claim_desk import ClaimDesk
from services.queue.domain.outcomes import CallReport
from services.queue.entry_check import EntryCheck
from services.queue.explaining import Explaining
from services.queue.facts_application import FactsApplication
from services.queue.figures import Figures
from services.queue.lookup_desk import LookupDesk
from services.queue.outcome_desk import OutcomeDesk
from services.queue.rebuild import Rebuild
from services.queue.requests import ByActor
from services.queue.rulebook import Rulebook
from services.queue.store.answers import Request
from services.queue.store.audit import AuditFilter
from services.queue.store.reading import EntryFilter
from services.queue.suppression_desk import ListHeader, SuppressionDesk
from services.queue.upkeep import AppliedFacts, Upkeep

SERVICE_NAME = "dialler.queue.v1.QueueService"

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Desks:
    """Everything a call may lead to."""

    facts: FactsApplication
    claims: ClaimDesk
    assignments: AssignmentDesk
    outcomes: OutcomeDesk
    callbacks: CallbackDesk
    agents: AgentDesk
    suppressions: SuppressionDesk
    figures: Figures
    explaining: Explaining
    rebuild: Rebuild
    audit: AuditTrail
    applied_facts: AppliedFacts
    entry_check: EntryCheck
    upkeep: Upkeep
    lookup: LookupDesk


class QueueServicer(queue_pb2_grpc.QueueServiceServicer):
    """Translates; every rule is elsewhere."""

    def __init__(self, desks: Desks, rulebook: Rulebook, clock: Clock) -> None:
        self._desks = desks
        self._rulebook = rulebook
        self._clock = clock

    async def ApplyUserFacts(
        self, request: queue_pb2.ApplyUserFactsRequest, context: Context
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Bring people in line with their facts."""
        result = await self._desks.facts.apply(requests.updates_of(request))
        return queue_pb2.ApplyUserFactsResponse(
            applied=result.applied,
            outdated=result.outdated,
            moved=result.moved,
            conversions=result.conversions,
        )

    async def BatchGetCallStates(
        self, request: queue_pb2.BatchGetCallStatesRequest, context: Context
    ) -> queue_pb2.BatchGetCallStatesResponse:
        """Return the queue's side of people's contexts."""
        user_ids = requests.user_ids_of(request.user_ids)
        states = await self._desks.figures.call_states(user_ids)
        return queue_pb2.BatchGetCallStatesResponse(call_states=states)

    async def ClaimNext(
        self, request: queue_pb2.ClaimNextRequest, context: Context
    ) -> queue_pb2.ClaimNextResponse:
        """Hand out the next person."""
        agent_id = requests.agent_of(request.agent_id)
        default = self._rulebook.rules.assignment.default_queues
        queues = requests.queues_of(request.queues, default)
        identified = requests.request_of(request, agent_id, request.request_id)
        return await self._desks.claims.claim(identified, queues)

    async def GetCurrentAssignment(
        self, request: queue_pb2.GetCurrentAssignmentRequest, context: Context
    ) -> queue_pb2.GetCurrentAssignmentResponse:
        """Return what the agent holds."""
        held = await self._desks.assignments.current(requests.agent_of(request.agent_id))
        return queue_pb2.GetCurrentAssignmentResponse(assignment=messages.assignment_message(held))

    async def HeartbeatAssignment(
        self, request: queue_pb2.HeartbeatAssignmentRequest, context: Context
    ) -> queue_pb2.HeartbeatAssignmentResponse:
        """Extend a lease."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        agent_id = requests.agent_of(request.agent_id)
        extended = await self._desks.assignments.extend(assignment_id, agent_id)
        return queue_pb2.HeartbeatAssignmentResponse(
            assignment=messages.assignment_message(extended)
        )

    async def ReleaseAssignment(
        self, request: queue_pb2.ReleaseAssignmentRequest, context: Context
    ) -> queue_pb2.ReleaseAssignmentResponse:
        """Take a person back."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        agent_id = requests.agent_of(request.agent_id)
        identified = requests.request_of(request, agent_id, request.request_id)
        return await self._desks.assignments.release(
            assignment_id,
            identified,
            is_skipped=request.reason == queue_pb2.RELEASE_REASON_SKIPPED,
        )

    async def ForceReleaseAssignment(
        self, request: queue_pb2.ForceReleaseAssignmentRequest, context: Context
    ) -> queue_pb2.ForceReleaseAssignmentResponse:
        """Take a person away from an agent."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        identified = self._by_actor(request)
        return await self._desks.assignments.force_release(assignment_id, identified)

    async def RecordOutcome(
        self, request: queue_pb2.RecordOutcomeRequest, context: Context
    ) -> queue_pb2.RecordOutcomeResponse:
        """Record how a call ended."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        agent_id = requests.agent_of(request.agent_id)
        identified = requests.request_of(request, agent_id, request.request_id)
        callback_at = requests.moment_in(request, "callback_at")
        outcome = requests.outcome_of(request.outcome)
        report = CallReport(outcome, request.notes, callback_at)
        return await self._desks.outcomes.record(assignment_id, identified, report)

    async def GetQueueStats(
        self, request: queue_pb2.GetQueueStatsRequest, context: Context
    ) -> queue_pb2.GetQueueStatsResponse:
        """Return how many people are where."""
        return await self._desks.figures.stats()

    async def ListEntries(
        self, request: queue_pb2.ListEntriesRequest, context: Context
    ) -> queue_pb2.ListEntriesResponse:
        """Return a page of one queue."""
        asked = EntryFilter(
            queue=requests.queue_of(request.queue),
            state=requests.state_of(request.state),
            hold=requests.hold_of(request.hold),
            reason=requests.reason_of(request.reason),
            last_outcome=requests.optional_outcome_of(request.last_outcome),
            agent_id=requests.optional_agent_of(request.agent_id),
            attempts_at_least=min(request.attempts_at_least, 2**31 - 1),
        )
        return await self._desks.figures.page(asked, request.page_size, request.page_token)

    async def ExplainUser(
        self, request: queue_pb2.ExplainUserRequest, context: Context
    ) -> queue_pb2.ExplainUserResponse:
        """Say why a person is called, or not."""
        user_id = requests.user_of(request.user_id)
        agent_id = requests.optional_agent_of(request.agent_id)
        return await self._desks.explaining.explain(user_id, agent_id)

    async def ScheduleCallback(
        self, request: queue_pb2.ScheduleCallbackRequest, context: Context
    ) -> queue_pb2.ScheduleCallbackResponse:
        """Agree a callback."""
        return await self._desks.callbacks.schedule(
            self._by_actor(request),
            requests.user_of(request.user_id),
            _scheduled_for(request),
            requests.optional_agent_of(request.preferred_agent_id),
            request.notes,
        )

    async def RescheduleCallback(
        self, request: queue_pb2.RescheduleCallbackRequest, context: Context
    ) -> queue_pb2.RescheduleCallbackResponse:
        """Move a callback."""
        preferred = None
        if request.HasField("preferred_agent_id"):
            preferred = (requests.optional_agent_of(request.preferred_agent_id),)
        return await self._desks.callbacks.reschedule(
            self._by_actor(request),
            requests.uuid_of(request.callback_id, "callback_id"),
            _scheduled_for(request),
            preferred,
            own_only=request.own_only,
        )

    async def CancelCallback(
        self, request: queue_pb2.CancelCallbackRequest, context: Context
    ) -> queue_pb2.CancelCallbackResponse:
        """Call a callback off."""
        callback_id = requests.uuid_of(request.callback_id, "callback_id")
        return await self._desks.callbacks.cancel(
            self._by_actor(request), callback_id, own_only=request.own_only
        )

    async def ListCallbacks(
        self, request: queue_pb2.ListCallbacksRequest, context: Context
    ) -> queue_pb2.ListCallbacksResponse:
        """Return a page of callbacks."""
        return await self._desks.callbacks.page(
            requests.callback_state_of(request.state),
            requests.optional_agent_of(request.preferred_agent_id),
            requests.optional_user_of(request.user_id),
            request.page_size,
            request.page_token,
        )

    async def SetAgentPresence(
        self, request: queue_pb2.SetAgentPresenceRequest, context: Context
    ) -> queue_pb2.SetAgentPresenceResponse:
        """Note what an agent is doing."""
        agent_id = requests.agent_of(request.agent_id)
        presence = requests.presence_of(request.presence)
        agent = await self._desks.agents.set_presence(agent_id, presence)
        return queue_pb2.SetAgentPresenceResponse(agent=agent)

    async def SetAgentQueues(
        self, request: queue_pb2.SetAgentQueuesRequest, context: Context
    ) -> queue_pb2.SetAgentQueuesResponse:
        """Limit an agent to queues."""
        queues = frozenset(map(requests.queue_of, request.allowed_queues)) or None
        agent = await self._desks.agents.set_queues(
            requests.agent_of(request.agent_id), queues, requests.agent_of(request.actor_id)
        )
        return queue_pb2.SetAgentQueuesResponse(agent=agent)

    async def ListAgents(
        self, request: queue_pb2.ListAgentsRequest, context: Context
    ) -> queue_pb2.ListAgentsResponse:
        """Return every agent known."""
        presence = requests.optional_presence_of(request.presence)
        agents = await self._desks.agents.every(presence)
        return queue_pb2.ListAgentsResponse(agents=agents)

    async def SuppressUser(
        self, request: queue_pb2.SuppressUserRequest, context: Context
    ) -> queue_pb2.SuppressUserResponse:
        """Stop every call to a person."""
        user_id = requests.user_of(request.user_id)
        notes = self._notes(request.notes)
        return await self._desks.suppressions.suppress(self._by_actor(request), user_id, notes)

    async def LiftSuppression(
        self, request: queue_pb2.LiftSuppressionRequest, context: Context
    ) -> queue_pb2.LiftSuppressionResponse:
        """Let a person be called again."""
        user_id = requests.user_of(request.user_id)
        notes = self._notes(request.notes)
        return await self._desks.suppressions.lift(self._by_actor(request), user_id, notes)

    async def ListSuppressions(
        self, request: queue_pb2.ListSuppressionsRequest, context: Context
    ) -> queue_pb2.ListSuppressionsResponse:
        """Return a page of suppressed people."""
        return await self._desks.suppressions.page(
            requests.optional_user_of(request.user_id),
            request.include_lifted,
            request.page_size,
            request.page_token,
        )

    async def ImportSuppressedPhones(
        self,
        request_iterator: AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest],
        context: Context,
    ) -> queue_pb2.ImportSuppressedPhonesResponse:
        """Take over a list of phone numbers."""
        first = await anext(aiter(request_iterator), None)
        if first is None:
            raise InvalidArgument("LIST_NAME_INVALID", "no list has come in")
        actor_id = requests.agent_of(first.actor_id)
        header = ListHeader(first.list_name, actor_id, first.is_complete)
        parts = _parts(first, request_iterator)
        return await self._desks.suppressions.import_phones(header, parts)

    async def Rebuild(
        self, request: queue_pb2.RebuildRequest, context: Context
    ) -> AsyncIterator[queue_pb2.RebuildResponse]:
        """Bring everybody in line, and tell how far it is."""
        began = self._clock.monotonic()
        async for progress in self._desks.rebuild.run(requests.agent_of(request.actor_id)):
            yield queue_pb2.RebuildResponse(
                phase=progress.phase,
                people_read=progress.people_read,
                people_new=progress.people_new,
                people_different=progress.people_different,
                people_written=progress.people_written,
                conversions=progress.conversions,
                through_user_id=progress.through_user_id,
                last_user_id=progress.last_user_id,
                seconds=self._clock.monotonic() - began,
            )

    async def RecordAccess(
        self, request: queue_pb2.RecordAccessRequest, context: Context
    ) -> queue_pb2.RecordAccessResponse:
        """Note who looked at whom."""
        actor_id = requests.agent_of(request.actor_id)
        user_ids = requests.user_ids_of(request.user_ids)
        await self._desks.audit.note_access(actor_id, user_ids, request.action)
        return queue_pb2.RecordAccessResponse()

    async def ListAuditEntries(
        self, request: queue_pb2.ListAuditEntriesRequest, context: Context
    ) -> queue_pb2.ListAuditEntriesResponse:
        """Return a page of the audit."""
        asked = AuditFilter(
            user_id=requests.optional_user_of(request.user_id),
            actor_id=requests.optional_agent_of(request.actor_id),
            action=requests.text_of(request.action, "action") or None,
            since=requests.moment_in(request, "since"),
            until=requests.moment_in(request, "until"),
        )
        return await self._desks.audit.page(asked, request.page_size, request.page_token)

    async def StreamAppliedFacts(
        self, request: queue_pb2.StreamAppliedFactsRequest, context: Context
    ) -> AsyncIterator[queue_pb2.StreamAppliedFactsResponse]:
        """Tell what was applied of everybody."""
        after = requests.user_before_of(request.after_user_id)
        size = requests.size_of(request.block_size, "block_size", 10_000, 20_000)
        async for applied in self._desks.applied_facts.blocks(after, size):
            yield queue_pb2.StreamAppliedFactsResponse(applied=applied)

    async def ReadAppliedFacts(
        self, request: queue_pb2.ReadAppliedFactsRequest, context: Context
    ) -> queue_pb2.ReadAppliedFactsResponse:
        """Tell what was applied of some people."""
        user_ids = requests.user_ids_of(request.user_ids)
        applied = await self._desks.applied_facts.of(user_ids)
        return queue_pb2.ReadAppliedFactsResponse(applied=applied)

    async def CheckEntries(
        self, request: queue_pb2.CheckEntriesRequest, context: Context
    ) -> queue_pb2.CheckEntriesResponse:
        """Put right whoever stands elsewhere than the rules say."""
        after = requests.user_before_of(request.after_user_id)
        size = requests.size_of(request.page_size, "page_size", 500, 1_000)
        page = await self._desks.entry_check.check(after, size)
        return queue_pb2.CheckEntriesResponse(
            checked=page.checked, corrected_user_ids=page.corrected, through_user_id=page.through
        )

    async def KeepHouse(
        self, request: queue_pb2.KeepHouseRequest, context: Context
    ) -> queue_pb2.KeepHouseResponse:
        """Do one round of housekeeping."""
        return await self._desks.upkeep.run()

    async def FindUsersByPhone(
        self, request: queue_pb2.FindUsersByPhoneRequest, context: Context
    ) -> queue_pb2.FindUsersByPhoneResponse:
        """Return who has a number."""
        return await self._desks.lookup.by_phone(request.phone_e164, request.limit)

    async def ListCalls(
        self, request: queue_pb2.ListCallsRequest, context: Context
    ) -> queue_pb2.ListCallsResponse:
        """Return a page of a person's calls."""
        user_id = requests.user_of(request.user_id)
        return await self._desks.lookup.calls(user_id, request.page_size, request.page_token)

    async def GetReference(
        self, request: queue_pb2.GetReferenceRequest, context: Context
    ) -> queue_pb2.GetReferenceResponse:
        """Return the rules a desk must know."""
        return self._desks.lookup.reference()

    def _by_actor(self, request: ByActor) -> Request:
        """Return what identifies a repeat of a request of a supervisor, or whoever else acts."""
        actor_id = requests.agent_of(request.actor_id)
        return requests.request_of(request, actor_id, request.request_id)

    def _notes(self, text: str) -> str:
        return requests.notes_of(text, self._rulebook.rules.calls.notes_longest_characters)


async def _parts(
    first: queue_pb2.ImportSuppressedPhonesRequest,
    others: AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest],
) -> AsyncIterator[bytes]:
    yield first.csv
    is_ended = first.is_last
    async for message in others:
        yield message.csv
        is_ended |= message.is_last
    if first.must_end and not is_ended:
        raise InvalidArgument("LIST_TRUNCATED", "the list ends too early")


def _scheduled_for(
    request: queue_pb2.ScheduleCallbackRequest | queue_pb2.RescheduleCallbackRequest,
) -> datetime:
    scheduled_for = requests.moment_in(request, "scheduled_for")
    if scheduled_for is None:
        raise InvalidArgument("CALLBACK_TIME_MISSING", "a callback needs a time")
    return scheduled_for
