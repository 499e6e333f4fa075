"""Taking back people whom agents have not called, many in one transaction.

Only plain releases go together; whatever is unusual about one of them is left to the desk that
serves each alone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
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
from services.queue.domain.callbacks import Callback
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.terms import Ending, UserId
from services.queue.rounds import Rounds
from services.queue.rulebook import Rulebook
from services.queue.store import callbacks, reading, releases
from services.queue.store.assignments import Request
from services.queue.store.database import Database, Transaction
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
        rulebook: Rulebook,
        assignment_desk: AssignmentDesk,
        clock: Clock,
        posted: Callable[[], None],
        *,
        workers: int,
        batch: int,
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._rulebook = rulebook
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
        now, placement = self._clock.now(), self._rulebook.placement
        async with self._database.statements() as tx:
            held = await releases.held(
                tx, [(it.assignment_id, it.request) for it in asked.values()], now
            )
            histories = await _histories(tx, [it.entry for it in held])
            given = [
                _given_back(it, asked[it.assignment.assignment_id], histories, placement, now)
                for it in held
            ]
            done = await releases.give_back(tx, given, now) if given else set()
        if not done:
            return
        self._posted()
        metrics.ENDINGS.labels(Ending.RELEASED.name.lower()).inc(len(done))
        for it in given:
            waiting = asked[it.held.assignment.assignment_id]
            if it.after.user_id in done and waiting.is_waiting:
                waiting.answer.set_result(it.response)


@dataclass(frozen=True, slots=True)
class _Histories:
    """What is shown of people besides their entries."""

    attempts: Mapping[UserId, Sequence[Attempt]]
    callbacks: Mapping[UserId, Callback]


async def _histories(tx: Transaction, people: Sequence[Entry]) -> _Histories:
    called = [it.user_id for it in people if it.attempts]
    promised = [it.user_id for it in people if it.callback_id is not None]
    return _Histories(
        await reading.recent_attempts(tx, called) if called else {},
        await callbacks.open_of(tx, promised) if promised else {},
    )


def _given_back(
    held: Held, waiting: _Waiting, histories: _Histories, placement: Placement, now: datetime
) -> GivenBack:
    after = placement.settled(held.entry, now)
    state = messages.call_state_message(
        KnownPerson(after, held.next_version),
        placement.score(after, now),
        histories.attempts.get(after.user_id, ()),
        histories.callbacks.get(after.user_id),
        now,
    )
    return GivenBack(
        held=held,
        after=after,
        request=waiting.request,
        response=queue_pb2.ReleaseAssignmentResponse(call_state=state),
        event=_event(held, after, waiting.traceparent, now),
    )


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
