"""An agent that has asked for the next user and has no answer yet."""

import asyncio
from dataclasses import dataclass

from dialler.queue.v1 import queue_pb2

from servicekit.errors import Conflict, FailedPrecondition, PermissionDenied, ServiceError
from services.queue.calls.once import first_answer
from services.queue.store.assignments import AgentSnapshot, Assignment
from services.queue.store.idempotency_records import IdempotencyRecord, IdempotentRequest
from services.queue.types import Queue, UserId
from services.queue.wire import messages


@dataclass(slots=True)
class WaitingAgent:
    """An agent that waits for the next user.

    With `own_callbacks_only` the agent gets only callbacks that prefer this agent.
    """

    request: IdempotentRequest
    queues: tuple[Queue, ...]
    own_callbacks_only: bool
    traceparent: str | None
    answer: asyncio.Future[queue_pb2.ClaimNextResponse]
    # Users whom the live check has turned down on the way to this agent.
    rejected: int = 0
    # The user whom the agent skipped last; not handed to the agent again while other agents wait.
    skipped_user_id: UserId | None = None

    @property
    def is_waiting(self) -> bool:
        """True until the agent is answered or has given up."""
        return not self.answer.done()

    def hand_out(self, assignment: Assignment, *, already_held: bool) -> None:
        """Answer with a user."""
        if self.is_waiting:
            self.answer.set_result(self.response(assignment, already_held=already_held))

    def response(
        self, assignment: Assignment, *, already_held: bool
    ) -> queue_pb2.ClaimNextResponse:
        """Return the answer that hands this assignment out."""
        return queue_pb2.ClaimNextResponse(
            assignment=messages.assignment_message(assignment),
            already_held=already_held,
            rejected_by_live_check=self.rejected,
        )

    def fail(self, error: ServiceError) -> None:
        """Answer with an error."""
        if self.is_waiting:
            self.answer.set_exception(error)

    def answer_empty(self, empty: queue_pb2.EmptyQueue) -> None:
        """Answer that no user of the queues can be called now."""
        if self.is_waiting:
            self.answer.set_result(
                queue_pb2.ClaimNextResponse(empty=empty, rejected_by_live_check=self.rejected)
            )

    def repeat(self, record: IdempotencyRecord, held: Assignment | None) -> None:
        """Answer as the first time while the agent holds the user of that answer, else refuse."""
        try:
            first = first_answer(record, self.request)
            response = queue_pb2.ClaimNextResponse.FromString(first)
            if held is None or str(held.assignment_id) != response.assignment.assignment_id:
                raise Conflict(
                    "CLAIM_ENDED", "what this request was handed has ended; use a new request id"
                )
        except ServiceError as error:
            self.fail(error)
        else:
            if self.is_waiting:
                self.answer.set_result(response)

    def is_admitted(self, snapshot: AgentSnapshot) -> bool:
        """Apply the agent's limits; answers an agent that may not be handed any user."""
        self.skipped_user_id = snapshot.skipped_user_id
        if snapshot.presence is not None and not snapshot.presence.takes_calls:
            presence = snapshot.presence.name
            self.fail(
                FailedPrecondition(
                    "AGENT_NOT_AVAILABLE", "the agent takes no calls now", presence=presence
                )
            )
            return False
        allowed = snapshot.allowed_queues
        if allowed is None:
            return True
        queues = tuple(it for it in self.queues if it in allowed)
        if not queues:
            error = PermissionDenied("QUEUE_NOT_ALLOWED", "the agent may take from none of these")
            self.fail(error)
            return False
        if Queue.CALLBACKS not in allowed:
            # Callbacks that prefer this agent are handed to it from any queue.
            self.own_callbacks_only = True
            queues = (Queue.CALLBACKS, *queues)
        self.queues = queues
        return True
