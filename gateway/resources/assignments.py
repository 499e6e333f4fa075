"""Assignments: people handed out to agents, and what supervisors see and end of them."""

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from uuid import UUID

from dialler.queue.v1 import queue_pb2
from fastapi import Body, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from gateway.access.audit import AccessTrail, ViewAction
from gateway.access.auth import Caller, Role
from gateway.access.person_access import PersonAccess
from gateway.resources.call_states import CallState
from gateway.resources.contexts import ContextReads
from gateway.resources.fields import (
    CALL_DIRECTIONS,
    CONVERSIONS,
    OUTCOMES,
    QUEUES,
    AgentIdText,
    CallDirection,
    CallerOf,
    Conversion,
    DispositionCode,
    EnumNames,
    HarmlessKey,
    Id,
    IdempotencyKey,
    Moment,
    MomentIn,
    Notes,
    Outcome,
    QueueName,
    RequestBody,
    RequiredNotes,
    UserIdText,
    require_queues,
    timestamp,
)
from gateway.resources.pauses import QueuePause
from servicekit.call_state_json import moment_in
from servicekit.errors import PermissionDenied, ServiceError

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

_log = logging.getLogger(__name__)


class ReleaseReason(StrEnum):
    """Why an agent releases a person without a call."""

    SKIPPED = "skipped"
    AGENT_LEAVING = "agent_leaving"


RELEASE_REASONS = EnumNames(ReleaseReason, queue_pb2.ReleaseReason)


# How an agent gets a person that it names.
ChosenDirection = Literal[CallDirection.INBOUND, CallDirection.MANUAL]


_NULL: JsonDict = {"type": "null"}
_TEXT: JsonDict = {"type": "string"}
# As a limit of what may not be, since a generator of types would take `anyOf` for the fields.
_NEITHER: JsonDict = {"properties": {"outcome": _NULL, "disposition": _NULL}}


class ClaimRequest(RequestBody):
    """The queues to take a person from, or the person to take."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "anyOf": [
                    {"required": ["user_id"], "properties": {"user_id": _TEXT, "direction": _NULL}},
                    {
                        "required": ["direction"],
                        "properties": {"user_id": _NULL, "direction": _TEXT},
                    },
                    {
                        "required": ["user_id", "queues"],
                        "properties": {
                            "user_id": _TEXT,
                            "queues": {"type": "array", "minItems": 1},
                        },
                    },
                ]
            },
            "examples": [
                {"queues": ["unsigned_users"]},
                {"user_id": "4711", "direction": "inbound"},
            ],
        }
    )

    queues: Annotated[list[QueueName], Field(max_length=10)] | None = Field(
        default=None,
        description="Queues to take from, in this order; absent: all that the token allows.",
    )
    user_id: UserIdText | None = Field(
        default=None, description="The person to take, with `direction` and without `queues`."
    )
    direction: ChosenDirection | None = Field(
        default=None,
        description="`inbound`: the person has rung us. `manual`: the person is to be phoned out "
        "of turn; for supervisors, and for agents if `agents_may_choose` of `/v1/reference`.",
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.user_id is None) != (self.direction is None):
            raise ValueError("give user_id and direction together")
        if self.user_id is not None and self.queues:
            raise ValueError("give either queues or user_id")
        return self


class Include(StrEnum):
    """What the answer to a claim may have besides."""

    CONTEXT = "context"


class ReleaseRequest(RequestBody):
    """Why the person is released."""

    reason: ReleaseReason | None = None


class OutcomeRequest(RequestBody):
    """How the call ended: the outcome, or a disposition of the rules, which stands for one."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": _NEITHER,
            "examples": [{"outcome": "call_back", "callback_at": "2025-06-03T17:30:00Z"}],
        }
    )

    outcome: Outcome | None = Field(
        default=None, description="null or absent: that of the disposition."
    )
    disposition: DispositionCode | None = Field(
        default=None,
        description="A code of `dispositions` in `GET /v1/reference`; 400 `DISPOSITION_MISMATCH` "
        "when `outcome` is another than its own.",
    )
    notes: Notes = Field(default="", description="Required for do_not_contact and deceased.")
    callback_at: MomentIn | None = Field(
        default=None,
        description="When the person wants to be called; in the future and within the person's "
        "calling hours. Allowed for call_back, going_to_complete, might_complete and "
        "language_barrier.",
    )

    @model_validator(mode="after")
    def _says_how(self) -> Self:
        if self.outcome is None and self.disposition is None:
            raise ValueError("give an outcome or a disposition")
        return self


