"""gRPC to the queue and back."""

from datetime import datetime
from typing import Any

import grpc.aio
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc

from services.queue import messages
from services.queue.assignment_desk import AssignmentDesk
from services.queue.claim_desk import ClaimDesk
from services.queue.domain.outcomes import CallReport
from services.queue.facts_application import FactsApplication
from services.queue.figures import Figures
from services.queue.release_desk import ReleaseDesk
from services.queue.rules import AssignmentRules

SERVICE_NAME = "dialler.queue.v1.QueueService"

Context = grpc.aio.ServicerContext[Any, Any]


class QueueServicer(queue_pb2_grpc.QueueServiceServicer):
    """Translates; every rule is elsewhere."""

    def __init__(
        self,
        facts: FactsApplication,
        claim_desk: ClaimDesk,
        assignment_desk: AssignmentDesk,
        release_desk: ReleaseDesk,
        figures: Figures,
        rules: AssignmentRules,
    ) -> None:
        self._facts = facts
        self._claim_desk = claim_desk
        self._assignment_desk = assignment_desk
        self._release_desk = release_desk
        self._figures = figures
        self._rules = rules

    async def ApplyUserFacts(
        self, request: queue_pb2.ApplyUserFactsRequest, context: Context
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Bring people in line with their facts."""
        result = await self._facts.apply(messages.updates_of(request))
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
        user_ids = messages.user_ids_of(request.user_ids)
        states = await self._figures.call_states(user_ids)
        return queue_pb2.BatchGetCallStatesResponse(call_states=states)

    async def ClaimNext(
        self, request: queue_pb2.ClaimNextRequest, context: Context
    ) -> queue_pb2.ClaimNextResponse:
        """Hand out the next person."""
        agent_id = messages.agent_of(request.agent_id)
        queues = messages.queues_of(request.queues, self._rules.default_queues)
        identified = messages.request_of(request, agent_id, request.request_id)
        return await self._claim_desk.claim(identified, queues)

    async def GetCurrentAssignment(
        self, request: queue_pb2.GetCurrentAssignmentRequest, context: Context
    ) -> queue_pb2.GetCurrentAssignmentResponse:
        """Return what the agent holds."""
        held = await self._assignment_desk.current(messages.agent_of(request.agent_id))
        return queue_pb2.GetCurrentAssignmentResponse(assignment=messages.assignment_message(held))

    async def HeartbeatAssignment(
        self, request: queue_pb2.HeartbeatAssignmentRequest, context: Context
    ) -> queue_pb2.HeartbeatAssignmentResponse:
        """Extend a lease."""
        assignment_id = messages.uuid_of(request.assignment_id, "assignment_id")
        agent_id = messages.agent_of(request.agent_id)
        extended = await self._assignment_desk.extend(assignment_id, agent_id)
        return queue_pb2.HeartbeatAssignmentResponse(
            assignment=messages.assignment_message(extended)
        )

    async def ReleaseAssignment(
        self, request: queue_pb2.ReleaseAssignmentRequest, context: Context
    ) -> queue_pb2.ReleaseAssignmentResponse:
        """Take a person back."""
        assignment_id = messages.uuid_of(request.assignment_id, "assignment_id")
        agent_id = messages.agent_of(request.agent_id)
        identified = messages.request_of(request, agent_id, request.request_id)
        is_skipped = request.reason == queue_pb2.RELEASE_REASON_SKIPPED
        return await self._release_desk.release(assignment_id, identified, is_skipped=is_skipped)

    async def RecordOutcome(
        self, request: queue_pb2.RecordOutcomeRequest, context: Context
    ) -> queue_pb2.RecordOutcomeResponse:
        """Record how a call ended."""
        assignment_id = messages.uuid_of(request.assignment_id, "assignment_id")
        agent_id = messages.agent_of(request.agent_id)
        identified = messages.request_of(request, agent_id, request.request_id)
        report = CallReport(
            messages.outcome_of(request.outcome), request.notes, _callback_at(request)
        )
        return await self._assignment_desk.record(assignment_id, identified, report)

    async def GetQueueStats(
        self, request: queue_pb2.GetQueueStatsRequest, context: Context
    ) -> queue_pb2.GetQueueStatsResponse:
        """Return how many people are where."""
        return await self._figures.stats()

    async def ListEntries(
        self, request: queue_pb2.ListEntriesRequest, context: Context
    ) -> queue_pb2.ListEntriesResponse:
        """Return a page of one queue."""
        return await self._figures.page(
            messages.queue_of(request.queue),
            messages.state_of(request.state),
            request.page_size,
            request.page_token,
        )


def _callback_at(request: queue_pb2.RecordOutcomeRequest) -> datetime | None:
    if not request.HasField("callback_at"):
        return None
    return messages.moment_of(request.callback_at)
