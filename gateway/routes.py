"""The endpoints for people, queues, assignments and the pipeline."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2
from fastapi import Body, Path, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema

from gateway.access import Access
from gateway.access_trail import AccessTrail, View
from gateway.auth import Caller, Guard, Role
from gateway.context_reads import ContextReads
from gateway.fields import (
    AgentIdQuery,
    CallerOf,
    HarmlessKey,
    IdempotencyKey,
    UpperSnake,
    timestamp,
)
from gateway.pipeline import Pipeline, PipelineReader
from gateway.problems import InvalidRequest
from gateway.schemas import (
    Assignment,
    CallState,
    Claimed,
    ClaimRequest,
    EntryState,
    Hold,
    Outcome,
    OutcomeRequest,
    QueueEntries,
    QueueEntry,
    QueueName,
    Queues,
    Recorded,
    Released,
    ReleaseRequest,
    conversion_name,
    moment,
    queue_number,
    user_id_of,
)
from servicekit.errors import PermissionDenied

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

ALL_ROLES = frozenset(Role)

AssignmentId = Annotated[UUID, Path(description="The assignment's id.")]


class PeopleRoutes:
    """What an agent sees of a person."""

    def __init__(
        self,
        guard: Guard,
        contexts: ContextReads,
        access: Access,
        trail: AccessTrail,
    ) -> None:
        self._guard = guard
        self._contexts = contexts
        self._access = access
        self._trail = trail

    async def context(self, request: Request) -> Response:
        """Return the person's context as user_context has rendered it, byte for byte.

        While the main app's database cannot be reached it is the last one known, and
        `Dialler-Stale` says `true`.
        """
        caller = await self._guard.admit(request, ALL_ROLES)
        user_id = user_id_of(request.path_params["user_id"])
        if user_id is None:
            where = {"location": "path.user_id", "code": "user_id", "message": "is not an id"}
            raise InvalidRequest([where])
        if not self._access.is_granted(caller, user_id):
            await self._access.require(caller, user_id)
        answer = await self._contexts.get(user_id)
        self._trail.note(caller.subject, user_id, View.CONTEXT)
        headers = _freshness_headers(answer.freshness)
        if _has_it(request, headers["ETag"]):
            return Response(None, 304, headers)
        return _PassedThrough(answer.context_json, headers)


class _PassedThrough(Response):
    """JSON as it came in; its headers are put together without Starlette's detours."""

    media_type = "application/json"

    def __init__(self, content: bytes, headers: dict[str, str]) -> None:
        self.status_code = 200
        self.body = content
        self.background = None
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ]
        self.raw_headers += (
            (b"content-length", b"%d" % len(content)),
            (b"content-type", b"application/json"),
        )


class QueueRoutes:
    """What the queues hold."""

    def __init__(self, queue: "QueueServiceAsyncStub") -> None:
        self._queue = queue

    async def stats(self) -> Queues:
        """How many people are where in each queue, and today's figures."""
        return Queues.of(await self._queue.GetQueueStats(queue_pb2.GetQueueStatsRequest()))

    async def entries(
        self,
        caller: CallerOf,
        queue: QueueName,
        state: Annotated[EntryState, Query(description="Only people in this state.")] = (
            EntryState.READY
        ),
        page_size: Annotated[int, Query(ge=1, le=1000, description="Above 200 is 200.")] = 50,
        page_token: Annotated[
            str, Query(max_length=500, description="`next_page_token` of the page before.")
        ] = "",
        hold: Annotated[
            Hold | SkipJsonSchema[None], Query(description="Only people whom this holds.")
        ] = None,
        reason: Annotated[
            UpperSnake | SkipJsonSchema[None],
            Query(
                description="Only people in the queue, or kept out, for this reason.",
                examples=["NO_SIGNATURE"],
            ),
        ] = None,
        last_outcome: Annotated[
            Outcome | SkipJsonSchema[None],
            Query(description="Only people whose last call ended so."),
        ] = None,
        agent_id: AgentIdQuery = None,
        attempts_at_least: Annotated[
            int, Query(ge=0, le=10_000, description="Only people called so often.")
        ] = 0,
    ) -> QueueEntries:
        """One page of a queue in the order of handing out."""
        _require_queues(caller, [queue])
        answer = await self._queue.ListEntries(
            queue_pb2.ListEntriesRequest(
                queue=queue_number(queue),
                state=call_state_pb2.EntryState.Value(f"ENTRY_STATE_{state.name}"),
                page_size=page_size,
                page_token=page_token,
                hold=call_state_pb2.Hold.Value(f"HOLD_{hold.name if hold else 'UNSPECIFIED'}"),
                reason=reason or "",
                last_outcome=call_state_pb2.Outcome.Value(
                    f"OUTCOME_{last_outcome.name if last_outcome else 'UNSPECIFIED'}"
                ),
                agent_id=agent_id or "",
                attempts_at_least=attempts_at_least,
            )
        )
        return QueueEntries(
            entries=[QueueEntry.of(each) for each in answer.entries],
            next_page_token=answer.next_page_token or None,
        )