class AmendRequest(RequestBody):
    """How the call ended after all: the outcome, or a disposition that stands for one."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": _NEITHER,
            "examples": [{"outcome": "no_answer", "reason": "Chosen by mistake."}],
        }
    )

    outcome: Outcome | None = Field(
        default=None, description="null or absent: that of the disposition."
    )
    disposition: DispositionCode | None = None
    notes: Notes | None = Field(default=None, description="null or absent: as they are.")
    callback_at: MomentIn | None = Field(
        default=None,
        description="As for an outcome; the time of before may be given though it is past.",
    )
    reason: Notes = Field(default="", description="Why; supervisors must say it.")

    @model_validator(mode="after")
    def _says_how(self) -> Self:
        if self.outcome is None and self.disposition is None:
            raise ValueError("give an outcome or a disposition")
        return self


class Amended(BaseModel):
    """The person's state after an amendment."""

    call_state: CallState


class UndoRequest(RequestBody):
    """Whose reports of which time are withdrawn, and why."""

    agent_id: AgentIdText = Field(examples=["agent-1"])
    since: MomentIn = Field(
        description="Calls that ended from then on.", examples=["2025-06-02T09:00:00Z"]
    )
    until: MomentIn = Field(
        description="Calls that ended before then.", examples=["2025-06-02T10:00:00Z"]
    )
    reason: RequiredNotes = Field(examples=["The telephone system was down."])
    dry_run: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Change nothing, and only list the calls."
    )


class UndoneOutcome(BaseModel):
    """A report that is withdrawn, or would be."""

    assignment_id: str
    user_id: Id
    outcome: Outcome | None
    ended_at: Moment | None
    is_kept: bool = Field(description="Whether it stands all the same, being an objection.")


class Undone(BaseModel):
    """Reports that were withdrawn, or would be, the latest first."""

    calls: list[UndoneOutcome]
    has_more: bool = Field(description="Whether there are more than 200: ask again.")


class Assignment(BaseModel):
    """A person handed to an agent."""

    assignment_id: str
    agent_id: str
    user_id: Id
    queue: QueueName | None = Field(description="null for a person who rang us and is in none.")
    reason: str = Field(
        description="Why this person is called, or why a person who rang us is in no queue; "
        "UPPER_SNAKE."
    )
    score: float = Field(description="0 is hottest, 200 is frozen.")
    started_at: Moment | None
    lease_expires_at: Moment | None = Field(
        description="The person returns to the queue then unless a heartbeat extends the lease."
    )
    fence: Id
    direction: CallDirection | None
    contact_block: str | None = Field(
        description="Why no agent may phone the person, such as `DO_NOT_CONTACT`, as of the "
        "hand-out; null when one may. A person who rang us may be spoken with all the same, and no "
        "call may follow.",
        examples=["DO_NOT_CONTACT"],
    )

    @classmethod
    def of(cls, message: queue_pb2.Assignment) -> Self:
        """Return what the message says."""
        return cls(
            assignment_id=message.assignment_id,
            agent_id=message.agent_id,
            user_id=str(message.user_id),
            queue=QUEUES.name(message.queue),
            reason=message.reason,
            score=message.score,
            started_at=moment_in(message, "started_at"),
            lease_expires_at=moment_in(message, "lease_expires_at"),
            fence=str(message.fence),
            direction=CALL_DIRECTIONS.name(message.direction),
            contact_block=message.contact_block or None,
        )


