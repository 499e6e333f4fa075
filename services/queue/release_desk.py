"""Taking back people whom agents have not called, many in one transaction.

Only plain releases go together; whatever is unusual about one of them is left to the desk that
serves each alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from dialler.model.v1 import event_pb2
from dialler.queue.v1 import queue_pb2

from servicekit import telemetry
from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.queue import messages, metrics
from services.queue.assignment_desk import AssignmentDesk
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.terms import Ending, UserId
from services.queue.rounds import Rounds
from services.queue.store import reading, releases
from services.queue.store.assignments import Request
from services.queue.store.database import Database
from services.queue.store.reading import Attempt, KnownPerson
from services.queue.store.releases import GivenBack, Held


@dataclass(slots=True)
class _Waiting:
    """An agent who gives somebody back."""

    assignment_id: UUID
    request: Request
    traceparent: str | None
    answer: asyncio.Future[queue_pb2.ReleaseAssignmentResponse]

    @property
    def is_waiting(self) -> bool:
        return not self.answer.done()

    def fail(self, error: ServiceError) -> None:
        if self.is_waiting:
            self.answer.set_exception(error)


class ReleaseDesk:
    """Ends assignments without a call. Every change is durable before it is answered."""

    def __init__(
        self,
        database: Database,
        placement: Placement,
        assignment_desk: AssignmentDesk,
        clock: Clock,
        posted: Callable[[], None],
        *,
        workers: int,
        batch: int,
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._placement = placement
        self._assignment_desk = assignment_desk
        self._clock = clock
        self._posted = posted
        self._rounds: Rounds[_Waiting] = Rounds(
            "release", self._serve, metrics.RELEASE_BATCH, workers=workers, batch=batch
        )

    async def release(
        self, assignment_id: UUID, request: Request, *, is_skipped: bool
    ) -> queue_pb2.ReleaseAssignmentResponse:
        """Give the person back without a call; raises what the assignment desk raises."""
        if is_skipped:
            return await self._assignment_desk.release(assignment_id, request, is_skipped=True)
        answer = asyncio.get_running_loop().create_future()
        self._rounds.join(_Waiting(assignment_id, request, telemetry.inject(), answer))
        response: queue_pb2.ReleaseAssignmentResponse = await answer
        return response

    async def stop(self) -> None:
        """Let the rounds under way end."""
        await self._rounds.stop()

    async def _serve(self, batch: Sequence[_Waiting]) -> None:
        await self._release_together(batch)
        for waiting in batch:
            if waiting.is_waiting:
                await self._release_alone(waiting)

    async def _release_alone(self, waiting: _Waiting) -> None:
        try:
            response = await self._assignment_desk.release(
                waiting.assignment_id, waiting.request, is_skipped=False
            )
        except ServiceError as error:
            waiting.fail(error)
        else:
            if waiting.is_waiting:
                waiting.answer.set_result(response)

    async def _release_together(self, batch: Sequence[_Waiting]) -> None:
        """Release those about whom nothing is unusual and answer them."""
        # The first of two who ask for the same; the other is served alone, after it.
        asked = {it.assignment_id: it for it in reversed(batch)}
        now = self._clock.now()
        async with self._database.statements() as tx:
            held = await releases.held(
                tx, [(it.assignment_id, it.request) for it in asked.values()], now
            )
            called = [it.entry.user_id for it in held.values() if it.entry.attempts]
            attempts = await reading.recent_attempts(tx, called) if called else {}
            given: list[GivenBack] = []
            responses: dict[UserId, tuple[_Waiting, queue_pb2.ReleaseAssignmentResponse]] = {}
            for assignment_id, it in held.items():
                waiting, user_id = asked[assignment_id], it.entry.user_id
                after = self._placement.settled(it.entry, now)
                response = self._response(it, after, attempts.get(user_id, ()), now)
                responses[user_id] = waiting, response
                given.append(
                    GivenBack(
                        held=it,
                        after=after,
                        request=waiting.request,
                        response=response.SerializeToString(),
                        event=_event(it, after, waiting.traceparent, now),
                    )
                )
            done = await releases.give_back(tx, given, Ending.RELEASED, now) if given else set()
        if done:
            self._posted()
            metrics.ENDINGS.labels(Ending.RELEASED.name.lower()).inc(len(done))
        for user_id in done:
            waiting, response = responses[user_id]
            if waiting.is_waiting:
                waiting.answer.set_result(response)

    def _response(
        self, held: Held, after: Entry, attempts: Sequence[Attempt], now: datetime
    ) -> queue_pb2.ReleaseAssignmentResponse:
        state = messages.call_state_message(
            KnownPerson(after, held.next_version),
            self._placement.score(after, now),
            attempts,
            now,
        )
        return queue_pb2.ReleaseAssignmentResponse(call_state=state)


def _event(held: Held, after: Entry, traceparent: str | None, now: datetime) -> bytes:
    return messages.event(
        event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED,
        held.entry,
        after,
        now,
        traceparent,
        agent_id=held.assignment.agent_id,
        assignment_id=held.assignment.assignment_id,
    )
