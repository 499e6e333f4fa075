"""Notes of a person outside a call."""

from uuid import uuid4

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import NotFound
from services.queue.calls.once import once
from services.queue.store import audit, entries, history
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import Action, UserId
from services.queue.wire.messages import timestamp


class PersonNotes:
    """Keeps notes; each is durable before it is answered."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self, request: IdempotentRequest, user_id: UserId, text: str
    ) -> queue_pb2.AddNoteResponse:
        """Keep a note of a user. Raises NotFound (USER_UNKNOWN)."""
        now = self._clock.now()

        async def add(tx: Transaction) -> queue_pb2.AddNoteResponse:
            # The lock keeps the user from being purged.
            if not await entries.lock(tx, [user_id]):
                raise NotFound("USER_UNKNOWN", "the dialler knows no such person")
            note_id = uuid4()
            await history.add_note(tx, note_id, user_id, request.agent_id, text, now)
            await audit.note(
                tx, request.agent_id, Action.NOTED, [user_id], now, note_id=str(note_id)
            )
            return queue_pb2.AddNoteResponse(note_id=str(note_id), noted_at=timestamp(now))

        return await once(self._database, request, now, queue_pb2.AddNoteResponse, add)
