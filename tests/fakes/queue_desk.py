"""The queue's calls for desks and supervisors, answered from memory."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
)
from tests.fakes.recorded_calls import RecordingDouble

_OPEN = call_state_pb2.CALLBACK_STATE_OPEN


@dataclass
class FakeDesk(RecordingDouble):
    """Keeps callbacks, suppressions, agents and audit entries, and little of the rules."""

    callbacks: dict[str, call_state_pb2.Callback] = field(default_factory=dict)
    # First answers by request id.
    changed: dict[str, call_state_pb2.Callback] = field(default_factory=dict)
    # Objections by id, and people reported to have no claim.
    suppressions: dict[str, queue_pb2.Suppression] = field(default_factory=dict)
    no_claims: set[int] = field(default_factory=set)
    agents: dict[str, queue_pb2.Agent] = field(default_factory=dict)
    accesses: list[tuple[str, str, int]] = field(default_factory=list)
    # Other audit entries, the latest first.
    audited: list[queue_pb2.AuditEntry] = field(default_factory=list)
    calls_made: dict[int, list[queue_pb2.Call]] = field(default_factory=dict)
    imported: list[bytes] = field(default_factory=list)
    phone_lists: list[queue_pb2.PhoneList] = field(default_factory=list)
    report_rows: dict[int, list[queue_pb2.ReportRow]] = field(default_factory=dict)
    pauses: list[queue_pb2.Pause] = field(default_factory=list)
    rebuilding: int = 3

    async def ExplainUser(self, request: Any, context: Any) -> Any:
        """Explain any user."""
        await self.received("ExplainUser", request)
        response = queue_pb2.ExplainUserResponse(
            user_id=request.user_id,
            summary="First of two.",
            state=call_state_pb2.ENTRY_STATE_READY,
            queue=call_state_pb2.QUEUE_UNSIGNED_USERS,
            is_callable_now=True,
            is_live=True,
            score=2.5,
        )
        response.rules.add(rule="CALLING_HOURS", is_passed=True, inputs={"zone": "UTC"}, words="ok")
        response.factors.add(factor="AGEING", points=2.5, words="half a week")
        return response

    async def ListCalls(self, request: Any, context: Any) -> Any:
        """Return the person's calls in one page."""
        await self.received("ListCalls", request)
        _require_no_token(request)
        return queue_pb2.ListCallsResponse(calls=self.calls_made.get(request.user_id, []))

    async def GetReference(self, request: Any, context: Any) -> Any:
        """Return two rules."""
        await self.received("GetReference", request)
        response = queue_pb2.GetReferenceResponse(
            rules_hash="r1", reasons=["NO_SIGNATURE"], actions=["SUPPRESSED"],
            callback_longest_days=365, notes_longest_characters=10_000, attempts_per_day=3,
            attempts_per_period=10, period_days=28, lease_seconds=120,
            company_time_zone="Europe/London", unreported_rest_minutes=30,
        )  # fmt: skip
        response.outcomes.add(
            outcome=call_state_pb2.OUTCOME_CALL_BACK,
            sets_score=0,
            next_call_hours=24,
            callback=queue_pb2.CALLBACK_RULE_ALWAYS,
            is_conversation=True,
        )
        response.outcomes.add(
            outcome=call_state_pb2.OUTCOME_DO_NOT_CONTACT,
            adds_points=200,
            callback=queue_pb2.CALLBACK_RULE_NEVER,
            notes_required=True,
            stops_calls=True,
        )
        return response

    async def ForceReleaseAssignment(self, request: Any, context: Any) -> Any:
        """End the assignment of any agent."""
        await self.received("ForceReleaseAssignment", request)
        live: dict[str, queue_pb2.Assignment] = getattr(self, "live", {})
        for agent_id, held in list(live.items()):
            if held.assignment_id == request.assignment_id:
                del live[agent_id]
                return queue_pb2.ForceReleaseAssignmentResponse(call_state=_state(held.user_id))
        raise self.not_live(request.assignment_id)

    async def ScheduleCallback(self, request: Any, context: Any) -> Any:
        """Agree one, if none is open."""
        await self.received("ScheduleCallback", request)
        known = self.callbacks.get(request.request_id)
        if known is None:
            if any(it.user_id == request.user_id for it in self._in_state(_OPEN)):
                raise AlreadyExists("CALLBACK_OPEN", "the person has an open callback")
            known = self.agree(
                request.user_id, request.preferred_agent_id, callback_id=request.request_id
            )
            known.scheduled_for.CopyFrom(request.scheduled_for)
            known.created_by, known.notes = request.actor_id, request.notes
        return queue_pb2.ScheduleCallbackResponse(callback=known)

    async def RescheduleCallback(self, request: Any, context: Any) -> Any:
        """Move one."""
        await self.received("RescheduleCallback", request)
        if request.request_id not in self.changed:
            callback = self._changeable(request)
            callback.scheduled_for.CopyFrom(request.scheduled_for)
            if request.HasField("preferred_agent_id"):
                callback.preferred_agent_id = request.preferred_agent_id
            self._changed(request, callback)
        return queue_pb2.RescheduleCallbackResponse(callback=self.changed[request.request_id])

    async def CancelCallback(self, request: Any, context: Any) -> Any:
        """Call one off."""
        await self.received("CancelCallback", request)
        if request.request_id not in self.changed:
            callback = self._changeable(request)
            callback.state = call_state_pb2.CALLBACK_STATE_CANCELLED
            self._changed(request, callback)
        return queue_pb2.CancelCallbackResponse(callback=self.changed[request.request_id])

    async def ListCallbacks(self, request: Any, context: Any) -> Any:
        """Return those asked for in one page."""
        await self.received("ListCallbacks", request)
        _require_no_token(request)
        return queue_pb2.ListCallbacksResponse(
            callbacks=[
                it
                for it in self._in_state(request.state)
                if request.preferred_agent_id in ("", it.preferred_agent_id)
                and request.user_id in (0, it.user_id)
            ]
        )

    async def SetAgentPresence(self, request: Any, context: Any) -> Any:
        """Note it."""
        await self.received("SetAgentPresence", request)
        agent = self.agent(request.agent_id)
        agent.presence = request.presence
        return queue_pb2.SetAgentPresenceResponse(agent=agent)

    async def GetAgent(self, request: Any, context: Any) -> Any:
        """Return the agent, who has skipped two people."""
        await self.received("GetAgent", request)
        agent = queue_pb2.Agent(skips_last_hour=2)
        agent.MergeFrom(self.agent(request.agent_id))
        return queue_pb2.GetAgentResponse(agent=agent)

    async def SetAgentQueues(self, request: Any, context: Any) -> Any:
        """Note them."""
        await self.received("SetAgentQueues", request)
        agent = self.agent(request.agent_id)
        agent.allowed_queues[:] = request.allowed_queues
        return queue_pb2.SetAgentQueuesResponse(agent=agent)

    async def ListAgents(self, request: Any, context: Any) -> Any:
        """Return those of the presence asked for, each with whom they hold."""
        await self.received("ListAgents", request)
        live: dict[str, queue_pb2.Assignment] = getattr(self, "live", {})
        for agent_id, held in live.items():
            self.agent(agent_id).assignment.CopyFrom(held)
        known = sorted(self.agents.items())
        return queue_pb2.ListAgentsResponse(
            agents=[it for _, it in known if request.presence in (0, it.presence)]
        )

    async def SuppressUser(self, request: Any, context: Any) -> Any:
        """Stop calls to the person or the number; an objection that stands stays as it is."""
        await self.received("SuppressUser", request)
        made = queue_pb2.Suppression(
            suppression_id=request.request_id,
            user_id=request.user_id,
            phone_e164=_in_e164(request.phone),
            created_by=request.actor_id,
            notes=request.notes,
        )
        about = (made.user_id, made.phone_e164)
        known = (it for it in self.suppressions.values() if (it.user_id, it.phone_e164) == about)
        standing = next(known, made)
        self.suppressions[standing.suppression_id] = standing
        return queue_pb2.SuppressUserResponse(
            call_state=_state(request.user_id) if request.user_id else None,
            suppression_id=standing.suppression_id,
        )

    async def LiftSuppression(self, request: Any, context: Any) -> Any:
        """Lift one of what stops calls to the person."""
        await self.received("LiftSuppression", request)
        objection = next(
            (
                it
                for it in self.suppressions.values()
                if it.suppression_id == request.suppression_id
                or (request.user_id and it.user_id == request.user_id)
            ),
            None,
        )
        has_no_claim = request.user_id in self.no_claims
        if objection and has_no_claim and not request.what:
            raise FailedPrecondition("SEVERAL_STAND", "an objection and a no claim stand")
        if has_no_claim and request.what != queue_pb2.LIFTED_OBJECTION:
            self.no_claims.remove(request.user_id)
        elif objection and request.what != queue_pb2.LIFTED_NO_CLAIM:
            del self.suppressions[objection.suppression_id]
        else:
            raise FailedPrecondition("NOT_SUPPRESSED", "that does not stop calls to the person")
        user_id = objection.user_id if objection else request.user_id
        return queue_pb2.LiftSuppressionResponse(call_state=_state(user_id) if user_id else None)

    async def ListSuppressions(self, request: Any, context: Any) -> Any:
        """Return objections that stand in one page."""
        await self.received("ListSuppressions", request)
        _require_no_token(request)
        return queue_pb2.ListSuppressionsResponse(
            suppressions=[
                it
                for it in self.suppressions.values()
                if request.user_id in (0, it.user_id)
                and _in_e164(request.phone) in ("", it.phone_e164)
            ]
        )

    async def NoteComplaint(self, request: Any, context: Any) -> Any:
        """Note it; person 404 is not known."""
        await self.received("NoteComplaint", request)
        if request.user_id == 404:
            raise NotFound("USER_UNKNOWN", "the dialler knows no such person")
        noted = queue_pb2.NoteComplaintResponse(is_open=request.is_open)
        noted.opened_at.FromSeconds(1_700_000_000)
        if not request.is_open:
            noted.closed_at.FromSeconds(1_700_000_060)
        return noted

    async def BeginPause(self, request: Any, context: Any) -> Any:
        """Take it over."""
        await self.received("BeginPause", request)
        pause = queue_pb2.Pause(
            pause_id=str(uuid.uuid4()),
            queue=request.queue,
            begins_at=request.begins_at,
            ends_at=request.ends_at,
            reason=request.reason,
            created_by=request.actor_id,
        )
        self.pauses.append(pause)
        return queue_pb2.BeginPauseResponse(pause=pause)

    async def EndPause(self, request: Any, context: Any) -> Any:
        """End it."""
        await self.received("EndPause", request)
        for pause in self.pauses:
            pause.ended_by = request.actor_id
            return queue_pb2.EndPauseResponse(pause=pause)
        raise NotFound("PAUSE_NOT_FOUND", "there is no such pause")

    async def ListPauses(self, request: Any, context: Any) -> Any:
        """Return them."""
        return queue_pb2.ListPausesResponse(pauses=self.pauses)

    async def ImportSuppressedPhones(self, request_iterator: Any, context: Any) -> Any:
        """Take in all parts, then keep them."""
        parts: list[bytes] = []
        is_ended = False
        async for part in request_iterator:
            if not parts:
                await self.received("ImportSuppressedPhones", part)
            parts.append(part.csv)
            is_ended = part.is_last
        if not is_ended:
            raise InvalidArgument("LIST_TRUNCATED", "the list ends too early")
        self.imported.append(b"".join(parts))
        lines = len(self.imported[-1].splitlines())
        return queue_pb2.ImportSuppressedPhonesResponse(lines=lines, added=lines)

    async def ListPhoneLists(self, request: Any, context: Any) -> Any:
        """Return the lists that a test has set."""
        await self.received("ListPhoneLists", request)
        return queue_pb2.ListPhoneListsResponse(lists=self.phone_lists)

    async def AmendOutcome(self, request: Any, context: Any) -> Any:
        """Return a person who waits."""
        await self.received("AmendOutcome", request)
        state = call_state_pb2.CallState(user_id=7, state=call_state_pb2.ENTRY_STATE_WAITING)
        return queue_pb2.AmendOutcomeResponse(call_state=state)

    async def UndoOutcomes(self, request: Any, context: Any) -> Any:
        """Withdraw one report."""
        await self.received("UndoOutcomes", request)
        call = queue_pb2.UndoneOutcome(
            assignment_id=str(uuid.UUID(int=8)),
            user_id=7,
            outcome=call_state_pb2.OUTCOME_NO_ANSWER,
        )
        return queue_pb2.UndoOutcomesResponse(calls=[call])

    async def AddNote(self, request: Any, context: Any) -> Any:
        """Answer with the same note always."""
        await self.received("AddNote", request)
        answer = queue_pb2.AddNoteResponse(note_id=str(uuid.UUID(int=9)))
        answer.noted_at.FromJsonString("2026-11-30T18:00:00Z")
        return answer

    async def ListHistory(self, request: Any, context: Any) -> Any:
        """Return a call and an objection."""
        await self.received("ListHistory", request)
        return queue_pb2.ListHistoryResponse(
            entries=[
                queue_pb2.HistoryEntry(
                    kind=queue_pb2.HISTORY_KIND_CALL,
                    actor_id="agent-1",
                    notes="rang for long",
                    details={"outcome": "no_answer", "assignment_id": "a"},
                ),
                queue_pb2.HistoryEntry(kind=queue_pb2.HISTORY_KIND_COMPLAINT_CLOSED),
            ],
            next_page_token="more",
        )

    async def GetReport(self, request: Any, context: Any) -> Any:
        """Return the rows that a test has set for what is counted."""
        await self.received("GetReport", request)
        answer = queue_pb2.GetReportResponse(
            rows=self.report_rows.get(request.report, ()),
            conversations=[call_state_pb2.OUTCOME_GOING_TO_COMPLETE],
        )
        answer.counted_at.FromJsonString("2026-11-30T18:00:00Z")
        return answer

    async def ExportObjections(
        self, request: Any, context: Any
    ) -> AsyncIterator[queue_pb2.ExportObjectionsResponse]:
        """Stream objections one by one, each with its number and another."""
        await self.received("ExportObjections", request)
        for it in self.suppressions.values():
            phones = [it.phone_e164 or "+447700900001", "+447700900002"]
            exported = queue_pb2.ExportedObjection(suppression=it, phones=phones)
            yield queue_pb2.ExportObjectionsResponse(objections=[exported])

    async def Rebuild(self, request: Any, context: Any) -> AsyncIterator[queue_pb2.RebuildResponse]:
        """Tell of progress in a few steps."""
        await self.received("Rebuild", request)
        for step in range(self.rebuilding):
            yield queue_pb2.RebuildResponse(
                phase=queue_pb2.REBUILD_PHASE_READING,
                people_read=step * 10,
                through_user_id=2**60 + step,
                last_user_id=2**60 + self.rebuilding,
            )
            if "RebuildStep" in self.gates:
                await self.gates["RebuildStep"].wait()
        yield queue_pb2.RebuildResponse(phase=queue_pb2.REBUILD_PHASE_DONE, people_read=30)

    async def RecordAccess(self, request: Any, context: Any) -> Any:
        """Keep it."""
        await self.received("RecordAccess", request)
        self.accesses += [(request.actor_id, request.action, it) for it in request.user_ids]
        return queue_pb2.RecordAccessResponse()

    async def ListAuditEntries(self, request: Any, context: Any) -> Any:
        """Return the accesses that are asked for in one page."""
        await self.received("ListAuditEntries", request)
        _require_no_token(request)
        return queue_pb2.ListAuditEntriesResponse(
            entries=[
                *self.audited,
                *(
                    queue_pb2.AuditEntry(actor_id=actor_id, action=action, user_id=user_id)
                    for actor_id, action, user_id in reversed(self.accesses)
                    if request.actor_id in ("", actor_id)
                    and request.action in ("", action)
                    and request.user_id in (0, user_id)
                ),
            ]
        )

    def not_live(self, assignment_id: str) -> ServiceError:
        """Return the error for an id without a live assignment."""
        if assignment_id in getattr(self, "handed_out", ()):
            return Conflict("ASSIGNMENT_NOT_LIVE", "it has ended")
        return NotFound("ASSIGNMENT_NOT_FOUND", "there is no such assignment")

    def agree(
        self, user_id: int, agent_id: str = "", *, callback_id: str = ""
    ) -> call_state_pb2.Callback:
        """Make an open callback."""
        made = call_state_pb2.Callback(
            callback_id=callback_id or str(uuid.uuid4()),
            user_id=user_id,
            preferred_agent_id=agent_id,
            state=_OPEN,
        )
        self.callbacks[made.callback_id] = made
        return made

    def agent(self, agent_id: str) -> queue_pb2.Agent:
        """Return the agent, who is made on first mention."""
        made = self.agents.setdefault(agent_id, queue_pb2.Agent(agent_id=agent_id))
        made.today.agent_id = agent_id
        return made

    def _changed(self, request: Any, callback: call_state_pb2.Callback) -> None:
        first = self.changed[request.request_id] = call_state_pb2.Callback()
        first.CopyFrom(callback)

    def _changeable(self, request: Any) -> call_state_pb2.Callback:
        callback = self.callbacks.get(request.callback_id)
        if callback is None:
            raise NotFound("CALLBACK_NOT_FOUND", "there is no such callback")
        live: dict[str, queue_pb2.Assignment] = getattr(self, "live", {})
        held = live.get(request.actor_id)
        is_own = callback.preferred_agent_id == request.actor_id
        if request.own_only and not is_own and (not held or held.user_id != callback.user_id):
            raise PermissionDenied("NOT_YOURS", "neither kept for you nor of whom you hold")
        if callback.state != _OPEN:
            raise FailedPrecondition("CALLBACK_ENDED", "the callback has ended")
        return callback

    def _in_state(self, state: int) -> list[call_state_pb2.Callback]:
        return [it for it in self.callbacks.values() if it.state == (state or _OPEN)]


def _state(user_id: int) -> call_state_pb2.CallState:
    return call_state_pb2.CallState(user_id=user_id, state=call_state_pb2.ENTRY_STATE_WAITING)


def _require_no_token(request: Any) -> None:
    if request.page_token:
        raise InvalidArgument("PAGE_TOKEN_INVALID", "the page token is not one of this list")


def _in_e164(text: str) -> str:
    """Return a British number's digits in E.164; empty without digits."""
    digits = "".join(filter(str.isdecimal, text)).removeprefix("44").removeprefix("0")
    return f"+44{digits}" if digits else ""
