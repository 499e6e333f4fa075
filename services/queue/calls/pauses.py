"""Pauses: supervisors stop hand-outs of one queue, or of all, for a time."""

from datetime import datetime
from uuid import UUID, uuid4

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import FailedPrecondition, NotFound
from services.queue.calls.once import once
from services.queue.domain.pauses import QueuePause, require_pausable
from services.queue.people.rulebook import Rulebook
from services.queue.store import audit, pauses
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import Action, Queue
from services.queue.wire import messages


class Pauses:
    """Begins and ends pauses. A change is in force for the next claim of any replica."""

    def __init__(self, database: Database, rulebook: Rulebook, clock: Clock) -> None:
        self._database = database
        self._rulebook = rulebook
        self._clock = clock

    async def begin(
        self,
        request: IdempotentRequest,
        queue: Queue | None,
        begins_at: datetime | None,
        ends_at: datetime,
        reason: str,
    ) -> queue_pb2.BeginPauseResponse:
        """Pause a queue, None for all; a begin that is None or past is now.

        Raises InvalidArgument (PAUSE_TIME_INVALID, PAUSE_TOO_LONG).
        """
        now = self._clock.now()
        begins_at = max(begins_at or now, now)

        async def begin(tx: Transaction) -> queue_pb2.BeginPauseResponse:
            require_pausable(begins_at, ends_at, now, self._rulebook.rules.pauses)
            made = QueuePause(uuid4(), queue, begins_at, ends_at, reason, request.agent_id, now)
            await pauses.insert(tx, made)
            await self._note(tx, request, Action.PAUSED, made, now)
            return queue_pb2.BeginPauseResponse(pause=messages.pause_message(made))

        answer = await once(self._database, request, now, queue_pb2.BeginPauseResponse, begin)
        await self._rulebook.read_pauses(now)
        return answer

    async def end(self, request: IdempotentRequest, pause_id: UUID) -> queue_pb2.EndPauseResponse:
        """End a pause now; one that has not begun never does.

        Raises NotFound (PAUSE_NOT_FOUND) and FailedPrecondition (PAUSE_ENDED).
        """
        now = self._clock.now()

        async def end(tx: Transaction) -> queue_pb2.EndPauseResponse:
            pause = await pauses.lock(tx, pause_id)
            if pause is None:
                raise NotFound("PAUSE_NOT_FOUND", "there is no such pause")
            if pause.ends_at <= max(now, pause.begins_at):
                raise FailedPrecondition("PAUSE_ENDED", "the pause is over")
            ends_at = max(now, pause.begins_at)
            await pauses.end(tx, pause_id, ends_at, request.agent_id)
            await self._note(tx, request, Action.PAUSE_ENDED, pause, now)
            ended = await pauses.lock(tx, pause_id)
            return queue_pb2.EndPauseResponse(pause=messages.pause_message(ended or pause))

        answer = await once(self._database, request, now, queue_pb2.EndPauseResponse, end)
        await self._rulebook.read_pauses(now)
        return answer

    async def every(self) -> queue_pb2.ListPausesResponse:
        """Return the pauses in force and those that lie ahead, the earliest first."""
        async with self._database.statements() as tx:
            found = await pauses.not_over(tx, self._clock.now())
        return queue_pb2.ListPausesResponse(pauses=[messages.pause_message(it) for it in found])

    async def _note(
        self,
        tx: Transaction,
        request: IdempotentRequest,
        action: Action,
        pause: QueuePause,
        now: datetime,
    ) -> None:
        details = {
            "pause_id": str(pause.pause_id),
            "queue": "all" if pause.queue is None else pause.queue.name.lower(),
            "begins_at": pause.begins_at.isoformat(),
            "ends_at": pause.ends_at.isoformat(),
        }
        await audit.note(tx, request.agent_id, action, [None], now, **details)