class AssignmentRoutes:
    """What an agent does with the people handed to it. The agent is always the token's subject."""

    def __init__(self, queue: "QueueServiceAsyncStub", access: Access) -> None:
        self._queue = queue
        self._access = access

    async def claim(
        self,
        caller: CallerOf,
        key: IdempotencyKey,
        response: Response,
        body: Annotated[ClaimRequest | None, Body()] = None,
    ) -> Claimed:
        """Hand out the right next person, checked against the main app within this request.

        201 with a new assignment, 200 with the one already held, 200 with `empty` when nobody can
        be called now, 503 while the main app cannot be asked.
        """
        answer = await self._queue.ClaimNext(
            queue_pb2.ClaimNextRequest(
                agent_id=caller.subject,
                queues=[queue_number(each) for each in _queues(caller, body)],
                request_id=str(key),
            )
        )
        if answer.HasField("assignment"):
            self._access.begin(caller.subject, answer.assignment)
        is_new = answer.HasField("assignment") and not answer.already_held
        response.status_code = 201 if is_new else 200
        return Claimed.of(answer)

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
        """Give the person back without a call."""
        reason = body.reason.name if body and body.reason else "UNSPECIFIED"
        answer = await self._queue.ReleaseAssignment(
            queue_pb2.ReleaseAssignmentRequest(
                assignment_id=str(assignment_id),
                agent_id=caller.subject,
                reason=queue_pb2.ReleaseReason.Value(f"RELEASE_REASON_{reason}"),
                request_id=str(key),
            )
        )
        self._access.end(caller.subject)
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
                outcome=call_state_pb2.Outcome.Value(f"OUTCOME_{body.outcome.name}"),
                notes=body.notes,
                callback_at=timestamp(body.callback_at),
                request_id=str(key),
            )
        )
        self._access.end(caller.subject)
        return Recorded(
            call_state=CallState.of(answer.call_state),
            conversion=conversion_name(answer.conversion),
        )


class PipelineRoutes:
    """How the suite itself is doing."""

    def __init__(self, reader: PipelineReader) -> None:
        self._reader = reader

    async def pipeline(self) -> Pipeline:
        """Change ingest, relay, cache, latest reconciliation, and where freshness comes from."""
        return await self._reader.read()


def _freshness_headers(freshness: user_context_pb2.Freshness) -> dict[str, str]:
    headers = {
        "ETag": f'"{freshness.etag}"',
        "Dialler-Stale": "true" if freshness.stale else "false",
        "Dialler-Cached": "true" if freshness.cached else "false",
    }
    if freshness.HasField("read_at"):
        headers["Dialler-Read-At"] = moment(freshness.read_at)
    return headers


def _has_it(request: Request, etag: str) -> bool:
    """Return whether the client holds this version; RFC 9110, section 13.1.2."""
    sent = request.headers.get("if-none-match")
    if sent is None:
        return False
    return any(each.strip().removeprefix("W/") in (etag, "*") for each in sent.split(","))


def _queues(caller: Caller, body: ClaimRequest | None) -> list[QueueName]:
    """Return the queues to take from; none for all, when the caller may work all."""
    if body is not None and body.queues:
        _require_queues(caller, body.queues)
        return body.queues
    if caller.queues is None:
        return []
    allowed = [each for each in QueueName if each in caller.queues]
    if not allowed:
        raise PermissionDenied("QUEUE_NOT_ALLOWED", "the token allows no queue")
    return allowed


def _require_queues(caller: Caller, queues: list[QueueName]) -> None:
    if caller.queues is None:
        return
    for each in queues:
        if each not in caller.queues:
            raise PermissionDenied(
                "QUEUE_NOT_ALLOWED", f"the token does not allow {each}", queue=each
            )
