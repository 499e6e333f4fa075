"""Complaints: while a user's complaint is open, and for a time after, the user's calls are kept."""

from dataclasses import replace

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import NotFound
from services.queue.calls.once import once
from services.queue.store import audit, complaints, entries
from services.queue.store.complaints import Complaint
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import Action, UserId
from services.queue.wire.messages import timestamp


class Complaints:
    """Opens and closes complaints. Every change is durable before it is answered."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def note(
        self, request: IdempotentRequest, user_id: UserId, *, is_open: bool
    ) -> queue_pb2.NoteComplaintResponse:
        """Note whether a complaint of the user is open; a second note of the same changes nothing.

        Raises NotFound (USER_UNKNOWN).
        """
        now = self._clock.now()

        async def note(tx: Transaction) -> queue_pb2.NoteComplaintResponse:
            # The lock keeps the user from being purged, and other notes from coming between.
            if not await entries.lock(tx, [user_id]):
                raise NotFound("USER_UNKNOWN", "the dialler knows no such person")
            latest = await complaints.latest_of(tx, user_id)
            action = None
            if is_open and (latest is None or not latest.is_open):
                latest, action = Complaint(now, None), Action.COMPLAINT_OPENED
            elif not is_open and latest is not None and latest.is_open:
                latest, action = replace(latest, closed_at=now), Action.COMPLAINT_CLOSED
            if latest is not None and action is not None:
                await complaints.write(tx, user_id, latest, request.agent_id)
                await audit.note(tx, request.agent_id, action, [user_id], now)
            if latest is None:
                return queue_pb2.NoteComplaintResponse()
            return queue_pb2.NoteComplaintResponse(
                is_open=latest.is_open,
                opened_at=timestamp(latest.opened_at),
                closed_at=timestamp(latest.closed_at),
            )

        return await once(self._database, request, now, queue_pb2.NoteComplaintResponse, note)