class EmptyQueue(BaseModel):
    """Why no person can be called now."""

    waiting: int = Field(description="People who may not be called yet.")
    assigned: int = Field(description="People assigned to other agents.")
    next_due_at: Moment | None
    calling_hours_begin_at: Moment | None = Field(
        description="When calling hours begin; null during calling hours."
    )
    pauses: list[QueuePause] = Field(description="Pauses in force of the queues asked for.")

    @classmethod
    def of(cls, message: queue_pb2.EmptyQueue) -> Self:
        """Return what the message says."""
        return cls(
            waiting=message.waiting,
            assigned=message.assigned,
            next_due_at=moment_in(message, "next_due_at"),
            calling_hours_begin_at=moment_in(message, "calling_hours_begin_at"),
            pauses=[QueuePause.of(it) for it in message.pauses],
        )


class Claimed(BaseModel):
    """The answer to a claim: an assignment, or why there is none."""

    assignment: Assignment | None
    already_held: bool = Field(description="True when the agent held it before this request.")
    empty: EmptyQueue | None
    rejected_by_live_check: int = Field(
        description="People whom this request did not hand out because the main app had changed."
    )
    context: Any = Field(
        default=None,
        description="With `include=context`, the person's context as `GET "
        "/v1/people/{user_id}/context` has it, `Dialler-Stale` included; null when there is no "
        "assignment, and when it cannot be read now.",
    )

    @classmethod
    def of(cls, message: queue_pb2.ClaimNextResponse) -> Self:
        """Return what the message says."""
        held = message.HasField("assignment")
        return cls(
            assignment=Assignment.of(message.assignment) if held else None,
            already_held=message.already_held,
            empty=None if held else EmptyQueue.of(message.empty),
            rejected_by_live_check=message.rejected_by_live_check,
        )


class Released(BaseModel):
    """The person's state after a release."""

    call_state: CallState


class Recorded(BaseModel):
    """The person's state after an outcome."""

    call_state: CallState
    conversion: Conversion | None


class Assignments(BaseModel):
    """Every live assignment, by agent."""

    assignments: list[Assignment]


class ForceReleaseRequest(RequestBody):
    """Why a supervisor ends an agent's assignment."""

    notes: RequiredNotes = Field(examples=["The agent's laptop is lost."])


AssignmentId = Annotated[UUID, Path(description="The assignment's id.")]


