"""The gRPC service: turns requests into calls of the use cases, and results into responses."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import grpc.aio
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc

from servicekit.clock import Clock
from servicekit.errors import InvalidArgument
from services.queue.calls.agents import Agents
from services.queue.calls.amendments import Amendment, Amendments
from services.queue.calls.call_events import CallEvents
from services.queue.calls.callbacks import Callbacks
from services.queue.calls.complaints import Complaints
from services.queue.calls.handout import Handout
from services.queue.calls.leases import Leases
from services.queue.calls.named_handout import NamedHandout
from services.queue.calls.notes import PersonNotes
from services.queue.calls.outcomes import Outcomes
from services.queue.calls.pauses import Pauses
from services.queue.calls.suppressions import Suppressions
from services.queue.domain.outcomes import CallReport, outcome_of
from services.queue.maintenance.applied_facts import AppliedFacts
from services.queue.maintenance.entry_check import EntryCheck
from services.queue.maintenance.housekeeping import PurgeExpired
from services.queue.maintenance.rebuild import Rebuild
from services.queue.people.apply_facts import FactsApplication
from services.queue.people.phone_lists import ListHeader, PhoneLists
from services.queue.people.rulebook import Rulebook
from services.queue.reads.audit_trail import AuditTrail
from services.queue.reads.explain import Explanations
from services.queue.reads.figures import QueueFigures
from services.queue.reads.lookups import Lookups
from services.queue.reads.reports import Reports
from services.queue.store.audit import AuditFilter
from services.queue.store.reading import EntryFilter
from services.queue.types import Hold, Outcome, Presence, UserId
from services.queue.wire import messages, requests

SERVICE_NAME = "dialler.queue.v1.QueueService"

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the servicer calls: one object for each use case."""

    facts: FactsApplication
    handout: Handout
    named_handout: NamedHandout
    leases: Leases
    outcomes: Outcomes
    call_events: CallEvents
    amendments: Amendments
    callbacks: Callbacks
    agents: Agents
    suppressions: Suppressions
    complaints: Complaints
    notes: PersonNotes
    pauses: Pauses
    phone_lists: PhoneLists
    figures: QueueFigures
    explanations: Explanations
    rebuild: Rebuild
    audit: AuditTrail
    applied_facts: AppliedFacts
    entry_check: EntryCheck
    purge_expired: PurgeExpired
    lookups: Lookups
    reports: Reports