class AssignmentRoutes:
    """The caller's own assignments, by the token's subject; for supervisors those of all agents."""

    def __init__(
        self,
        queue: "QueueServiceAsyncStub",
        contexts: ContextReads,
        access: PersonAccess,
        trail: AccessTrail,
    ) -> None:
        self._queue = queue
        self._contexts = contexts
        self._access = access
        self._trail = trail

    async def claim(
        self,
        caller: CallerOf,
        key: IdempotencyKey,
        response: Response,
        body: Annotated[ClaimRequest | None, Body()] = None,
        include: Annotated[
            Include | None, Query(description="What to answer besides, in one round trip.")
        ] = None,
    ) -> Claimed | Response:
        """Hand out the right next person, checked against the main app within this request.

        201 with a new assignment, 200 with the one already held, 200 with `empty` when no person
        can be called now, 503 while the main app cannot be asked. A repeated key gets the first
        answer while its assignment lasts, then 409 (`CLAIM_ENDED`): use a new key. A token that is
        limited to other queues than `callbacks` gets the callbacks that prefer its agent only.

        With `user_id` and `direction` the person named is handed out. `inbound`: the person has
        rung us, and neither calling hours nor caps nor an objection forbid the call; an agent names
        a person found by search. `manual`: every rule that forbids a call forbids this one (409
        `USER_NOT_CALLABLE` with the `cause`). 409 `PERSON_HELD` and `LINE_IN_CALL` say in
        `metadata.agent_id` which agent holds the person, or another person with the number.
        """
        if body is not None and body.user_id is not None:
            answer = await self._assign(caller, key, int(body.user_id), body.direction)
        else:
            answer = await self._claim(caller, key, body)
        if answer.HasField("assignment"):
            self._access.begin(caller.subject, answer.assignment)
        is_new = answer.HasField("assignment") and not answer.already_held
        response.status_code = 201 if is_new else 200
        claimed = Claimed.of(answer)
        if include is None or claimed.assignment is None:
            return claimed
        return await self._with_context(caller, claimed, response.status_code)

    async def _assign(
        self, caller: Caller, key: UUID, user_id: int, direction: ChosenDirection | None
    ) -> queue_pb2.ClaimNextResponse:
        """Hand out the person named, whom an agent must be allowed to read."""
        await self._access.require(caller, user_id)
        answer = await self._queue.AssignUser(
            queue_pb2.AssignUserRequest(
                agent_id=caller.subject,
                user_id=user_id,
                direction=CALL_DIRECTIONS.number(direction),
                is_supervisor=caller.role is Role.SUPERVISOR,
                request_id=str(key),
            )
        )
        return queue_pb2.ClaimNextResponse(
            assignment=answer.assignment, already_held=answer.already_held
        )

    async def _claim(
        self, caller: Caller, key: UUID, body: ClaimRequest | None
    ) -> queue_pb2.ClaimNextResponse:
        """Hand out the next person of the queues."""
        if caller.role is not Role.AGENT:
            raise PermissionDenied(
                "ROLE_NOT_ALLOWED", "supervisors name the person", role=caller.role
            )
        queues: list[QueueName] = []
        if body is not None and body.queues:
            queues = body.queues
            require_queues(caller, queues)
        elif caller.queues is not None:
            queues = [each for each in QueueName if each in caller.queues]
            if not queues:
                raise PermissionDenied("QUEUE_NOT_ALLOWED", "the token allows no queue")
        # An empty list means all queues.
        return await self._queue.ClaimNext(
            queue_pb2.ClaimNextRequest(
                agent_id=caller.subject,
                queues=[QUEUES.number(each) for each in queues],
                request_id=str(key),
                own_callbacks_only=not caller.may_work(QueueName.CALLBACKS),
            )
        )

    async def _with_context(self, caller: Caller, claimed: Claimed, status: int) -> Response:
        """Return the answer with the context, which user_context has rendered."""
        headers = {}
        content = claimed.model_dump_json(exclude={"context"}).removesuffix("}").encode()
        context = b"null"
        user_id = int(claimed.assignment.user_id) if claimed.assignment else 0
        try:
            read = await self._contexts.get(user_id)
            self._trail.note(caller.subject, user_id, ViewAction.CONTEXT)
        except ServiceError as error:
            # It cannot be read, or not be noted. The claim stands: the desk asks again for it.
            _log.warning("context_unknown", extra={"reason": error.reason})
        else:
            headers["Dialler-Stale"] = "true" if read.freshness.stale else "false"
            context = read.context_json
        content += b',"context":' + context + b"}"
        return Response(content, status, headers, media_type="application/json")

    async def current(self, caller: CallerOf) -> Assignment:
        """The agent's live assignment."""
        request = queue_pb2.GetCurrentAssignmentRequest(agent_id=caller.subject)
        return Assignment.of((await self._queue.GetCurrentAssignment(request)).assignment)

    async def heartbeat(
        self, caller: CallerOf, assignment_id: AssignmentId, key: HarmlessKey = None
    ) -> Assignment:
        """Extend the assignment's lease."""
        request = queue_pb2.HeartbeatAssignmentRequest(
            assignment_id=str(assignment_id), agent_id=caller.subject
        )
        return Assignment.of((await self._queue.HeartbeatAssignment(request)).assignment)

    async def release(
        self,
        caller: CallerOf,
        assignment_id: AssignmentId,
        key: IdempotencyKey,
        body: Annotated[ReleaseRequest | None, Body()] = None,
    ) -> Released:
        """Release the person without a call.

        409 `SKIP_LIMIT` for `skipped` when the agent has skipped as many people in an hour as the
        rules allow: report a call, or keep the person until the lease ends.
        """
        answer = await self._queue.ReleaseAssignment(
            queue_pb2.ReleaseAssignmentRequest(
                assignment_id=str(assignment_id),
                agent_id=caller.subject,
                reason=RELEASE_REASONS.number(body.reason if body else None),
                request_id=str(key),
            )
        )
        self._access.end(caller.subject, answer.call_state.user_id)
        return Released(call_state=CallState.of(answer.call_state))

    async def outcome(
        self,
        caller: CallerOf,
        assignment_id: AssignmentId,
        key: IdempotencyKey,
        body: OutcomeRequest,
    ) -> Recorded:
        """Record how the call ended and end the assignment, both or neither."""
        answer = await self._queue.RecordOutcome(
            queue_pb2.RecordOutcomeRequest(
                assignment_id=str(assignment_id),
                agent_id=caller.subject,
                outcome=OUTCOMES.number(body.outcome),
                disposition=body.disposition or "",
                notes=body.notes,
                callback_at=timestamp(body.callback_at),
                request_id=str(key),
            )
        )
        self._access.end(caller.subject, answer.call_state.user_id)
        return Recorded(
            call_state=CallState.of(answer.call_state),
            conversion=CONVERSIONS.name(answer.conversion),
        )

    async def amend(
        self,
        caller: CallerOf,
        assignment_id: AssignmentId,
        key: IdempotencyKey,
        body: AmendRequest,
    ) -> Amended:
        """Change how a call ended, as if it had been reported so from the first.

        Later calls, new cases and callbacks agreed since stay. Agents may amend their own reports
        for a while (409 `AMEND_TOO_LATE`), and take no objection back (403 `OBJECTION_STANDS`).
        """
        answer = await self._queue.AmendOutcome(
            queue_pb2.AmendOutcomeRequest(
                assignment_id=str(assignment_id),
                actor_id=caller.subject,
                outcome=OUTCOMES.number(body.outcome),
                disposition=body.disposition or "",
                notes=body.notes,
                callback_at=timestamp(body.callback_at),
                reason=body.reason,
                request_id=str(key),
                own_only=caller.role is Role.AGENT,
            )
        )
        return Amended(call_state=CallState.of(answer.call_state))

    async def undo(
        self, caller: CallerOf, key: IdempotencyKey, body: Annotated[UndoRequest, Body()]
    ) -> Undone:
        """Withdraw what an agent has reported in a time; `dry_run` lists it only.

        A call whose report is withdrawn counts as one without a report, and can be amended.
        Objections stand. A repeat withdraws what is left.
        """
        answer = await self._queue.UndoOutcomes(
            queue_pb2.UndoOutcomesRequest(
                agent_id=body.agent_id,
                since=timestamp(body.since),
                until=timestamp(body.until),
                actor_id=caller.subject,
                reason=body.reason,
                dry_run=body.dry_run,
                request_id=str(key),
            )
        )
        return Undone(
            calls=[
                UndoneOutcome(
                    assignment_id=it.assignment_id,
                    user_id=str(it.user_id),
                    outcome=OUTCOMES.name(it.outcome),
                    ended_at=moment_in(it, "ended_at"),
                    is_kept=it.is_kept,
                )
                for it in answer.calls
            ],
            has_more=answer.has_more,
        )

    async def assignments(self) -> Assignments:
        """Every live assignment."""
        answer = await self._queue.ListAgents(queue_pb2.ListAgentsRequest())
        return Assignments(
            assignments=[
                Assignment.of(it.assignment) for it in answer.agents if it.HasField("assignment")
            ]
        )

    async def force_release(
        self,
        caller: CallerOf,
        assignment_id: AssignmentId,
        key: IdempotencyKey,
        body: Annotated[ForceReleaseRequest, Body()],
    ) -> Released:
        """End an agent's assignment; the person returns to the queue."""
        answer = await self._queue.ForceReleaseAssignment(
            queue_pb2.ForceReleaseAssignmentRequest(
                assignment_id=str(assignment_id),
                actor_id=caller.subject,
                notes=body.notes,
                request_id=str(key),
            )
        )
        return Released(call_state=CallState.of(answer.call_state))