class QueueServicer(queue_pb2_grpc.QueueServiceServicer):
    """Translates only: every rule is in the use cases and the domain."""

    def __init__(self, use_cases: UseCases, rulebook: Rulebook, clock: Clock) -> None:
        self._use_cases = use_cases
        self._rulebook = rulebook
        self._clock = clock

    async def ApplyUserFacts(
        self, request: queue_pb2.ApplyUserFactsRequest, context: Context
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Apply users' facts."""
        result = await self._use_cases.facts.apply(requests.updates_of(request))
        return queue_pb2.ApplyUserFactsResponse(
            applied=result.applied,
            outdated=result.outdated,
            moved=result.moved,
            conversions=result.conversions,
        )

    async def BatchGetCallStates(
        self, request: queue_pb2.BatchGetCallStatesRequest, context: Context
    ) -> queue_pb2.BatchGetCallStatesResponse:
        """Return the call states of users."""
        user_ids = requests.user_ids_of(request.user_ids)
        states = await self._use_cases.figures.call_states(user_ids)
        return queue_pb2.BatchGetCallStatesResponse(call_states=states)

    async def ClaimNext(
        self, request: queue_pb2.ClaimNextRequest, context: Context
    ) -> queue_pb2.ClaimNextResponse:
        """Hand the agent the next user."""
        identified = requests.by_agent(request)
        default = self._rulebook.rules.assignment.default_queues
        queues = requests.queues_of(request.queues, default)
        return await self._use_cases.handout.next_user(
            identified, queues, own_callbacks_only=request.own_callbacks_only
        )

    async def AssignUser(
        self, request: queue_pb2.AssignUserRequest, context: Context
    ) -> queue_pb2.AssignUserResponse:
        """Hand the agent the user that it names."""
        return await self._use_cases.named_handout.hand_out(
            requests.by_agent(request),
            requests.user_of(request.user_id),
            requests.direction_of(request.direction),
            is_supervisor=request.is_supervisor,
        )

    async def GetCurrentAssignment(
        self, request: queue_pb2.GetCurrentAssignmentRequest, context: Context
    ) -> queue_pb2.GetCurrentAssignmentResponse:
        """Return the agent's live assignment."""
        held = await self._use_cases.leases.current(requests.agent_of(request.agent_id))
        return queue_pb2.GetCurrentAssignmentResponse(assignment=messages.assignment_message(held))

    async def HeartbeatAssignment(
        self, request: queue_pb2.HeartbeatAssignmentRequest, context: Context
    ) -> queue_pb2.HeartbeatAssignmentResponse:
        """Extend the lease of an assignment."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        agent_id = requests.agent_of(request.agent_id)
        extended = await self._use_cases.leases.extend(assignment_id, agent_id)
        return queue_pb2.HeartbeatAssignmentResponse(
            assignment=messages.assignment_message(extended)
        )

    async def ReleaseAssignment(
        self, request: queue_pb2.ReleaseAssignmentRequest, context: Context
    ) -> queue_pb2.ReleaseAssignmentResponse:
        """Release an assignment without a call."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        is_skipped = request.reason == queue_pb2.RELEASE_REASON_SKIPPED
        return await self._use_cases.leases.release(
            assignment_id, requests.by_agent(request), is_skipped=is_skipped
        )

    async def ForceReleaseAssignment(
        self, request: queue_pb2.ForceReleaseAssignmentRequest, context: Context
    ) -> queue_pb2.ForceReleaseAssignmentResponse:
        """End an agent's assignment for a supervisor."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        identified = requests.by_actor(request)
        notes = self._notes(request.notes) if request.notes.strip() else None
        return await self._use_cases.leases.force_release(assignment_id, identified, notes)

    async def RecordOutcome(
        self, request: queue_pb2.RecordOutcomeRequest, context: Context
    ) -> queue_pb2.RecordOutcomeResponse:
        """Record how a call ended."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        identified = requests.by_agent(request)
        callback_at = requests.moment_in(request, "callback_at")
        outcome = outcome_of(
            requests.optional_of(Outcome, request.outcome, "OUTCOME_MISSING"),
            request.disposition,
            self._rulebook.rules,
        )
        report = CallReport(outcome, request.notes, callback_at, request.disposition or None)
        return await self._use_cases.outcomes.record(assignment_id, identified, report)

    async def RecordCallEvent(
        self, request: queue_pb2.RecordCallEventRequest, context: Context
    ) -> queue_pb2.RecordCallEventResponse:
        """Note what happened to a call."""
        return await self._use_cases.call_events.record(
            requests.uuid_of(request.assignment_id, "assignment_id"),
            requests.call_event_of(request.event),
            requests.agent_of(request.actor_id),
            own_only=request.own_only,
        )

    async def RecordMissedCall(
        self, request: queue_pb2.RecordMissedCallRequest, context: Context
    ) -> queue_pb2.RecordMissedCallResponse:
        """Make the callbacks of a missed call."""
        missed_at = requests.moment_in(request, "missed_at")
        if missed_at is None:
            raise InvalidArgument("MISSED_AT_MISSING", "a missed call needs a time")
        return await self._use_cases.call_events.missed(
            requests.phone_of(request.phone), missed_at, requests.agent_of(request.actor_id)
        )

    async def AmendOutcome(
        self, request: queue_pb2.AmendOutcomeRequest, context: Context
    ) -> queue_pb2.AmendOutcomeResponse:
        """Change the report of a call."""
        assignment_id = requests.uuid_of(request.assignment_id, "assignment_id")
        identified = requests.by_actor(request)
        outcome = outcome_of(
            requests.optional_of(Outcome, request.outcome, "OUTCOME_MISSING"),
            request.disposition,
            self._rulebook.rules,
        )
        callback_at = requests.moment_in(request, "callback_at")
        # An agent need not say why.
        may_be_silent = request.own_only and not request.reason.strip()
        wanted = Amendment(
            actor_id=identified.agent_id,
            reason="" if may_be_silent else self._notes(request.reason),
            report=CallReport(outcome, request.notes, callback_at, request.disposition or None),
            keeps_notes=not request.HasField("notes"),
            is_agents_own=request.own_only,
        )
        return await self._use_cases.amendments.amend(assignment_id, identified, wanted)

    async def UndoOutcomes(
        self, request: queue_pb2.UndoOutcomesRequest, context: Context
    ) -> queue_pb2.UndoOutcomesResponse:
        """Withdraw what an agent has reported in a time."""
        since, until = requests.time_range_of(request)
        return await self._use_cases.amendments.undo(
            requests.by_actor(request),
            requests.agent_of(request.agent_id),
            since,
            until,
            self._notes(request.reason),
            is_dry_run=request.dry_run,
        )

    async def GetQueueStats(
        self, request: queue_pb2.GetQueueStatsRequest, context: Context
    ) -> queue_pb2.GetQueueStatsResponse:
        """Return how many users each queue and state has."""
        return await self._use_cases.figures.stats()

    async def ListEntries(
        self, request: queue_pb2.ListEntriesRequest, context: Context
    ) -> queue_pb2.ListEntriesResponse:
        """Return a page of one queue."""
        asked = EntryFilter(
            queue=requests.queue_of(request.queue),
            state=requests.state_of(request.state),
            hold=requests.optional_of(Hold, request.hold, "HOLD_INVALID"),
            reason=requests.reason_of(request.reason),
            last_outcome=requests.optional_of(Outcome, request.last_outcome, "OUTCOME_INVALID"),
            agent_id=requests.optional_agent_of(request.agent_id),
            attempts_at_least=min(request.attempts_at_least, 2**31 - 1),
        )
        return await self._use_cases.figures.page(asked, request.page_size, request.page_token)

    async def ExplainUser(
        self, request: queue_pb2.ExplainUserRequest, context: Context
    ) -> queue_pb2.ExplainUserResponse:
        """Explain why a user is called or not."""
        user_id = requests.user_of(request.user_id)
        agent_id = requests.optional_agent_of(request.agent_id)
        return await self._use_cases.explanations.explain(user_id, agent_id)

    async def ScheduleCallback(
        self, request: queue_pb2.ScheduleCallbackRequest, context: Context
    ) -> queue_pb2.ScheduleCallbackResponse:
        """Schedule a callback."""
        return await self._use_cases.callbacks.schedule(
            requests.by_actor(request),
            requests.user_of(request.user_id),
            requests.scheduled_for_of(request),
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
        return await self._use_cases.callbacks.reschedule(
            requests.by_actor(request),
            requests.uuid_of(request.callback_id, "callback_id"),
            requests.scheduled_for_of(request),
            preferred,
            own_only=request.own_only,
        )

    async def CancelCallback(
        self, request: queue_pb2.CancelCallbackRequest, context: Context
    ) -> queue_pb2.CancelCallbackResponse:
        """Cancel a callback."""
        callback_id = requests.uuid_of(request.callback_id, "callback_id")
        return await self._use_cases.callbacks.cancel(
            requests.by_actor(request), callback_id, own_only=request.own_only
        )

    async def ListCallbacks(
        self, request: queue_pb2.ListCallbacksRequest, context: Context
    ) -> queue_pb2.ListCallbacksResponse:
        """Return a page of callbacks."""
        return await self._use_cases.callbacks.page(
            requests.callback_state_of(request.state),
            requests.optional_agent_of(request.preferred_agent_id),
            requests.optional_user_of(request.user_id),
            request.page_size,
            request.page_token,
        )

    async def SetAgentPresence(
        self, request: queue_pb2.SetAgentPresenceRequest, context: Context
    ) -> queue_pb2.SetAgentPresenceResponse:
        """Set an agent's presence."""
        agent_id = requests.agent_of(request.agent_id)
        presence = requests.presence_of(request.presence)
        agent = await self._use_cases.agents.set_presence(agent_id, presence)
        return queue_pb2.SetAgentPresenceResponse(agent=agent)

    async def SetAgentQueues(
        self, request: queue_pb2.SetAgentQueuesRequest, context: Context
    ) -> queue_pb2.SetAgentQueuesResponse:
        """Limit an agent to queues."""
        queues = frozenset(map(requests.queue_of, request.allowed_queues)) or None
        agent = await self._use_cases.agents.set_queues(
            requests.agent_of(request.agent_id), queues, requests.agent_of(request.actor_id)
        )
        return queue_pb2.SetAgentQueuesResponse(agent=agent)

    async def GetAgent(
        self, request: queue_pb2.GetAgentRequest, context: Context
    ) -> queue_pb2.GetAgentResponse:
        """Return one agent."""
        agent_id = requests.agent_of(request.agent_id)
        return queue_pb2.GetAgentResponse(agent=await self._use_cases.agents.one(agent_id))

    async def ListAgents(
        self, request: queue_pb2.ListAgentsRequest, context: Context
    ) -> queue_pb2.ListAgentsResponse:
        """Return every known agent."""
        presence = requests.optional_of(Presence, request.presence, "PRESENCE_INVALID")
        agents = await self._use_cases.agents.every(presence)
        return queue_pb2.ListAgentsResponse(agents=agents)

    async def SuppressUser(
        self, request: queue_pb2.SuppressUserRequest, context: Context
    ) -> queue_pb2.SuppressUserResponse:
        """Stop all calls to a user or to a bare number."""
        notes = self._notes(request.notes)
        by_actor = requests.by_actor(request)
        kind = requests.suppression_kind_of(request.kind)
        if request.phone and not request.user_id:
            phone = requests.phone_of(request.phone)
            return await self._use_cases.suppressions.suppress_number(by_actor, phone, notes)
        user_id = requests.user_of(request.user_id)
        return await self._use_cases.suppressions.suppress(by_actor, user_id, notes, kind=kind)

    async def LiftSuppression(
        self, request: queue_pb2.LiftSuppressionRequest, context: Context
    ) -> queue_pb2.LiftSuppressionResponse:
        """Lift a suppression of a user or of a number."""
        target: UserId | UUID
        if request.suppression_id:
            target = requests.uuid_of(request.suppression_id, "suppression_id")
        else:
            target = requests.user_of(request.user_id)
        what = requests.lifted_of(request.what)
        notes = self._notes(request.notes)
        return await self._use_cases.suppressions.lift(
            requests.by_actor(request), target, what, notes
        )

    async def ListSuppressions(
        self, request: queue_pb2.ListSuppressionsRequest, context: Context
    ) -> queue_pb2.ListSuppressionsResponse:
        """Return a page of suppressions."""
        return await self._use_cases.suppressions.page(
            requests.optional_user_of(request.user_id),
            requests.phone_of(request.phone) if request.phone else None,
            request.include_lifted,
            request.page_size,
            request.page_token,
        )

    async def NoteComplaint(
        self, request: queue_pb2.NoteComplaintRequest, context: Context
    ) -> queue_pb2.NoteComplaintResponse:
        """Note whether a complaint of a user is open."""
        user_id = requests.user_of(request.user_id)
        return await self._use_cases.complaints.note(
            requests.by_actor(request), user_id, is_open=request.is_open
        )

    async def AddNote(
        self, request: queue_pb2.AddNoteRequest, context: Context
    ) -> queue_pb2.AddNoteResponse:
        """Keep a note of a user."""
        user_id = requests.user_of(request.user_id)
        text = self._notes(request.text)
        return await self._use_cases.notes.add(requests.by_actor(request), user_id, text)

    async def ListHistory(
        self, request: queue_pb2.ListHistoryRequest, context: Context
    ) -> queue_pb2.ListHistoryResponse:
        """Return a page of what happened to a user."""
        user_id = requests.user_of(request.user_id)
        lookups = self._use_cases.lookups
        return await lookups.history(user_id, request.page_size, request.page_token)

    async def BeginPause(
        self, request: queue_pb2.BeginPauseRequest, context: Context
    ) -> queue_pb2.BeginPauseResponse:
        """Pause hand-outs of one queue or of all."""
        ends_at = requests.moment_in(request, "ends_at")
        if ends_at is None:
            raise InvalidArgument("PAUSE_TIME_INVALID", "a pause needs an end")
        return await self._use_cases.pauses.begin(
            requests.by_actor(request),
            requests.optional_queue_of(request.queue),
            requests.moment_in(request, "begins_at"),
            ends_at,
            self._notes(request.reason),
        )

    async def EndPause(
        self, request: queue_pb2.EndPauseRequest, context: Context
    ) -> queue_pb2.EndPauseResponse:
        """End a pause."""
        pause_id = requests.uuid_of(request.pause_id, "pause_id")
        return await self._use_cases.pauses.end(requests.by_actor(request), pause_id)

    async def ListPauses(
        self, request: queue_pb2.ListPausesRequest, context: Context
    ) -> queue_pb2.ListPausesResponse:
        """Return the pauses in force and ahead."""
        return await self._use_cases.pauses.every()

    async def ImportSuppressedPhones(
        self,
        request_iterator: AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest],
        context: Context,
    ) -> queue_pb2.ImportSuppressedPhonesResponse:
        """Import a list of phone numbers."""
        first = await anext(aiter(request_iterator), None)
        if first is None:
            raise InvalidArgument("LIST_NAME_INVALID", "no list has come in")
        actor_id = requests.agent_of(first.actor_id)
        header = ListHeader(
            first.list_name,
            actor_id,
            first.is_complete,
            may_shrink=first.allow_shrink,
            dated_on=requests.dated_on_of(first),
            source=first.source,
            is_dry_run=first.dry_run,
        )
        parts = requests.csv_parts(first, request_iterator)
        return await self._use_cases.phone_lists.take_over(header, parts)

    async def ListPhoneLists(
        self, request: queue_pb2.ListPhoneListsRequest, context: Context
    ) -> queue_pb2.ListPhoneListsResponse:
        """Return every list of phone numbers in force."""
        return await self._use_cases.phone_lists.lists()

    async def ExportObjections(
        self, request: queue_pb2.ExportObjectionsRequest, context: Context
    ) -> AsyncIterator[queue_pb2.ExportObjectionsResponse]:
        """Stream every objection in force with its numbers."""
        actor_id = requests.agent_of(request.actor_id)
        async with aclosing(self._use_cases.suppressions.export(actor_id)) as pages:
            async for page in pages:
                yield page

    async def Rebuild(
        self, request: queue_pb2.RebuildRequest, context: Context
    ) -> AsyncIterator[queue_pb2.RebuildResponse]:
        """Apply the main app's facts of every user; streams the progress."""
        began = self._clock.monotonic()
        actor_id = requests.agent_of(request.actor_id)
        run = self._use_cases.rebuild.run(actor_id, allow_gone=request.allow_gone)
        async with aclosing(run) as steps:
            async for progress in steps:
                yield queue_pb2.RebuildResponse(
                    **asdict(progress), seconds=self._clock.monotonic() - began
                )

    async def RecordAccess(
        self, request: queue_pb2.RecordAccessRequest, context: Context
    ) -> queue_pb2.RecordAccessResponse:
        """Note that an actor looked at users."""
        actor_id = requests.agent_of(request.actor_id)
        user_ids = requests.user_ids_of(request.user_ids)
        await self._use_cases.audit.note_access(actor_id, user_ids, request.action)
        return queue_pb2.RecordAccessResponse()

    async def ListAuditEntries(
        self, request: queue_pb2.ListAuditEntriesRequest, context: Context
    ) -> queue_pb2.ListAuditEntriesResponse:
        """Return a page of the audit trail."""
        asked = AuditFilter(
            user_id=requests.optional_user_of(request.user_id),
            actor_id=requests.optional_agent_of(request.actor_id),
            action=requests.text_of(request.action, "action") or None,
            since=requests.moment_in(request, "since"),
            until=requests.moment_in(request, "until"),
        )
        return await self._use_cases.audit.page(asked, request.page_size, request.page_token)

    async def GetReport(
        self, request: queue_pb2.GetReportRequest, context: Context
    ) -> queue_pb2.GetReportResponse:
        """Return counts by day."""
        return await self._use_cases.reports.get(request)

    async def StreamAppliedFacts(
        self, request: queue_pb2.StreamAppliedFactsRequest, context: Context
    ) -> AsyncIterator[queue_pb2.StreamAppliedFactsResponse]:
        """Stream what was last applied of every user."""
        after = requests.user_before_of(request.after_user_id)
        size = requests.size_of(request.block_size, "block_size", 10_000, 20_000)
        async for applied in self._use_cases.applied_facts.blocks(after, size):
            yield queue_pb2.StreamAppliedFactsResponse(applied=applied)

    async def ReadAppliedFacts(
        self, request: queue_pb2.ReadAppliedFactsRequest, context: Context
    ) -> queue_pb2.ReadAppliedFactsResponse:
        """Return what was last applied of some users."""
        user_ids = requests.user_ids_of(request.user_ids)
        applied = await self._use_cases.applied_facts.of(user_ids)
        return queue_pb2.ReadAppliedFactsResponse(applied=applied)

    async def CheckEntries(
        self, request: queue_pb2.CheckEntriesRequest, context: Context
    ) -> queue_pb2.CheckEntriesResponse:
        """Place a page of users anew by what the queue knows."""
        after = requests.user_before_of(request.after_user_id)
        size = requests.size_of(request.page_size, "page_size", 500, 1_000)
        page = await self._use_cases.entry_check.check(after, size)
        return queue_pb2.CheckEntriesResponse(
            checked=page.checked, corrected_user_ids=page.corrected, through_user_id=page.through
        )

    async def PurgeExpired(
        self, request: queue_pb2.PurgeExpiredRequest, context: Context
    ) -> queue_pb2.PurgeExpiredResponse:
        """End or delete one batch of each kind of what is out of date."""
        return await self._use_cases.purge_expired.run()

    async def FindUsersByPhone(
        self, request: queue_pb2.FindUsersByPhoneRequest, context: Context
    ) -> queue_pb2.FindUsersByPhoneResponse:
        """Return the users who have a number."""
        return await self._use_cases.lookups.by_phone(request.phone_e164, request.limit)

    async def ListCalls(
        self, request: queue_pb2.ListCallsRequest, context: Context
    ) -> queue_pb2.ListCallsResponse:
        """Return a page of a user's calls."""
        user_id = requests.user_of(request.user_id)
        return await self._use_cases.lookups.calls(user_id, request.page_size, request.page_token)

    async def GetReference(
        self, request: queue_pb2.GetReferenceRequest, context: Context
    ) -> queue_pb2.GetReferenceResponse:
        """Return the rules that the agent's screen needs."""
        return self._use_cases.lookups.reference()

    def _notes(self, text: str) -> str:
        return requests.notes_of(text, self._rulebook.rules.calls.notes_longest_characters)
